"""The caller's side of a call: hold it until its arguments are there, keep its place in line, take its outcome.

submit ──► Channel ──(arguments ready, turn come)──► send ──► ... ──► OutgoingCall.resolve / fail
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from klieg.concurrency.executors import LOOP_THREADS
from klieg.engines import failures
from klieg.engines.objects import Block, ObjectFuture
from klieg.engines.serialization import Dependency
from klieg.exceptions import (
    BlockingGetError,
    DeadlineExceededError,
    KliegError,
    PendingCallsLimitExceeded,
    TaskCancelledError,
    TaskError,
)
from klieg.outcome import Error, Outcome, Serialized, Value
from klieg.task import STREAMS, TaskSpec

END_OF_STREAM: Final = Value(b"")
"""The outcome of every item asked for behind the last one; told apart by identity."""


class StreamFuture(ObjectFuture):
    """A streaming call as its consumer sees it: one future for each item, made when asked for or when it arrives."""

    __slots__ = ("_items", "_lock", "_next_id", "arrived", "closed", "grant", "length", "taken")

    def __init__(self, number: int, next_id: Callable[[], int]) -> None:
        super().__init__(number)
        self._items: dict[int, ObjectFuture] = {}
        self._lock = threading.Lock()
        self._next_id = next_id
        self.arrived = 0
        self.taken = 0
        self.length: int | None = None
        """How many items there are in all, once it is known; an error counts as the last one."""
        self.grant: Callable[[int], None] = _nothing
        """Tells the producer how many items have been taken; -1: nobody wants the rest."""
        self.closed = False

    def item(self, index: int) -> ObjectFuture:
        """The future of item `index`; its outcome is END_OF_STREAM if there is no such item."""
        with self._lock:
            future = self._items.get(index)
            if future is None:
                ended = self.length is not None and index >= self.length
                future = ObjectFuture(self._next_id(), END_OF_STREAM if ended else None)
                if not ended:
                    future.call = self.call
                    self._items[index] = future
        return future

    def take(self, index: int) -> None:
        """The consumer is done with item `index`: the stream forgets it, its ref keeps it."""
        with self._lock:
            self._items.pop(index, None)
            self.taken = max(self.taken, index + 1)
        self.grant(self.taken)

    def arrive(self, index: int, outcome: Outcome) -> None:
        future = self.item(index)
        self.arrived = max(self.arrived, index + 1)
        if future.outcome is None:
            future.resolve(outcome)

    def resolve(self, outcome: Outcome) -> None:
        if outcome.is_error:
            self.arrive(self.arrived, Error(outcome.payload))
            outcome = Value(failures.NOTHING)
        with self._lock:
            self.length = self.arrived
            beyond = [self._items.pop(i) for i in list(self._items) if i >= self.length]
        for future in beyond:
            future.resolve(END_OF_STREAM)
        super().resolve(outcome)

    def collect(self, make: Callable[[list[ObjectFuture]], Serialized]) -> ObjectFuture:
        """A future of all items at once: `make` writes its value when the last one has come.

        An error in mid-stream is the last item; of a stream that has no other, it is the future's own.
        """
        whole = ObjectFuture(self._next_id())
        whole.call = self.call
        self.add_callback(lambda _: whole.resolve(self._collected(make)))
        return whole

    def _collected(self, make: Callable[[list[ObjectFuture]], Serialized]) -> Outcome:
        items = [self._items[index] for index in range(self.length or 0)]
        if len(items) == 1 and isinstance(items[0].outcome, Error):
            items[0].outcome.unread = False
            return Error(items[0].outcome.payload)
        return Value(make(items))

    def close(self) -> None:
        """The consumer is gone."""
        if not self.closed and self.outcome is None:
            self.closed = True
            self.grant(-1)


def _nothing(taken: int) -> None:
    return


class OutgoingCall:
    """A call that this process has made and that has no outcome yet."""

    __slots__ = (
        "cancelled",
        "channel",
        "deadline",
        "dependencies",
        "exclusive",
        "expired",
        "futures",
        "id",
        "keep",
        "parent",
        "payload",
        "peer",
        "retries",
        "spec",
        "waiting",
    )

    def __init__(
        self, spec: TaskSpec, payload: Serialized, dependencies: list[Dependency] | None, next_id: Callable[[], int]
    ) -> None:
        self.spec = spec
        self.payload = payload
        self.dependencies = dependencies
        count = spec.num_returns
        self.futures: tuple[ObjectFuture, ...]
        if count == 1:
            self.futures = (ObjectFuture(next_id()),)
        elif count in STREAMS:
            self.futures = (StreamFuture(next_id(), next_id),)
        elif isinstance(count, int) and count > 1:
            self.futures = tuple(ObjectFuture(next_id()) for _ in range(count))
        else:  # 0 returns: a future that nobody is given still carries errors
            self.futures = (ObjectFuture(next_id()),)
        for future in self.futures:
            future.call = self
        self.id = self.futures[0].id
        self.retries = spec.max_retries
        self.deadline: float | None = None
        self.channel: Any = None
        """Where the call was submitted to, so that `cancel` finds it."""
        self.keep: Any = None
        """What must live as long as the call: the actor's token."""
        self.peer: Any = None
        """The connection it was sent on, once it was."""
        self.parent: Any = None
        """The call that made it, if one did: `cancel` follows from there."""
        self.cancelled = False
        """True once the process that has it was asked to end it."""
        self.expired = False
        """True once its futures have been failed though the process that has it has not answered yet."""
        self.waiting = 0
        self.exclusive = False
        """True for a task that must not be sent behind another one."""

    def values(self) -> list[tuple[int | str, Serialized]] | None:
        """The payloads that belong in the places of top-level refs; all of them must be there."""
        if self.dependencies is None:
            return None
        return [(place, future.outcome.payload) for place, future in self.dependencies if future.outcome is not None]

    def failed_dependency(self) -> Error | None:
        for _, future in self.dependencies or ():
            if isinstance(future.outcome, Error):
                return future.outcome
        return None

    def resolve(self, outcome: Outcome) -> None:
        """Give the one future its outcome. Called once, by whoever took the call out of the table of pending calls."""
        self._leave()
        if self.expired:
            return
        if len(self.futures) == 1:
            self.futures[0].resolve(outcome)
            return
        for future in self.futures:  # an error, since several values come by `resolve_each`
            future.resolve(Error(outcome.payload))

    def resolve_each(self, payloads: Sequence[Serialized]) -> None:
        self._leave()
        if self.expired:
            return
        for future, payload in zip(self.futures, payloads, strict=True):
            future.resolve(Value(payload))

    def expire(self, error: BaseException) -> None:
        """Fail the futures now. The call itself keeps its place until whoever has it answers."""
        self.expired = True
        self.retries = 0
        failure = failures.dumps(error, self.spec.name)
        for future in self.futures:
            if future.outcome is None:
                future.resolve(Error(failure))

    def takes_another_try(self, failure: Serialized) -> bool:
        """True if the error is one that the call is to be retried on; counts the try."""
        wanted = self.spec.retry_exceptions
        if not wanted or not self.retries or self.expired or self.channel is None:
            return False
        cause = getattr(error := failures.loads(failure), "cause", None) or error
        if isinstance(wanted, tuple) and not isinstance(cause, wanted):
            return False
        if isinstance(error, KliegError) and not isinstance(error, TaskError):
            return False  # cancelled, or the actor is gone: not the user's code
        self.retries -= self.retries > 0
        return True

    def _leave(self) -> None:
        channel, parent = self.channel, self.parent
        if channel is not None:
            channel.ended(self)
        if parent is not None:
            parent.children.discard(self)
        self.channel = self.keep = self.peer = self.parent = None

    def fail(self, error: BaseException) -> None:
        self.resolve(Error(failures.dumps(error, self.spec.name)))

    def when_ready(self, then: Callable[[OutgoingCall], None]) -> bool:
        """True if every dependency has its value; else `then(self)` is called once they all have."""
        missing = [f for _, f in self.dependencies or () if f.outcome is None]
        if not missing:
            return True
        self.waiting = len(missing)
        lock = threading.Lock()

        def arrived(future: ObjectFuture) -> None:
            with lock:
                self.waiting -= 1
                last = self.waiting == 0
            if last:
                then(self)

        for future in missing:
            future.want()
            future.add_callback(arrived)
        return False


