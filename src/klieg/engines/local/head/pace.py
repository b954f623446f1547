"""How long an actor that has died waits for its next life: not at all, unless it dies again and again. Pure."""

from __future__ import annotations

import math
from typing import Final

CRASH_LOOP: Final = 1.0
"""Seconds of life within which another death counts as one of a row."""

FIRST: Final = 0.1
"""Seconds to wait after the second death in a row; doubled at each further one, up to LONGEST."""
LONGEST: Final = 10.0


class Pace:
    """The deaths of one actor."""

    def __init__(self) -> None:
        self._last = -math.inf
        self._pause = 0.0
        """What it waited after the last one."""

    def pause(self, now: float) -> float:
        """It has died at `now`, a time of some clock in seconds: how long to wait before it is started again."""
        in_a_row = now - self._last < self._pause + CRASH_LOOP
        self._last = now
        self._pause = min(self._pause * 2 or FIRST, LONGEST) if in_a_row else 0.0
        return self._pause
