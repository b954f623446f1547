"""The object plane of the local engine: what processes keep for each other, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import klieg
from klieg import engine

MIB = 1 << 20


@pytest.fixture
def start(nothing_leaks: None) -> Iterator[Callable[..., Any]]:
    """`start(**settings)` starts a runtime of the local engine; it is shut down when the test ends."""

    def start(**settings: Any) -> Any:
        klieg.init(engine="local", **{"num_cpus": 4, **settings})
        return engine.current()

    yield start
    klieg.shutdown()


@pytest.fixture
def runtime(start: Callable[..., Any]) -> Any:
    """The engine of a runtime with the usual settings."""
    return start()
