"""What Ray brings, from Ray's own thread to the thread that waits for it.

    Ray's thread ──► arrive ──► the thread that blocks in `block`, or else the engine's own thread ──► dispatch

Ray calls back on a thread of its core, where a call to Ray would never return. So that thread only leaves a note here;
whoever waits for a result dispatches what has come, and the engine's own thread does when nobody waits.

A lone ref, which nothing else is under way with, is not given to Ray's thread at once: mostly the thread that has sent
the call blocks for it next, and waits in Ray itself then, which saves two changes of threads. The engine's own thread
looks every few milliseconds for one that nobody has come for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

import ray

from klieg.engines.calls import OutgoingCall
from klieg.engines.objects import ObjectFuture, Ready
from klieg.engines.timers import Timers

logger = logging.getLogger("klieg")

Arrived = Callable[[Any], None]
"""What to do with the value of a Ray ref, or with the RayError that stands for it."""

Lone = tuple[Any, Arrived, OutgoingCall]
"""A Ray ref, what to do with its value, and the one call whose outcome it brings."""

TASK_LOOKS_EVERY = 0.05
"""Seconds that a waiting task leaves to Ray at a time: news without a Ray ref (a kill, a shutdown) wait so long."""


LONE_LOOKS_EVERY: Final = 0.002
"""Seconds in which somebody must have come for a lone ref, or the engine's own thread does."""

LONE_PATIENCE: Final = 0.05
"""Seconds that a thread waits in Ray for a lone ref, where it hears of nothing else. A guess; and for so long after the
last lone ref the engine's own thread looks for the next, since to wake it for each would cost what is to be saved."""


class Bell:
    """Rung from anywhere, finalizers included; any number of rings wake once."""

    __slots__ = ("_queue", "_rung")

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._rung = False

    def ring(self, _: object = None) -> None:
        if not self._rung:
            self._rung = True
            self._queue.put(None)

    def wait(self, timeout: float | None = None) -> None:
        try:
            self._queue.get(timeout=timeout)
        except Empty:
            return
        self._rung = False


