"""The event loop of an actor: asyncio's own, on a selector that knows since when the loop has not looked at it."""

from __future__ import annotations

import asyncio
from typing import Any


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop that can be asked, from any thread, since when it has been running callbacks."""

    def __init__(self, selector: Any) -> None:
        """
        Args:
            selector: sets its `busy_since` to `time.monotonic()` when it returns events, and to None while it sleeps.
        """
        super().__init__(selector)
        self._watched = selector

    @property
    def busy_since(self) -> float | None:
        """Since when one callback, or one round of them, has kept the loop from its selector; None while it sleeps."""
        since: float | None = self._watched.busy_since
        return since
