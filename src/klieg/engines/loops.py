"""The selector of an actor's loop that nothing but the loop looks at."""

from __future__ import annotations

import asyncio
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


def watched(loop: asyncio.AbstractEventLoop) -> WatchedLoop:
    """A running loop that somebody else has made, from now on watched.

    Raises TypeError for a loop that is not asyncio's own.
    """
    if type(loop) is not asyncio.SelectorEventLoop:
        raise TypeError(f"klieg's actors run on asyncio's own event loop, not on {type(loop).__name__}.")
    selector: Any = loop._selector  # type: ignore[attr-defined]  # asyncio keeps it to itself
    selector.__class__ = WatchedSelector
    loop.__class__ = WatchedLoop
    loop._watched = selector  # type: ignore[attr-defined]  # what its constructor would have set
    assert isinstance(loop, WatchedLoop)
    return loop