class Arrivals:
    """The notes that nobody has dispatched yet, and the chores of the engine's own thread."""

    def __init__(self, before_waiting: Callable[[], None], chores: Callable[[], None]) -> None:
        self._before_waiting = before_waiting
        """Sends what was held back to be sent together."""
        self._chores = chores
        self._notes: deque[tuple[Arrived, Any]] = deque()
        self._dispatching = threading.RLock()
        self._waiting: list[Bell] = []
        self._own = Bell()
        self._expected: dict[Any, None] = {}
        self._timers = Timers()
        self._lone: Lone | None = None
        self._lone_seen: Lone | None = None
        self._lone_last = 0.0
        self._lone_watched = False
        self._lone_lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="klieg ray", daemon=True)
        self._thread.start()

    def expect(self, ref: Any, arrived: Arrived) -> None:
        """Have `arrived` called with what becomes of the Ray ref, on a thread that may call Ray."""
        self._expected[ref] = None

        def note(value: Any) -> None:
            self._expected.pop(ref, None)
            self._notes.append((arrived, value))
            waiting = self._waiting
            (waiting[-1] if waiting else self._own).ring()

        ref._on_completed(note)

    def expect_lone(self, ref: Any, arrived: Arrived, call: OutgoingCall) -> None:
        """The same for a ref that brings the outcome of this call, for which the calling thread may block next."""
        with self._lone_lock:
            earlier, self._lone = self._lone, (ref, arrived, call)
            self._lone_last = time.monotonic()
            watched, self._lone_watched = self._lone_watched, True
        if earlier is not None:
            self.expect(*earlier[:2])
        if not watched:
            self.call_at(self._lone_last + LONE_LOOKS_EVERY, self._look_for_lone)

    def release_lone(self) -> None:
        """Nobody will block for it: leave it to Ray's thread after all."""
        lone = self._take_lone()
        if lone is not None:
            self.expect(*lone[:2])

    def _take_lone(self) -> Lone | None:
        with self._lone_lock:
            lone, self._lone = self._lone, None
        return lone

    def _look_for_lone(self) -> None:
        now = time.monotonic()
        with self._lone_lock:
            left = self._lone if self._lone is self._lone_seen else None
            if left is not None:
                self._lone = None
            self._lone_seen = self._lone
            self._lone_watched = now < self._lone_last + LONE_PATIENCE
        if left is not None:
            self.expect(*left[:2])
        if self._lone_watched:
            self._timers.at(now + LONE_LOOKS_EVERY, self._look_for_lone)

    def _wait_in_ray(self, future: ObjectFuture, deadline: float | None) -> None:
        """Wait for the lone ref, if it brings this future its outcome, while nothing else can matter much."""
        lone = self._take_lone()
        if lone is None:
            return
        ref, arrived, call = lone
        if call is not future.call:
            self.expect(ref, arrived)
            return
        patience = LONE_PATIENCE if deadline is None else min(LONE_PATIENCE, max(0.0, deadline - time.monotonic()))
        try:
            value = ray.get(ref, timeout=patience)
        except ray.exceptions.GetTimeoutError:
            self.expect(ref, arrived)
            return
        except Exception as error:
            value = error
        except BaseException:  # the user's Ctrl-C ends the wait, not the call
            self.expect(ref, arrived)
            raise
        self._notes.append((arrived, value))

    def ring(self) -> None:
        """Have the engine's own thread look round; safe in a finalizer."""
        self._own.ring()

    def call_at(self, moment: float, function: Callable[[], None]) -> None:
        """Have the engine's own thread call the function at a time of the monotonic clock."""
        if self._timers.at(moment, function):
            self._own.ring()

    def block(self, ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None, in_task: bool) -> bool:
        """Wait until `ready()` or the deadline, and dispatch what comes meanwhile."""
        if ready():
            return True
        if len(futures) == 1 and not in_task:
            self._before_waiting()
            self._wait_in_ray(futures[0], deadline)
            self._dispatch()
            if ready():
                return True
        else:
            self.release_lone()
        bell = Bell()
        pending = [f for f in futures if f.outcome is None]
        for future in pending:
            future.add_callback(bell.ring)
        self._waiting.append(bell)
        try:
            self._before_waiting()
            while True:
                self._dispatch()
                if ready():
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._wait_as_task(bell, left) if in_task else bell.wait(_bearable(left))
        finally:
            self._waiting.remove(bell)
            for future in pending:
                future.remove_callback(bell.ring)
            if self._notes:
                self._own.ring()

    def _wait_as_task(self, bell: Bell, left: float | None) -> None:
        """Wait in Ray, so that it gives the task's resources to others meanwhile."""
        look = TASK_LOOKS_EVERY if left is None else min(left, TASK_LOOKS_EVERY)
        expected = list(self._expected)
        if expected and not ray.wait(expected, timeout=look, fetch_local=False)[0]:
            return
        bell.wait(look)

    def _dispatch(self) -> None:
        notes = self._notes
        if not notes:
            return
        with self._dispatching:  # one at a time: the items of a stream must come in order
            while notes:
                try:
                    arrived, value = notes.popleft()
                except IndexError:  # a thread that came by has taken the last one
                    return
                try:
                    arrived(value)
                except Exception:
                    logger.exception("klieg's Ray engine could not dispatch a result.")
                del arrived, value

    def _run(self) -> None:
        while not self._closed:
            self._own.wait(self._timers.left())
            self._before_waiting()
            self._dispatch()
            self._timers.run()
            self._chores()

    def close(self) -> None:
        self._closed = True
        self._own.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)


def _bearable(left: float | None) -> float | None:
    return None if left is None else min(left, threading.TIMEOUT_MAX)
