"""The one future that `get`, `await`, `wait` and `ref.future()` all rest on.

A future is owned by the process that made it and lives as long as Python's own references to it: a ref, a call under
way, a value that names it, or the table of what was lent to other processes. So dropping the last ref frees the value
at once, and there is nothing to count until a ref leaves the process.

Rules kept here:
- `outcome` is written once, before the callbacks are looked at; whoever adds a callback looks at `outcome` after it
  has added it. So one of the two always sees the other, and no lock is taken.
- a callback runs exactly once, on the thread that resolves or, if the outcome is there already, on the adder's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from klieg.exceptions import GetTimeoutError
from klieg.outcome import Outcome

Callback = Callable[["ObjectFuture"], None]


class ObjectFuture:
    """The name of a result that exists now or later, in the process that owns it."""

    __slots__ = ("__weakref__", "_callbacks", "call", "id", "outcome")

    def __init__(self, number: int, outcome: Outcome | None = None) -> None:
        self.id = number
        self.outcome = outcome
        self.call: Any = None
        """The call that will resolve it, until it has; what `cancel` acts on."""
        self._callbacks: list[Callback] | None = None

    def is_done(self) -> bool:
        """True once there is an outcome."""
        return self.outcome is not None

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome and run the callbacks. Called once, by whoever claimed the pending call."""
        self.call = None
        if outcome.is_error:
            outcome.unread = True  # type: ignore[union-attr]  # it is an Error; asking its class costs more
            self.outcome = outcome
            ERRORS.seen += 1  # behind it: whoever sees the number must see the error, too
        else:
            self.outcome = outcome
        if self._callbacks is not None:
            self._run_callbacks()

    def add_callback(self, callback: Callback) -> None:
        """Have `callback(self)` called once when there is an outcome; at once if there is one."""
        if self._callbacks is None:
            with _adding:
                if self._callbacks is None:
                    self._callbacks = []
        self._callbacks.append(callback)
        if self.outcome is not None:
            self._run_callbacks()

    def remove_callback(self, callback: Callback) -> None:
        try:
            (self._callbacks or []).remove(callback)
        except ValueError:  # it has run, or is about to
            return

    def _run_callbacks(self) -> None:
        callbacks = self._callbacks or []
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:  # another thread took the last one
                return
            callback(self)

    def want(self) -> None:
        """Somebody asks for the value. A borrowed future fetches it now; an owned one will have it anyway."""


class PutFuture(ObjectFuture):
    """The name of a value that `put` was given."""

    __slots__ = ()


_adding = threading.Lock()


class _Errors:
    """How many errors this process has seen: lets a `get` of many notice cheaply that one of them may have failed."""

    seen = 0


ERRORS = _Errors()


class Ref:
    """Base of the public `ObjectRef`: the one thing an engine needs to know of it."""

    __slots__ = ("__weakref__", "_future")

    def __init__(self, future: ObjectFuture) -> None:
        self._future = future


class ActorToken:
    """An actor as this process knows it. Its handles share it; when the last is gone, the engine is told.

    Calls under way hold it too, so an actor that nobody names any more ends only after its calls.
    """

    __slots__ = ("__weakref__", "_dropped", "channel", "counted", "id")

    def __init__(self, number: int, channel: Any, dropped: Callable[[int], None] | None) -> None:
        self.id = number
        self.channel = channel
        """The engine's own: where calls to the actor go."""
        self.counted = dropped is not None
        """False for handles that do not keep the actor alive (from `get_actor`, or the actor's own)."""
        self._dropped = dropped

    def __del__(self) -> None:
        # May run in the middle of anything, from the garbage collector: it must take no lock and send nothing.
        if self._dropped is not None:
            self._dropped(self.id)


Ready = Callable[[], bool]
Block = Callable[[Ready, Sequence[ObjectFuture], float | None], bool]
"""Wait until `ready()` or the deadline (`time.monotonic` seconds); True if ready. An engine knows how."""


class AllDone:
    """True when all futures have an outcome, or one of them has failed."""

    __slots__ = ("_errors", "_futures", "_index")

    def __init__(self, futures: Sequence[ObjectFuture]) -> None:
        self._futures = futures
        self._index = 0
        self._errors = -1

    def __call__(self) -> bool:
        futures, index, count = self._futures, self._index, len(self._futures)
        while index < count and futures[index].outcome is not None:
            index += 1
        self._index = index
        return index == count or self._one_failed()

    def _one_failed(self) -> bool:
        # Both the waiting thread and the one that leads ask; what was true for one must be so for the other.
        seen = ERRORS.seen
        if self._errors == seen:
            return False
        if any(f.outcome is not None and f.outcome.is_error for f in self._futures):
            return True
        self._errors = seen
        return False


class Enough:
    """True when `count` of the futures have an outcome."""

    __slots__ = ("_missing", "_pending")

    def __init__(self, futures: Sequence[ObjectFuture], count: int) -> None:
        self._pending = futures
        self._missing = count

    def __call__(self) -> bool:
        # Asked after every round of messages: what has its outcome is not looked at again.
        pending = [future for future in self._pending if future.outcome is None]
        self._missing -= len(self._pending) - len(pending)
        self._pending = pending
        return self._missing <= 0


def first_done(futures: Sequence[ObjectFuture], count: int) -> list[int]:
    """The places of the first futures that have an outcome, at most `count` of them."""
    places: list[int] = []
    for place, future in enumerate(futures):
        if future.outcome is not None:
            places.append(place)
            if len(places) == count:
                break
    return places


def wait_all(futures: Sequence[ObjectFuture], timeout: float | None, block: Block) -> None:
    """Return when all futures have an outcome or one of them has failed; GetTimeoutError after `timeout` seconds."""
    ready = AllDone(futures)
    if ready():
        return
    for future in futures:
        future.want()
    if not block(ready, futures, deadline_of(timeout)):
        missing = sum(f.outcome is None for f in futures)
        raise GetTimeoutError(f"`get` timed out after {timeout} s: {missing} of {len(futures)} results were not ready.")


def deadline_of(timeout: float | None) -> float | None:
    """The moment, in `time.monotonic` seconds, when `timeout` is over; None and negative times never are."""
    return None if timeout is None or timeout < 0 else time.monotonic() + timeout


def seconds_left(deadline: float | None) -> float | None:
    """Seconds until then, at least 0; None if there is no deadline."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def block_by_callbacks(ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None) -> bool:
    """The `Block` of a thread that cannot look for results itself: it sleeps until one of the futures wakes it."""
    bell = threading.Semaphore(0)

    def ring(future: ObjectFuture) -> None:
        bell.release()

    pending = [f for f in futures if f.outcome is None]
    for future in pending:
        future.add_callback(ring)
    try:
        while not ready():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            bell.acquire(timeout=min(left, threading.TIMEOUT_MAX) if left is not None else None)
        return True
    finally:
        for future in pending:
            future.remove_callback(ring)
