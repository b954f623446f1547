"""A program that runs, for commands to look into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import outside
import pytest


@pytest.fixture
def live(tmp_path: Path, nothing_leaks: None) -> Iterator[outside.Live]:
    program = outside.Live(tmp_path)
    assert outside.wait_for_door(program.pid)
    yield program
    program.kill()
