"""What is to be done at a certain time: a heap of moments, pure; whoever owns it says when it is looked at."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Timers:
    """Functions to be called at about a moment, each once, by whoever calls `run`. Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, moment: float, function: Callable[[], None]) -> bool:
        """Have `function` called at `moment`, a time of the clock; True if nothing else is due earlier."""
        entry = (moment, next(self._count), function)
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def next(self) -> float | None:
        """When the next function is due; None if there is none."""
        try:
            return self._heap[0][0]
        except IndexError:
            return None

    def left(self) -> float | None:
        """Seconds until then, at least 0."""
        moment = self.next()
        return None if moment is None else max(0.0, moment - self._clock())

    def run(self) -> None:
        """Call what is due."""
        while (moment := self.next()) is not None and moment <= self._clock():
            try:
                _, _, function = heapq.heappop(self._heap)
            except IndexError:  # another thread was faster
                return
            function()
