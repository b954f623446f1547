"""Cancelling a running task for good: Ray's interrupt waits for the next bytecode, klieg's ends a `time.sleep` too.

Ray cancels by `_thread.interrupt_main()`, which marks SIGINT as pending but sends none, so nothing that sleeps in C
wakes; and it blocks the real SIGINT, which a terminal sends to workers too. But marking also writes to Python's wakeup
descriptor. A thread that reads there sends the main thread another signal, whose only use is to end the sleep.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from klieg.concurrency.call import Call
from klieg.engines.calls import cancelled_error

WAKE: Final = signal.SIGURG
"""Ignored by default, so that nobody else is likely to use it."""


class Interrupts:
    """Interrupts the main thread while, and only while, the cancelled task is what it runs."""

    def __init__(self) -> None:
        self._current: Call | None = None
        if threading.current_thread() is not threading.main_thread():
            return
        self._receiver, sender = os.pipe()
        os.set_blocking(sender, False)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(WAKE, _do_nothing)
        threading.Thread(target=self._watch, name="klieg interrupts", daemon=True).start()

    @staticmethod
    @functools.cache
    def of_this_process() -> Interrupts:
        return Interrupts()

    @contextlib.contextmanager
    def during(self, call: Call) -> Iterator[None]:
        self._current = call
        try:
            yield
        finally:
            self._current = None

    def _watch(self) -> None:
        while marked := os.read(self._receiver, 1):
            if marked[0] == signal.SIGINT:
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        call = self._current
        if call is not None and call.cancelled is None:
            call.cancelled = cancelled_error(call.spec)
            call.interrupted = True
            raise KeyboardInterrupt


def _do_nothing(number: int, frame: FrameType | None) -> None:
    return
