"""The selector of an actor's loop that nothing but the loop looks at."""

from __future__ import annotations

import selectors
import time
from typing import Any

from klieg.concurrency.loops import WatchedLoop


class WatchedSelector(selectors.DefaultSelector):
    """A selector that can be asked, from any thread, since when its loop has been running callbacks."""

    busy_since: float | None = None
    """In `time.monotonic` seconds; None while the loop sleeps."""

    def select(self, timeout: float | None = None) -> Any:
        self.busy_since = None
        events = super().select(timeout)
        self.busy_since = time.monotonic()
        return events


def new_loop() -> WatchedLoop:
    return WatchedLoop(WatchedSelector())