class Channel:
    """The calls of this process to one actor, or the tasks of one shape. A subclass knows how to send.

    submit ──(room)──► enter ──(arguments there, turn come)──► send ──► ... ──► came_back, ended

    With `strict` order a call whose arguments are late holds back those behind it; else it is overtaken.
    """

    def __init__(self, strict: bool, max_pending: int = -1, on_full: str = "raise") -> None:
        self.strict = strict
        self.max_pending = max_pending
        """Calls that may be queued or running at once; 0 and -1: no limit."""
        self.on_full = on_full
        """What happens to one more: "raise", "block" its maker, or "await": it waits outside, its maker goes on."""
        self.pending = 0
        self._outside: deque[tuple[OutgoingCall, Callable[[], None]]] = deque()
        """Calls that wait for room, and how to let each of them in."""
        self._held: deque[OutgoingCall] = deque()
        self._late: set[OutgoingCall] = set()
        self._lock = threading.RLock()

    def send(self, call: OutgoingCall) -> None:
        """Hand the call on; its arguments are there. Never raises, never waits."""
        raise NotImplementedError

    name = ""
    """The actor's class, where there is one."""
    target = ""
    """Whom the calls are for, in words."""

    def unsent(self) -> list[tuple[OutgoingCall, str]]:
        """The calls that are still here, and what each waits for, in words."""
        with self._lock:
            return [
                *((call, "waits for room under max_pending_calls") for call, _ in self._outside),
                *((call, "waits for its arguments") for call in self._late),
                *((call, "waits for its arguments, or for a call before it") for call in self._held),
            ]

    def came_back(self, call: OutgoingCall) -> None:
        """The call is no longer where it was sent: it was answered, or is to be sent again."""

    def submit(self, call: OutgoingCall, block: Block) -> None:
        """Take a call. At the limit: PendingCallsLimitExceeded, a wait by `block`, or the call waits outside."""
        call.channel = self
        if self.max_pending > 0 and not self._has_room(call, block):
            return
        self._enter(call)

    def _enter(self, call: OutgoingCall) -> None:
        if call.dependencies is None and not self._held:
            self.send(call)
        else:
            self._enter_slowly(call)

    def _enter_slowly(self, call: OutgoingCall) -> None:
        with self._lock:
            if self.strict:
                self._held.append(call)
            else:
                self._late.add(call)
        if call.when_ready(self._arrived):
            self._arrived(call)

    def _arrived(self, call: OutgoingCall) -> None:
        if not self.strict:
            with self._lock:
                if call not in self._late:
                    return
                self._late.discard(call)
            self._send_or_fail(call)
            return
        with self._lock:
            # The head leaves the line only after it was sent: a call submitted meanwhile must see the line.
            while self._held and self._held[0].waiting == 0:
                self._send_or_fail(self._held[0])
                self._held.popleft()

    def _send_or_fail(self, call: OutgoingCall) -> None:
        error = call.failed_dependency()
        if error is None:
            self.send(call)
        else:
            error.unread = False
            call.resolve(Error(error.payload))

    def cancel_held(self, call: OutgoingCall, error: BaseException) -> bool:
        """Fail a call that waits here for room, its arguments or its turn; False if it does not."""
        with self._lock:
            if self._drop_outside(call):
                pass
            elif call in self._late:
                self._late.discard(call)
            elif call in self._held:
                self._held.remove(call)
            else:
                return False
        call.fail(error)
        if self.strict:
            self._arrived(call)
        return True

    def fail_held(self, make_error: Callable[[], BaseException]) -> None:
        """Fail everything that waits here, and let in those outside: they will learn it, too."""
        with self._lock:
            calls = [*self._held, *self._late]
            self._held.clear()
            self._late.clear()
            outside, self.max_pending = list(self._outside), -1
            self._outside.clear()
        for call in calls:
            call.fail(make_error())
        for _, let_in in outside:
            let_in()

    # The limit on pending calls

    def _has_room(self, call: OutgoingCall, block: Block) -> bool:
        """True once the call may enter; False if it waits outside for somebody to let it in."""
        turn = ObjectFuture(0)
        with self._lock:
            if self.pending < self.max_pending and not self._outside:
                self.pending += 1
                return True
            if self.on_full == "raise":
                raise PendingCallsLimitExceeded(
                    f"{self.pending} calls to this actor are queued or running, and its max_pending_calls is "
                    f"{self.max_pending}. Wait for some of them, or create the actor with on_full='block' or 'await'."
                )
            if self.on_full == "await":
                self._outside.append((call, functools.partial(self._enter, call)))
                return False
            if threading.get_ident() in LOOP_THREADS:
                raise BlockingGetError(
                    f"{call.spec.name}() cannot be called now: the actor has all the {self.max_pending} pending calls "
                    "that it takes, and to wait here would stop the event loop. Create it with on_full='await'."
                )
            self._outside.append((call, functools.partial(turn.resolve, Value(failures.NOTHING))))
        if block(turn.is_done, (turn,), call.deadline):
            return True
        with self._lock:
            given_up = self._drop_outside(call)
        if given_up:
            call.fail(expired_error(call.spec))
        return not given_up

    def ended(self, call: OutgoingCall) -> None:
        """A call of this channel has its outcome: the first of those outside takes its place."""
        if self.max_pending <= 0:  # as nearly always
            return
        with self._lock:
            if not self._outside:
                self.pending -= 1
                return
            _, let_in = self._outside.popleft()
        let_in()

    def _drop_outside(self, call: OutgoingCall) -> bool:
        """Take the call out of those that wait for room, if it is one: its end will make none."""
        for entry in self._outside:
            if entry[0] is call:
                self._outside.remove(entry)
                call.channel = None
                return True
        return False


def cancelled_error(spec: TaskSpec) -> TaskCancelledError:
    return TaskCancelledError(f"The call {spec.name}() was cancelled.")


def expired_error(spec: TaskSpec) -> DeadlineExceededError:
    limit = f"within its timeout of {spec.timeout:g} s" if spec.timeout else "by the deadline of the call that made it"
    return DeadlineExceededError(f"The call {spec.name}() was not done {limit}.")
