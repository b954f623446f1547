"""Calls that must be done by a certain time: whoever made a call ends its wait when the time is up.

The caller's side keeps the time, so that a ref resolves by its deadline whatever the other side does: it may be stuck,
stopped, or not there yet. The other side is told, and looks at the time itself before it starts a call.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Final

from klieg.engines.calls import OutgoingCall, expired_error
from klieg.engines.objects import ObjectFuture
from klieg.exceptions import DeadlineExceededError
from klieg.task import TaskSpec

SLACK: Final = 64
"""Entries of finished calls that may lie in the heap before it is worth sweeping them out."""


class Deadlines:
    """The calls of one process that have a deadline and no outcome yet."""

    def __init__(
        self,
        call_at: Callable[[float, Callable[[], None]], None],
        expire: Callable[[OutgoingCall, DeadlineExceededError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call_at = call_at
        self._expire = expire
        self._clock = clock
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int]] = []
        self._calls: dict[int, OutgoingCall] = {}

    def watch(self, call: OutgoingCall) -> None:
        """From now until it has an outcome."""
        assert call.deadline is not None
        with self._lock:
            self._calls[call.id] = call
            heapq.heappush(self._heap, (call.deadline, call.id))
            is_next = self._heap[0][1] == call.id
        if is_next:
            self._call_at(call.deadline, self._look)
        call.futures[0].add_callback(self._forget)

    def _forget(self, future: ObjectFuture) -> None:
        with self._lock:
            self._calls.pop(future.id, None)
            if len(self._heap) > 2 * len(self._calls) + SLACK:
                self._heap = [entry for entry in self._heap if entry[1] in self._calls]
                heapq.heapify(self._heap)

    def _look(self) -> None:
        due, following = self._take_due()
        for call in due:
            self._expire(call, expired_error(call.spec))
        if following is not None:
            self._call_at(following, self._look)

    def _take_due(self) -> tuple[list[OutgoingCall], float | None]:
        now, due = self._clock(), []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                call = self._calls.pop(heapq.heappop(self._heap)[1], None)
                if call is not None:
                    due.append(call)
            return due, self._heap[0][0] if self._heap else None


def inherited_deadline(spec: TaskSpec, enclosing: float | None) -> float | None:
    """When a call made now is due, in `time.monotonic` seconds: by its own timeout, and by the call that makes it."""
    if spec.timeout is None:
        return enclosing
    own = time.monotonic() + spec.timeout
    return own if enclosing is None else min(own, enclosing)
