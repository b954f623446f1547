"""The caller's side of one actor: connect, send calls together, take outcomes together, sort things out when it dies.

    ActorChannel ──post──► Link ──exchange──► (Ray) ──► the actor
         ▲                  │ ▲                             │
         └──── lost ────────┘ └──── outcomes ◄──────────────┘

An *exchange* is one Ray call: it brings calls and takes home the outcomes that are ready, one at least unless another
exchange of this link waits there already. So one is under way whenever there is something to wait for, a lone call
costs one Ray call, and calls made while one is under way go together in the next. Ray starts exchanges in any order
and may bring them home in any order; they are numbered both ways.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from klieg.engines.calls import Channel, OutgoingCall, StreamFuture, cancelled_error
from klieg.engines.objects import ActorToken
from klieg.engines.ray import parcels
from klieg.engines.ray.messages import ERROR, ITEM, SPECS_KEPT, VALUE, CallRecord, Record, SpecRecord, close, open_
from klieg.engines.ray.trouble import actor_trouble
from klieg.exceptions import ActorDiedError, ActorUnavailableError, KliegError, WorkerCrashedError
from klieg.ids import COUNTER_MASK
from klieg.outcome import Error, Serialized, Value
from klieg.task import ANY_ARGUMENTS, STREAMS, TaskSpec

if TYPE_CHECKING:
    from klieg.engines.ray.engine import RayEngine


class RayToken(ActorToken):
    """An actor, by the Ray handle that reaches it. Ray counts the handles of all processes, and ends it after them."""

    __slots__ = ("handle", "has_hook")

    def __init__(self, number: int, channel: ActorChannel, handle: Any, counted: bool) -> None:
        super().__init__(number, channel, None)
        self.counted = counted
        self.handle = handle
        self.has_hook = False
        """True if this process has made the actor, and its class wants to be told before the actor leaves."""


class ActorChannel(Channel):
    """The calls of this process to one actor. Holds no handle: each call holds the token it was made through."""

    def __init__(self, engine: RayEngine, number: int, name: str, strict: bool) -> None:
        super().__init__(strict)
        self.engine = engine
        self.number = number
        self.name = name
        self.link: Link | None = None
        self.death: KliegError | None = None
        self._backlog: deque[OutgoingCall] = deque()
        """Calls that wait for a connection, in order."""
        self._connecting = False

    @property
    def target(self) -> str:  # type: ignore[override]  # read-only here
        return f"Actor({self.name}, {self.hex()})"

    def unsent(self) -> list[tuple[OutgoingCall, str]]:
        with self._lock:
            waiting = [(call, "waits for a connection to the actor") for call in self._backlog]
        return [*super().unsent(), *waiting]

    def under_way(self) -> list[OutgoingCall]:
        """The calls that were sent and have no outcome yet."""
        link = self.link
        return [] if link is None else link.under_way()

    def send(self, call: OutgoingCall) -> None:
        link = self.link
        if link is None or self._backlog or not link.post(call):
            self._send_later(call)

    def _send_later(self, call: OutgoingCall) -> None:
        with self._lock:
            if self.death is None:
                self._backlog.append(call)
                if self.link is not None:
                    self._drain()
                elif not self._connecting:
                    self._connect(call.keep.handle, [])
                return
        call.fail(self.death)

    def _drain(self) -> None:
        """Send the backlog; a call leaves it only after it was sent, so that nobody can overtake it."""
        while self._backlog and self.link is not None and self.link.post(self._backlog[0]):
            self._backlog.popleft()

    def cancel_held(self, call: OutgoingCall, error: BaseException) -> bool:
        if super().cancel_held(call, error):
            return True
        with self._lock:
            if call not in self._backlog or call.peer is not None:
                return False
            self._backlog.remove(call)
        call.fail(error)
        return True

    def _connect(self, handle: Any, lost: list[OutgoingCall]) -> None:
        """Introduce this process to the actor: a dead one answers with its death, a restarted one knows nobody."""
        self._connecting = True
        number = self.engine.next_number()
        greeting = handle.hello.remote(number, self.engine.process)
        self.engine.expect(greeting, lambda answer: self._greeted(handle, number, answer, lost))

    def _greeted(self, handle: Any, number: int, answer: Any, lost: list[OutgoingCall]) -> None:
        if isinstance(answer, Exception):
            self._refused(handle, answer, lost)
            return
        self._settle(lost)
        with self._lock:
            self._connecting = False
            if self.death is None:
                self.link = Link(self, number, *answer)
                self._drain()

    def _refused(self, handle: Any, error: Exception, lost: list[OutgoingCall]) -> None:
        trouble = actor_trouble(error, self.hex(), self.name)
        if isinstance(trouble, ActorUnavailableError):  # Ray restarts it, or has not yet noticed that it is dead
            self.engine.call_at(time.monotonic() + ASK_AGAIN, lambda: self._connect(handle, lost))
            return
        self.die(self.trouble(trouble))
        for call in lost:
            call.fail(self.trouble(trouble))

    def trouble(self, error: KliegError) -> KliegError:
        """How callers see that the actor is gone."""
        return error

    def reconnect(self, handle: Any) -> None:
        """The actor is being restarted: what comes now waits for its next incarnation."""
        link = self.link
        if link is not None:
            self.lose(link, handle)

    def lose(self, link: Link, handle: Any) -> None:
        """The link's actor does not answer any more: it is dead, or another incarnation is in its place."""
        with self._lock:
            if self.link is not link:
                return
            self.link = None
            sent, unsent = link.close()
            self._backlog.extendleft(reversed(unsent))
            if self.death is None and not self._connecting:
                self._connect(handle, sent)
                return
        for call in sent:
            call.fail(self.death or ActorDiedError())

    def _settle(self, lost: list[OutgoingCall]) -> None:
        """What was under way in the incarnation that died: again, for calls that may be retried; else it failed."""
        again = []
        for call in lost:
            call.peer = None
            if call.retries:
                call.retries -= call.retries > 0
                again.append(call)
            else:
                message = f"The actor {self.name} died during the call and was restarted."
                call.fail(self.trouble(ActorUnavailableError(message, self.hex())))
        with self._lock:
            self._backlog.extendleft(reversed(again))

    def die(self, death: KliegError) -> None:
        """Everything that is under way or comes later fails."""
        with self._lock:
            if self.death is not None:
                return
            self.death = death
            link, self.link = self.link, None
            sent, unsent = link.close() if link is not None else ([], [])
            calls = [*sent, *unsent, *self._backlog]
            self._backlog.clear()
        for call in calls:
            call.fail(death)
        self.fail_held(lambda: death)

    def hex(self) -> str:
        return f"{self.number & (1 << 128) - 1:032x}"


