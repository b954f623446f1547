"""Groups with an event loop of their own: what runs there goes on while the actor's main loop is held."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Final

from klieg.concurrency.call import Finished
from klieg.concurrency.executors import LoopExecutor, StartThread
from klieg.concurrency.loops import WatchedLoop

STOP_GRACE: Final = 1.0
"""Seconds that calls and tasks on such a loop get to clean up when the actor exits."""


class OwnLoops:
    """The loops of the groups that asked for one, each on a thread of its own, started with the group's first call."""

    def __init__(
        self,
        groups: frozenset[str],
        actor: str,
        new_loop: Callable[[], WatchedLoop],
        finished: Finished,
        start_thread: StartThread,
    ) -> None:
        self.groups = groups
        self._actor = actor
        self._new_loop = new_loop
        self._finished = finished
        self._start_thread = start_thread
        self._lock = threading.Lock()
        self._started: dict[str, tuple[LoopExecutor, threading.Thread]] = {}
        self._stopped = False

    def of(self, group: str) -> LoopExecutor | None:
        """Where the calls of the group run; None if it has no loop of its own."""
        if group not in self.groups:
            return None
        known = self._started.get(group)
        return self._start(group) if known is None else known[0]

    def started(self) -> list[LoopExecutor]:
        return [executor for executor, _ in list(self._started.values())]

    def stop(self) -> None:
        """Let each loop cancel and clear up what is left on it; waits for nothing."""
        with self._lock:
            stopped, self._stopped = self._stopped, True
        if not stopped:
            for executor in self.started():
                executor.stop()

    def join(self) -> None:
        """Wait until the loops have been cleared up, STOP_GRACE each at most."""
        for _, thread in list(self._started.values()):
            if thread is not threading.current_thread():
                thread.join(STOP_GRACE)

    def _start(self, group: str) -> LoopExecutor:
        with self._lock:
            if group not in self._started:
                executor = LoopExecutor(self._new_loop(), self._finished)
                run = functools.partial(executor.run, STOP_GRACE)
                self._started[group] = executor, self._start_thread(run, f"{self._actor}-{group}")
            return self._started[group][0]
