"""What the checks of security share: a runtime at work, and what the kernel says of its processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("faults", "conformance"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

import kernel  # noqa: E402  # found on the path that was just made

import klieg  # noqa: E402


@pytest.fixture
def runtime(nothing_leaks: None) -> Iterator[kernel.Work]:
    """A runtime in which actors of each kind and tasks have worked, and a large value is shared."""
    klieg.init(engine="local", num_cpus=4)
    work = kernel.Work()
    yield work
    vars(work).clear()  # its values would keep their memory mapped
    klieg.shutdown()