def _is_simple(call: OutgoingCall) -> bool:
    """True if nothing but one outcome has to come home, and nothing else can come meanwhile."""
    return (
        type(call.payload) is bytes
        and call.dependencies is None
        and call.deadline is None
        and call.spec.num_returns not in STREAMS
    )


def portable(spec: TaskSpec) -> TaskSpec:
    """The part of a spec that concerns who carries it out. The retries are decided by the caller, and the exceptions
    that they name may be nothing that a node can import."""
    return spec.replace(function=None, retry_exceptions=False, signature=ANY_ARGUMENTS)


class WorkerChannel(ActorChannel):
    """The calls of this process to a worker of tasks that Ray does not carry out as tasks of its own."""

    def trouble(self, error: KliegError) -> KliegError:
        return WorkerCrashedError(f"The worker of {self.name}() died: {error}")

    def load(self) -> int:
        """Calls that have no outcome yet."""
        link = self.link
        return len(self._backlog) + (0 if link is None else len(link))


ASK_AGAIN = 0.05
"""Seconds until an actor that Ray calls unavailable is asked again whether it is dead or back."""


class Link:
    """The calls of this process to one incarnation of an actor."""

    def __init__(self, channel: ActorChannel, number: int, method: str, takes_direct: bool) -> None:
        """
        Args:
            method: of the Ray actor, for the exchanges.
            takes_direct: whether a lone call may be made without one.
        """
        self.channel = channel
        self.engine = channel.engine
        self.number = number
        self._method = method
        self._takes_direct = takes_direct
        self._direct: OutgoingCall | None = None
        """The call that went without an exchange and has not come home."""
        self._pending: dict[int, OutgoingCall] = {}
        """Every call that was posted and has no outcome yet."""
        self._outbox: list[OutgoingCall] = []
        self._under_way = 0
        """Exchanges that have not come home."""
        self._sent = 0
        self._taken = 0
        """Exchanges that have come home and were dispatched, in the order of the actor's numbers."""
        self._early: dict[int, list[Record]] = {}
        self.cancelled: set[int] = set()
        """Numbers of the calls that the actor was asked to end: if it dies instead, they are cancelled all the same."""
        self._specs: dict[TaskSpec, int] = {}
        self._next_spec = 0
        self._closed = False
        self._lock = threading.RLock()

    def post(self, call: OutgoingCall) -> bool:
        """Take a call; it leaves at once if nothing is under way, else soon, with those that come meanwhile."""
        with self._lock:
            if self._closed:
                return False
            call.peer = self
            self._pending[call.id & COUNTER_MASK] = call
            self._outbox.append(call)
            if self._under_way:
                if len(self._outbox) == 1:
                    self.engine.flush_soon(self)
            elif self._takes_direct and _is_simple(call):
                self._call_directly(call)
            else:
                self._exchange(call.keep.handle)
        return True

    def flush(self) -> None:
        """Send what was held back."""
        with self._lock:
            if self._outbox and not self._closed:
                self._exchange(self._outbox[0].keep.handle)

    def _exchange(self, handle: Any) -> None:
        outbox, self._outbox = self._outbox, []
        specs: list[SpecRecord] = []
        calls = [self._record(call, specs) for call in outbox]
        is_plain = all(type(record[2]) is bytes and record[3] is None for record in calls)
        ref = getattr(handle, self._method).remote(close((self.number, self._sent, specs, calls), is_plain))
        self._sent += 1
        self._under_way += 1
        if self._under_way == 1 and len(outbox) == 1:
            self.engine.expect_lone(ref, lambda answer: self._came_home(handle, answer), outbox[0])
        else:
            self.engine.expect(ref, lambda answer: self._came_home(handle, answer))

    def _call_directly(self, call: OutgoingCall) -> None:
        """Nothing is under way: the call needs nobody to fetch its outcome later."""
        self._outbox.clear()
        specs: list[SpecRecord] = []
        record = self._record(call, specs)
        handle = call.keep.handle
        ref = handle.direct.remote(close((self.number, self._sent, specs, [record]), True))
        self._sent += 1
        self._under_way += 1
        self._direct = call
        self.engine.expect_lone(ref, lambda answer: self._came_home_directly(handle, answer), call)

    def _record(self, call: OutgoingCall, specs: list[SpecRecord]) -> CallRecord:
        number = self._specs.get(call.spec)
        if number is None:
            number = self._introduce(call.spec, specs)
        payload = call.payload
        if type(payload) is bytes and call.dependencies is None and call.deadline is None:
            return call.id & COUNTER_MASK, number, payload, None, None
        describe = self.engine.describe
        values = call.values()
        return (
            call.id & COUNTER_MASK,
            number,
            parcels.wrap(payload, describe),
            None if values is None else [(place, parcels.wrap(value, describe)) for place, value in values],
            None if call.deadline is None else call.deadline - time.monotonic(),
        )

    def _introduce(self, spec: TaskSpec, specs: list[SpecRecord]) -> int:
        number = self._specs[spec] = self._next_spec
        self._next_spec += 1
        if len(self._specs) > SPECS_KEPT:
            del self._specs[next(iter(self._specs))]
        exported = None if spec.function is None else self.engine.exports.function(spec.function)
        specs.append((number, portable(spec), exported))
        return number

    def _came_home(self, handle: Any, answer: Any) -> None:
        if isinstance(answer, Exception) or answer is None:
            self.channel.lose(self, handle)
            return
        turn, records = open_(answer)
        self._early[turn] = records
        while self._taken in self._early:
            due = self._early.pop(self._taken)
            self._taken += 1
            for record in due:
                self._take(handle, record)
        self._one_is_home(handle)

    def _came_home_directly(self, handle: Any, answer: Any) -> None:
        self._direct = None
        if isinstance(answer, Exception) or answer is None:
            self.channel.lose(self, handle)
            return
        self._take(handle, open_(answer)[1][0])
        self._one_is_home(handle)

    def _one_is_home(self, handle: Any) -> None:
        with self._lock:
            self._under_way -= 1
            if not self._under_way and self._pending and not self._closed:
                self._exchange(handle)

    def cancel_direct(self, call: OutgoingCall, never_starts: Any) -> None:
        """The actor was asked to end the call, and has answered. One that has not arrived waits until the actor is
        free, like any other, but its caller need not."""
        if never_starts is True and self._pending.pop(call.id & COUNTER_MASK, None) is not None:
            call.fail(cancelled_error(call.spec))

    def _take(self, handle: Any, record: Record) -> None:
        """One call's outcome, or one item of its stream."""
        if record[1] == ITEM:
            call = self._pending.get(record[0])
            if call is not None:
                stream = call.futures[0]
                assert isinstance(stream, StreamFuture)
                stream.arrive(record[2], Value(self._open(handle, record[3])))
            return
        call = self._pending.pop(record[0], None)
        if call is None:
            return
        self.cancelled.discard(record[0])
        if record[1] == VALUE:
            call.resolve(Value(self._open(handle, record[2])))
        elif record[1] == ERROR:
            self._failed(call, record[2])
        else:
            call.resolve_each([self._open(handle, parcel) for parcel in record[2]])

    def _failed(self, call: OutgoingCall, failure: bytes) -> None:
        if call.takes_another_try(failure):
            call.peer = None
            self.channel.send(call)
        else:
            call.resolve(Error(failure))

    def _open(self, handle: Any, parcel: Any) -> Serialized:
        if type(parcel) is bytes:
            return parcel
        if not isinstance(parcel[0], int):  # it is no LARGE
            return parcels.unwrap(parcel, self.engine.recognize)
        named = tuple(self.engine.recognize(each) for each in parcel[2])
        return parcels.Stored(handle.take.remote(parcel[1]), 0, named)

    def is_direct(self, call: OutgoingCall) -> bool:
        return self._direct is call

    def __len__(self) -> int:
        return len(self._pending)

    def under_way(self) -> list[OutgoingCall]:
        return list(self._pending.values())

    def close(self) -> tuple[list[OutgoingCall], list[OutgoingCall]]:
        """Send and take nothing more. Returns the calls without outcome: those that were sent, those that were not."""
        with self._lock:
            self._closed = True
            unsent, self._outbox = self._outbox, []
            waiting = {id(call) for call in unsent}
            sent = [call for call in self._pending.values() if id(call) not in waiting]
            self._pending = {}
            for call in unsent:
                call.peer = None
        cancelled = [call for call in sent if call.id & COUNTER_MASK in self.cancelled]
        for call in cancelled:
            call.fail(cancelled_error(call.spec))
        return [call for call in sent if call not in cancelled], unsent
