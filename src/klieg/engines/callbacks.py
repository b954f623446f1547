"""The thread on which the callbacks of users run, so that one that waits or computes holds up nobody's results."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger("klieg")


class Callbacks:
    """Runs functions one after another on a thread of its own, started with the first."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[[], None]) -> None:
        """Run `function` soon, after those given before it; from any thread, never waits."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="klieg callbacks", daemon=True)
                    self._thread.start()
        self._queue.put(function)

    def stop(self, timeout: float) -> None:
        """End the thread once it has run what it was given; wait for that at most `timeout` seconds."""
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _work(self) -> None:
        while (function := self._queue.get()) is not None:
            try:
                function()
            except Exception:
                logger.exception("A callback on a result raised.")
            del function
