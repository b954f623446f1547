"""How much of the faults a run injects: all of it under `make chaos`, a cut in `make test`; and the run's seed."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

NIGHTLY = os.environ.get("KLIEG_CHAOS") == "nightly"
"""True under `make chaos`: the sizes of the goals instead of their cuts."""

SEED = int(os.environ.get("KLIEG_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
"""The run's seed. `KLIEG_SEED=n` tells a run again."""


def some(cases: Sequence[T], one_in: int = 3, start: int = 0) -> list[T]:
    """All cases in a nightly run; else one in so many, from `start` on, so that each is some test's turn."""
    return list(cases) if NIGHTLY else list(cases[start % one_in :: one_in])


def cross(rows: Sequence[str], columns: Sequence[T], one_in: int = 3) -> list[tuple[str, T]]:
    """Every pair in a nightly run; else a diagonal cut in which each row and each column has its turn."""
    return [(row, column) for i, row in enumerate(rows) for column in some(columns, one_in, i)]


def size(nightly: int, cut: int) -> int:
    return nightly if NIGHTLY else cut
