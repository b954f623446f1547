"""The thread on which the callbacks of users run, so that one that waits or computes holds up nobody's results."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from klieg import session

logger = logging.getLogger("klieg")


class Callbacks:
    """Runs functions one after another on a thread of its own, started with the first."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def run(self, function: Callable[[], None]) -> None:
        """Run `function` soon, after those given before it; from any thread, never waits."""
        self.start()
        self._queue.put(function)
        if self._stopped:  # nobody else will any more
            self._run_what_is_left()

    def start(self) -> None:
        """Have the thread ready, for a time when none can be started any more: the interpreter's end."""
        if self._thread is None:
            with self._lock:
                self._start_once()

    def _start_once(self) -> None:
        if self._thread is None and not self._stopped:
            thread = threading.Thread(target=self._work, name="klieg callbacks", daemon=True)
            thread.start()
            self._thread = thread  # now: one that has not been started cannot be waited for

    def stop(self, timeout: float) -> None:
        """End the thread once it has run what it was given; wait for that at most `timeout` seconds."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _work(self) -> None:
        session.NO_AUTO_INIT.add(threading.get_ident())
        try:
            while (function := self._queue.get()) is not None:
                _run(function)
                del function
            self._run_what_is_left()
        finally:
            session.NO_AUTO_INIT.discard(threading.get_ident())

    def _run_what_is_left(self) -> None:
        while True:
            try:
                function = self._queue.get_nowait()
            except Empty:
                return
            if function is not None:
                _run(function)


def _run(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception:
        logger.exception("A callback on a result raised.")
