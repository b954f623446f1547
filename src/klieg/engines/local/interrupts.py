"""SIGINT that never lands inside klieg's own code: Ctrl-C in the driver, cancelled tasks in workers.

A Python signal handler runs between any two bytecodes of the main thread. If one of them is klieg's, taking a message
off a socket, say, an exception there would lose the message. So the handler looks at the innermost frame that is
klieg's: only a wait, or user code that klieg has called, may be interrupted; otherwise it tries again a moment later.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from klieg.concurrency.call import Call
from klieg.concurrency.executors import run_sync
from klieg.engines.local.reactor import Reactor

RETRY_AFTER: Final = 0.002
"""Seconds until an interrupt that came at a bad moment is tried again."""

_WAITS: Final[frozenset[CodeType]] = frozenset(
    f.__code__ for f in (Reactor.block, Reactor._lead_until, Reactor._sleep, Reactor._follow)
)
"""Here nothing is half done: events are level-triggered, and every entry is taken back by a `finally`."""


def may_interrupt(frame: FrameType | None) -> bool:
    """True if an exception may be raised where the main thread is now."""
    innermost = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("klieg."):
            if frame.f_code is run_sync.__code__:
                return frame is not innermost
            return frame.f_code in _WAITS
        frame = frame.f_back
    return True


class InterruptTasks:
    """In a task worker: interrupts the main thread while, and only while, the cancelled task is what it runs."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._target: Call | None = None
        signal.signal(signal.SIGINT, self._on_signal)

    def interrupt(self, call: Call) -> None:
        """Interrupt the call, once; from any thread."""
        self._target = call
        self._send()

    def _send(self) -> None:
        if self._target is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        call = self._target
        if call is None or self._runner.host.main.current is not call:
            self._target = None  # it has ended meanwhile: the next task must not pay for it
            return
        if may_interrupt(frame):
            self._target = None
            call.interrupted = True
            raise KeyboardInterrupt
        self._runner.engine.reactor.call_at(time.monotonic() + RETRY_AFTER, self._send)


class CtrlC:
    """In the driver: Ctrl-C as Python's own handler does it, but never inside klieg.

    Installed only over Python's default handler; a program's own handler is left alone.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._postponed = False
        self._over = False
        self._installed: Callable[..., Any] | None = None
        if threading.current_thread() is threading.main_thread() and _may_be_replaced(signal.getsignal(signal.SIGINT)):
            self._installed = self._on_signal
            signal.signal(signal.SIGINT, self._installed)

    def remove(self) -> None:
        """The runtime is over: from now on Ctrl-C is Python's again, and one that came meanwhile is delivered."""
        self._over = True
        if self._installed is not None and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) == self._installed:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = None
        if self._postponed:
            self._again()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._over or may_interrupt(frame):
            self._postponed = False
            raise KeyboardInterrupt
        self._postponed = True
        self._reactor.call_at(time.monotonic() + RETRY_AFTER, self._again)

    def _again(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _may_be_replaced(handler: Any) -> bool:
    """Python's own, or one of ours that a shutdown in another thread, which may not touch it, has left."""
    return handler is signal.default_int_handler or isinstance(getattr(handler, "__self__", None), CtrlC)
