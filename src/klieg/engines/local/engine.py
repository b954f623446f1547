"""The engine of worker processes: the same object in the driver and in every worker, since workers make calls too.

    submit ──► ActorChannel / TaskChannel ──► Peer ──► Link ──► (reactor writes) ... worker
    block  ──► reactor: reads ──► Link ──► Peer ──► OutgoingCall.resolve ──► ObjectFuture

The head is on the path of creation, placement and death only.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import json
import logging
import os
import socket
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from klieg import logs, session
from klieg.concurrency import recording
from klieg.concurrency.call import CURRENT, Call
from klieg.concurrency.host import has_hook, mode_of
from klieg.engines import failures, serialization
from klieg.engines.callbacks import Callbacks
from klieg.engines.calls import Channel, OutgoingCall, StreamFuture, cancelled_error
from klieg.engines.deadlines import Deadlines, inherited_deadline
from klieg.engines.functions import Exports, export
from klieg.engines.inventory import inventory
from klieg.engines.local import wire
from klieg.engines.local.actors import ActorChannel
from klieg.engines.local.answers import Answers
from klieg.engines.local.connection import socket_pair
from klieg.engines.local.control import HeadClient
from klieg.engines.local.leases import TaskChannel
from klieg.engines.local.ownership import BorrowedFuture, BorrowedToken, Lendable, Loans
from klieg.engines.local.peer import Peer, Pending, Runner
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.store.foreign import BorrowedBlock, Foreign, LostBuffer
from klieg.engines.local.store.ledger import Account
from klieg.engines.local.store.segment import Block, Segment, StoredBuffer
from klieg.engines.local.store.store import Store
from klieg.engines.objects import ActorToken, ObjectFuture, PutFuture, Ready
from klieg.engines.placement_groups import made, ready_outcome
from klieg.engines.serialization import Named
from klieg.engines.surroundings import resolve
from klieg.engines.unread import report_unread
from klieg.exceptions import (
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    DeadlineExceededError,
    HeadDiedError,
    ObjectLostError,
    OwnerDiedError,
    RuntimeShutdownError,
    SystemError_,
)
from klieg.ids import COUNTER_MASK, NODE_ID, id_maker, new_process_number, process_of
from klieg.outcome import UNREAD, Error, Outcome, Serialized, Value
from klieg.placement import Placement
from klieg.runtime_env import RuntimeEnv
from klieg.settings import Settings
from klieg.task import STREAMS, ActorSpec, ClassInfo, TaskSpec

logger = logging.getLogger("klieg")

KILLED: Final = "The actor is dead because it was killed by `klieg.kill`."
OUT_OF_SCOPE: Final = "The actor is dead because all handles to it were dropped."

HEAD_DIED: Final = (
    "klieg's head process died, and with it the runtime. `klieg.shutdown()` and `klieg.init()` start a new one."
)

OWNER_DIED: Final = "The process that owned the value died, and the value with it."

ROOM_PATIENCE: Final = 0.5
"""Seconds that others get to move to disk what they do not read."""

LOST_KEPT: Final = 10_000
"""Dead processes that are remembered, so that nothing is sent to them."""

HEAD_GRACE: Final = 2.0
"""Seconds that the head gets above what others get to answer a question that it passes on."""

RELEASE_AGAIN: Final = 1.0
"""Seconds until a release that could not be sent is tried again."""

BLOCKED_AFTER: Final = 0.001
"""Seconds after which a task that waits gives its resources to others: a result about to come is not worth it."""


class LocalEngine:
    """All verbs, over worker processes. See `klieg.engine.Engine` for what each promises."""

    name = "local"

    def __init__(
        self,
        process: int,
        namespace: str,
        head: socket.socket,
        reactor: Reactor,
        account: Account,
        settings: Settings,
    ) -> None:
        self.process = process
        self.namespace = namespace
        self.node = NODE_ID
        self.reactor = reactor
        self.pid = os.getpid()
        self.runner: Runner | None = None
        """In a worker: what carries out calls."""
        self.exports = Exports()
        self.loans = Loans()
        self.store = Store(self, account, settings)
        self.foreign = Foreign(self._note_drop, lambda number: self.note(self._segment_unused, number))
        self.next_id = id_maker(process)
        self._numbers = itertools.count(1 << 48).__next__
        """For questions to peers, apart from the numbers of calls."""
        self._peers: dict[int, Peer] = {}
        self._actors: weakref.WeakValueDictionary[int, ActorToken] = weakref.WeakValueDictionary()
        self._channels: dict[int, ActorChannel] = {}
        self._tasks: dict[Any, TaskChannel] = {}
        self._borrowed: weakref.WeakValueDictionary[int, BorrowedFuture] = weakref.WeakValueDictionary()
        self._pinned: dict[int, Named] = {}
        self._dropped: deque[tuple[Callable[..., None], Any]] = deque()
        self._given_back: dict[int, list[tuple[int, int]]] = {}
        """For each owner: ids, and how many loans of them it is to be told of."""
        self._push_soon: deque[TaskChannel] = deque()
        self._lost: dict[int, None] = {}
        """Processes that have died, as far as we have had to do with them; the oldest are forgotten."""
        self._sweeping = False
        self._lock = threading.RLock()
        self._gone: BaseException | None = None
        """Why the runtime is over, once it is."""
        self.answers = Answers(self)
        """What it tells of itself when others ask."""
        self.hooked = False
        """True once there was an actor with a shutdown hook."""
        self.head_started = False
        self.head_warm = False
        """True once the head can fork workers; before that, it has none to end."""
        self.on_head_lost: Callable[[], None] = _nothing
        """What else to do when the head is gone: a worker ends itself."""
        self.on_failure: Callable[[str], None] = logger.error
        """Where to say what has failed in klieg itself."""
        self.head = HeadClient(reactor, head, self._head_says, self._head_lost)
        reactor.on_failure = self._failed
        reactor.chores.append(self._do_chores)
        reactor.ticks.append(self._tick)
        self.callbacks = Callbacks()
        self._deadlines = Deadlines(reactor.call_at, self._expire)
        UNREAD.ring = reactor.ring

    # The verbs

    def submit(
        self, spec: TaskSpec, actor: ActorToken | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ObjectFuture, ...]:
        self._check_usable()
        payload, dependencies = serialization.dumps_arguments(args, kwargs, spec.name, self.store.keep)
        call = OutgoingCall(spec, payload, dependencies, self.next_id)
        call.keep = actor
        enclosing = CURRENT.get()
        if enclosing is not None:
            enclosing.adopt(call)
            call.parent = enclosing
            call.deadline = inherited_deadline(spec, enclosing.deadline)
        elif spec.timeout is not None:
            call.deadline = inherited_deadline(spec, None)
        if spec.num_returns in STREAMS:
            self._open_stream(call)
        channel: Channel = self._task_channel(spec) if actor is None else actor.channel
        if actor is not None:
            self._check_ours(actor)
        if recording.recorder is not None:
            recording.recorder.submitted(call.id, call.parent)
        channel.submit(call, self.block)
        if call.deadline is not None:
            self._deadlines.watch(call)
        return call.futures

    def _surround(self, placement: Placement) -> Placement:
        """The placement with the whole environment of what is called from this process."""
        merged = resolve(session.environment, RuntimeEnv.load(placement.environment))
        return dataclasses.replace(placement, environment=merged.dump())

    def _task_channel(self, spec: TaskSpec) -> TaskChannel:
        function = spec.function
        assert function is not None
        self.exports.function(function)
        apart = function.max_concurrency > 1 or function.max_calls > 0
        key = (function.placement.key, self.exports.function(function).key if apart else b"", function.max_calls)
        channel = self._tasks.get(key)
        if channel is None:
            made = TaskChannel(self, function, self._surround(function.placement))
            with self._lock:
                channel = self._tasks.setdefault(key, made)
        return channel

    def create_actor(self, spec: ActorSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorToken:
        self._check_usable()
        info, options = spec.info, spec.options
        placement = self._surround(options.placement)
        name = f"{info.name}.__init__"
        payload, dependencies = serialization.dumps_arguments(args, kwargs, name, self.store.keep)
        cls = export(spec.cls, f"the actor class {info.name}")
        number, process = self.next_id(), new_process_number()
        mode = mode_of(info.is_async, options.max_concurrency, info.groups)
        channel = ActorChannel(self, number, info.name, mode == "plain")
        channel.max_pending, channel.on_full = options.max_pending_calls, options.on_full
        namespace = options.namespace or self.namespace
        described = serialization.dumps(info)
        assert isinstance(described, bytes)
        request = {
            "owner": self.process,
            "name": options.name,
            "namespace": namespace,
            "detached": options.lifetime == "detached",
            "max_restarts": options.max_restarts,
            "placement": placement.dump(),
            "title": info.name,
            "hooked": has_hook(spec.cls),
            "info": described.hex(),
            "facts": {
                "actor": number,
                "name": options.name or "",
                "placement": placement.dump(),
                "mode": mode,
                "max_concurrency": options.max_concurrency,
                "info": described.hex(),
            },
        }
        self._reserve(number, request, info.name, placement)
        call = OutgoingCall(TaskSpec(name, method="__init__"), payload, dependencies, self.next_id)
        channel.create(call, cls, process, request)
        self._channels[number] = channel
        dropped = None if options.lifetime == "detached" else self._drop_actor
        token = ActorToken(number, channel, dropped)
        self._actors[number] = token
        return token

    def _reserve(self, number: int, request: dict[str, Any], class_name: str, placement: Placement) -> None:
        """Ask first where the head may refuse: the name is taken, or the resources do not exist."""
        if request["name"] is None and not placement.demand and placement.place is None:
            return
        fields = {key: request[key] for key in ("name", "namespace", "placement")}
        answer = self._ask("reserve", actor=number, **fields)
        if "taken" in answer:
            raise ActorAlreadyExistsError(
                f"The name {request['name']!r} is taken by another actor in namespace {request['namespace']!r}."
            )
        if answer.get("group_removed"):
            raise ActorPlacementGroupRemoved(f"The actor {class_name} cannot be placed: {answer['impossible']}")
        if "impossible" in answer:
            raise ActorUnschedulableError(f"The actor {class_name} can never be placed: {answer['impossible']}")

    def _ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """The head's answer; raises why the runtime is over if there is none."""
        answer = self.head.ask(verb, **fields)
        if "lost" in answer:
            raise self.gone()
        return answer

    def put(self, value: Any) -> PutFuture:
        self._check_usable()
        return PutFuture(self.next_id(), Value(serialization.dumps(value, self.store.keep)))

    def block(self, ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None) -> bool:
        if recording.recorder is not None and not ready():
            return self._block_on_record(recording.recorder, ready, deadline)
        return self._block(ready, deadline)

    def _block_on_record(self, recorder: recording.Recorder, ready: Ready, deadline: float | None) -> bool:
        start = recorder.clock()
        try:
            return self._block(ready, deadline)
        finally:
            recorder.waited(CURRENT.get(), start)

    def _block(self, ready: Ready, deadline: float | None) -> bool:
        call = CURRENT.get()
        if call is None or self.runner is None or not self.runner.holds_resources:
            return self.reactor.block(ready, deadline)
        soon = time.monotonic() + BLOCKED_AFTER
        if deadline is not None and deadline <= soon:
            return self.reactor.block(ready, deadline)
        if self.reactor.block(ready, soon):
            return True
        self.runner.give_back_queue()
        self.head.tell("blocked")
        try:
            return self.reactor.block(ready, deadline)
        finally:
            self.head.tell("unblocked")

    def nudge(self) -> None:
        self.reactor.nudge()

    def count_sleepers(self, change: int) -> None:
        with self._lock:
            self.reactor.foreign_waiters += change

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reactor.expect(loop)

    def cancel(self, future: ObjectFuture, force: bool, recursive: bool) -> None:
        if isinstance(future, BorrowedFuture):
            if future.outcome is None:
                body = json.dumps([future.id, force, recursive]).encode()
                self._owner_peer(future.id).send(wire.CANCEL_LENT, 0, body)
            return
        call: OutgoingCall | None = future.call
        if call is None:
            return
        channel, error = call.channel, cancelled_error(call.spec)
        if channel is not None and channel.cancel_held(call, error):
            self.nudge()
            return
        peer: Peer | None = call.peer
        if peer is None:
            return
        number = call.id & COUNTER_MASK
        call.cancelled, call.retries = True, 0
        peer.send(wire.CANCEL, number, wire.CANCEL_BODY.pack(wire.CANCELLED, recursive))
        if force and peer.pending.pop(number, None) is not None:
            self.head.tell("end_worker", process=peer.process)
            call.fail(error)
            self.nudge()

    def cancel_children(self, call: Call) -> None:
        """Cancel what a call of this process has called and still waits for."""
        for child in list(call.children):
            self.cancel(child.futures[0], False, True)

    def _expire(self, call: OutgoingCall, error: DeadlineExceededError) -> None:
        """The call's time is up: its caller learns it now, whatever the process that has it still does."""
        if call.channel is not None and call.channel.cancel_held(call, error):
            self.nudge()
            return
        call.expire(error)
        self.nudge()
        peer: Peer | None = call.peer
        if peer is not None:
            peer.send(wire.CANCEL, call.id & COUNTER_MASK, wire.CANCEL_BODY.pack(wire.EXPIRED, False))

    def kill(self, actor: ActorToken, no_restart: bool) -> None:
        self._check_usable()
        self._check_ours(actor)
        actor.channel.kill(no_restart, KILLED)

    def find_actor(self, name: str, namespace: str | None) -> tuple[ActorToken, ClassInfo] | None:
        self._check_usable()
        answer = self._ask("find", name=name, namespace=namespace or self.namespace)
        if "actor" not in answer:
            return None
        info: ClassInfo = serialization.loads(bytes.fromhex(answer["info"]))
        return ActorToken(answer["actor"], self._channel(answer["actor"], info), None), info

    def named_actors(self) -> list[tuple[str, str]]:
        self._check_usable()
        return [(namespace, name) for namespace, name in self._ask("names")["names"]]

    def create_placement_group(self, group: int, facts: Mapping[str, Any]) -> str:
        self._check_usable()
        answer = self._ask("group", want="create", group=group, **facts)
        return made(answer, facts["name"])

    def placement_group_ready(self, group: int, value: Any) -> ObjectFuture:
        self._check_usable()
        future = ObjectFuture(self.next_id())
        payload = serialization.dumps(value, self.store.keep)
        self.head.request(
            "group", lambda answer, _: self._group_answered(answer, future, payload), want="ready", group=group
        )
        return future

    def _group_answered(self, answer: dict[str, Any], future: ObjectFuture, payload: Serialized) -> None:
        lost = "lost" in answer
        future.resolve(Error(failures.dumps(self.gone(), "")) if lost else ready_outcome(answer, payload))

    def remove_placement_group(self, group: int) -> None:
        self._check_usable()
        self._ask("group", want="remove", group=group)

    def placement_groups(self) -> list[dict[str, Any]]:
        self._check_usable()
        groups: list[dict[str, Any]] = self._ask("group", want="table")["groups"]
        return groups

    def nodes(self) -> None:
        """This machine alone."""

    def resources(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        self._check_usable()
        answer = self._ask("resources")
        return answer["total"], answer["free"]

    def objects(self) -> list[dict[str, Any]]:
        return inventory(self.process, self.loans.holders, list(self._borrowed.values()))

    def store_usage(self) -> dict[str, Any]:
        return self.store.usage()

    def stats(self, actor: ActorToken) -> dict[str, dict[str, int]]:
        stats: dict[str, dict[str, int]] = self._ask_actor(actor, wire.STATS, b"")
        return stats

    def resize(self, actor: ActorToken, limits: Mapping[str, int]) -> None:
        self._ask_actor(actor, wire.RESIZE, json.dumps(limits).encode())

    def snapshot(self, timeout: float) -> list[dict[str, Any]]:
        replies, silent = self.survey("snapshot", {}, timeout)
        return [*replies, *({"silent": one} for one in silent)]

    def table(self, of: str) -> list[dict[str, Any]]:
        self._check_usable()
        rows: list[dict[str, Any]] = self._ask("table", of=of)["rows"]
        return rows

    def survey(self, question: str, details: Mapping[str, Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self._check_usable()
        answers: list[dict[str, Any]] = []
        self.head.request(
            "survey",
            lambda answer, _: answers.append(answer),
            question=question,
            details=dict(details),
            timeout=timeout,
        )
        mine: list[Any] = []
        self.answers.to[question](dict(details), mine.append)
        self.reactor.block(lambda: bool(answers), time.monotonic() + timeout + HEAD_GRACE)
        if not answers or "lost" in answers[0]:
            state = "so nothing is known of the workers"
            return mine, [{"pid": 0, "title": "the head", "state": state, "stacks": ""}]
        return [*mine, *answers[0]["replies"]], answers[0]["silent"]

    def channels(self) -> list[Channel]:
        """Where the calls of this process go."""
        return [*list(self._channels.values()), *list(self._tasks.values())]

    def outgoing(self) -> Iterator[tuple[OutgoingCall, str, str]]:
        """The calls of this process that have no outcome yet: each with whom it was sent to, and where it is."""
        for channel in self.channels():
            yield from ((call, channel.target, where) for call, where in channel.unsent())
        for peer in list(self._peers.values()):
            for waiting in list(peer.pending.values()):
                sent_to = waiting.channel if isinstance(waiting, OutgoingCall) else None
                if isinstance(waiting, OutgoingCall) and sent_to is not None:
                    yield waiting, sent_to.target, ""

    def _ask_actor(self, actor: ActorToken, kind: int, body: bytes) -> Any:
        """What the actor's process answers to a question that travels outside its calls; raises what it raises."""
        self._check_usable()
        self._check_ours(actor)
        answer = ObjectFuture(0)
        actor.channel.ask(kind, body, _Answer(answer))
        self.reactor.block(answer.is_done)
        assert answer.outcome is not None
        if isinstance(answer.outcome, Error):
            answer.outcome.unread = False
            raise failures.loads(answer.outcome.payload)
        return serialization.loads(answer.outcome.payload)

    def let_go(self) -> None:
        """Were its descriptors left open here, nobody would see the end of the parent's connections when it dies."""
        self.reactor.let_go()

    def shutdown(self) -> None:
        """End everything; the driver's alone. Workers end when the head does."""
        with self._lock:
            if self._gone is None:
                self._gone = RuntimeShutdownError()
        self._finish()

    def _finish(self) -> None:
        report_unread()
        self._fail_everything()
        self.reactor.nudge()
        for peer in list(self._peers.values()):
            peer.link.close()
        self.head.close()
        UNREAD.ring = _nothing
        self.reactor.close()
        self.callbacks.stop(1.0)
        self._forget_all()
        self.store.close()

    def _forget_all(self) -> None:
        """Whoever still holds this engine must not keep alive what users have put into it."""
        self.exports = Exports()
        self._pinned.clear()
        self.loans.clear()

    # Refs and handles that come and go

    def pin(self, named: Named) -> None:
        """The user pickles a ref or handle by hand: keep what it names, since nobody can know when the bytes go."""
        self._pinned[named.id] = named

    def future_of(self, number: int) -> ObjectFuture:
        named = self._pinned.get(number) or self._borrowed.get(number) or self.loans.find(number)
        if named is None and process_of(number) != self.process:
            named = self._new_borrowed(number)
        if not isinstance(named, ObjectFuture):
            raise ObjectLostError(f"No value is known under the id {number:x} in this runtime.")
        return named

    def token_of(self, number: int, info: ClassInfo) -> ActorToken:
        """The token of an actor whose handle did not come in a message: it does not keep the actor alive."""
        token = self._actors.get(number)
        return token if token is not None else ActorToken(number, self._channel(number, info), None)

    def find_named(self, number: int) -> Lendable | None:
        """What this process, its owner, keeps under an id for others."""
        return self.loans.find(number) or self._pinned.get(number)

    def lend(self, named: Lendable, process: int) -> None:
        """A message to `process` names a ref, an actor or a part of shared memory."""
        if isinstance(named, BorrowedFuture | BorrowedToken | BorrowedBlock):
            if process_of(named.id) not in self._lost:
                body = json.dumps([named.id, process]).encode()
                self._owner_peer(named.id).send(wire.LEND, 0, body)
        elif not isinstance(named, ActorToken) or named.counted:
            self.loans.lend(named, process)

    def borrow(self, number: int, is_actor: bool) -> Named:
        """A message names a ref or an actor: what stands for it in this process, one loan the more."""
        if process_of(number) == self.process:
            return self._come_home(number, is_actor)
        if is_actor:
            return self._borrow_actor(number)
        with self._lock:
            future = self._borrowed.get(number) or self._new_borrowed(number)
            future.loans += 1
        return future

    def _come_home(self, number: int, is_actor: bool) -> Named:
        named = self.find_named(number) or self._actors.get(number)
        self.loans.change(number, self.process, -1)  # the sender has lent it to us, its owner
        if isinstance(named, ObjectFuture | ActorToken):
            return named
        lost = ObjectLostError(f"The value of {number:x}, which was lent out, came back after it was freed.")
        return ObjectFuture(number, Error(failures.dumps(lost, "")))

    def open_buffer(self, described: dict[str, Any], segments: dict[int, Segment]) -> StoredBuffer | LostBuffer:
        """A message on a connection with these segments describes a buffer in shared memory."""
        number = described["block"]
        if process_of(number) != self.process:
            return self.foreign.open(described, segments)
        block = self.loans.find(number)
        self.loans.change(number, self.process, -1)
        if isinstance(block, Block):
            return StoredBuffer(block)
        return LostBuffer(f"The buffer {number:x}, which was lent out, came back after it was freed.")

    def _segment_unused(self, number: int) -> None:
        """Another process's segment is no longer mapped here: those whom we have sent it need not keep it for us."""
        for peer in list(self._peers.values()):
            peer.retract(number)

    def _new_borrowed(self, number: int) -> BorrowedFuture:
        future = BorrowedFuture(number, self._fetch, self._note_drop)
        self._borrowed[number] = future
        return future

    def _borrow_actor(self, number: int) -> ActorToken:
        with self._lock:
            token = self._actors.get(number)
            if not isinstance(token, BorrowedToken):
                token = BorrowedToken(number, self._channel(number, None), self._note_drop)
                self._actors[number] = token
            token.loans += 1
        return token

    def _channel(self, number: int, info: ClassInfo | None) -> ActorChannel:
        with self._lock:
            channel = self._channels.get(number)
            if channel is None:
                channel = self._channels[number] = ActorChannel(
                    self, number, info.name if info else "actor", strict=False
                )
        return channel

    def note(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have `function(*arguments)` called soon by whoever leads. Safe in finalizers: no lock, no message."""
        self._dropped.append((function, arguments))
        self.reactor.ring()

    def _note_drop(self, number: int, loans: int) -> None:
        self.note(self._release, number, loans)

    def _note_drops(self, dropped: list[tuple[int, int]]) -> None:
        for number, loans in dropped:
            self._note_drop(number, loans)

    def _drop_actor(self, number: int) -> None:
        self.note(self._actor_unnamed, number)

    def drop_stream(self, stream: StreamFuture) -> None:
        self.note(_close_stream, stream)

    def _do_chores(self) -> None:
        while self._dropped:
            function, arguments = self._dropped.popleft()
            function(*arguments)
        if self._given_back:
            self._send_releases()
        self.store.settle()
        while self._push_soon:
            self._push_soon.popleft().push()

    def _tick(self) -> None:
        if UNREAD:
            report_unread()

    def _release(self, number: int, loans: int) -> None:
        if loans:
            self._given_back.setdefault(process_of(number), []).append((number, loans))

    def _send_releases(self) -> None:
        """Tell the owners, each in one message, what this process no longer holds."""
        given_back, self._given_back = self._given_back, {}
        for process, released in given_back.items():
            if self._gone is None and process not in self._lost:
                self._send_release(released)

    def _send_release(self, released: list[tuple[int, int]]) -> None:
        try:
            peer = self._owner_peer(released[0][0])
        except OSError:  # no descriptor is left for a connection to the owner: perhaps later
            self.reactor.call_at(time.monotonic() + RELEASE_AGAIN, lambda: self._note_drops(released))
            return
        peer.send(wire.RELEASE, 0, json.dumps(released).encode(), now=False)

    def _actor_unnamed(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        if channel is not None and self._gone is None:
            channel.leave(OUT_OF_SCOPE)

    def _fetch(self, future: BorrowedFuture) -> None:
        fetch = _Fetch(future)
        if self._gone is not None or process_of(future.id) in self._lost:
            fetch.fail(self._gone or OwnerDiedError(OWNER_DIED))
            return
        try:
            self._owner_peer(future.id).ask(wire.FETCH, str(future.id).encode(), fetch)
        except OSError as error:  # no descriptor is left for a connection to the owner
            fetch.fail(error)

    def _open_stream(self, call: OutgoingCall) -> None:
        stream = call.futures[0]
        assert isinstance(stream, StreamFuture)

        def grant(taken: int) -> None:
            peer = call.peer
            if peer is not None and (taken < 0 or call.spec.backpressure > 0):
                peer.send(wire.GRANT, call.id & COUNTER_MASK, wire.SIGNED.pack(taken))

        stream.grant = grant

    # Peers: one connection for each pair of processes that have something to say, closed only by death

    def add_peer(self, process: int, sock: socket.socket) -> Peer:
        peer = Peer(self, process, sock)
        self._peers.setdefault(process, peer)
        if self._gone is not None:  # it was on its way while the runtime ended, and nobody else would close it
            peer.link.close()
        return peer

    def peer_of(self, process: int, fds: list[int]) -> Peer | None:
        """The connection to a process: the one there is, or a new one on the descriptor that came with the news; None
        if it has ended, which the head may learn of later than we do."""
        if fds:
            return self.add_peer(process, socket.socket(fileno=fds[0]))
        return self._peers.get(process)

    def _owner_peer(self, number: int) -> Peer:
        """The connection to the owner of an id, made through the head if there is none."""
        process = process_of(number)
        with self._lock:
            peer = self._peers.get(process)
            if peer is None:
                ours, theirs = socket_pair()
                peer = self.add_peer(process, ours)
                self.head.tell("connect", [theirs.detach()], process=process)
        return peer

    def peer_lost(self, peer: Peer) -> None:
        """The process at the other end is dead: give back what it held, settle what it owed."""
        if self._peers.get(peer.process) is peer:
            del self._peers[peer.process]
        self._lost[peer.process] = None
        if len(self._lost) > LOST_KEPT:
            del self._lost[next(iter(self._lost))]
        if peer.link.broken:  # the process lives, and nobody can reach it through here any more
            self.head.tell("end_worker", process=peer.process, reason=f"a connection of its broke: {peer.link.broken}")
        self.loans.forget_process(peer.process)
        if self.runner is not None:
            self.runner.caller_lost(peer)
        self._settle(peer, peer.take_pending(), peer.users)

    def undelivered(self, peer: Peer, waiting: Pending) -> None:
        """The connection was lost before this could be sent on it, and after `peer_lost` had looked."""
        self._settle(peer, [waiting], ())

    def _settle(self, peer: Peer, unfinished: list[Pending], users: Iterable[Channel]) -> None:
        calls = [w for w in unfinished if isinstance(w, OutgoingCall) and w.channel is not None]
        for waiting in unfinished:
            if waiting not in calls:
                waiting.fail(self._gone or OwnerDiedError(OWNER_DIED))
        channels = {*users, *(call.channel for call in calls)}
        for channel in channels:
            channel.peer_lost(peer, [call for call in calls if call.channel is channel])

    def watch_process(self, process: int) -> None:
        """Something was lent to a process that we may have no connection to: have the head tell us when it dies."""
        if process not in self._peers and process != self.process:
            self.head.request("watch", lambda answer, _: self.loans.forget_process(process), process=process)

    def next_number(self) -> int:
        return self._numbers()

    def retry(self, call: OutgoingCall, failure: bytes) -> bool:
        """Send a failed call again if its options say so; False if it has failed for good."""
        if not call.takes_another_try(failure):
            return False
        channel = call.channel
        channel.came_back(call)
        call.peer = None
        channel.send(call)
        return True

    def push_soon(self, channel: TaskChannel) -> None:
        """Look at the channel's line again at the end of this round of messages."""
        self._push_soon.append(channel)

    def watch_leases(self) -> None:
        """From now until no worker is leased any more, give back those that stay idle."""
        if not self._sweeping:
            self._sweeping = True
            self._sweep_later()

    def _sweep_later(self) -> None:
        self.reactor.call_at(time.monotonic() + 0.1, self._sweep)

    def _sweep(self) -> None:
        still_held = [channel.give_back_idle() for channel in list(self._tasks.values())]
        self._sweeping = any(still_held)
        if self._sweeping:
            self._sweep_later()

    # The head

    def _head_says(self, message: dict[str, Any], fds: list[int]) -> None:
        verb = message.get("verb")
        if verb == "started":
            self.head_started = True
        elif verb == "warm":
            self.head_warm = True
        elif verb == "peer":
            self.peer_of(message["process"], fds)
        elif verb == "asked":
            ticket = message["ticket"]
            answer = self.answers.to[message["question"]]
            answer(message["details"], lambda reply: self.head.tell("reply", ticket=ticket, reply=reply))
        elif verb == "wanted":
            for channel in list(self._tasks.values()):
                channel.somebody_waits()
        elif verb == "log":
            self.callbacks.run(functools.partial(logs.handle, message["record"]))  # handlers may write files
        elif verb == "hooked":
            self.hooked = True
        elif verb == "farewell" and self.runner is not None:
            self.runner.end_soon(message["reason"])
        elif verb == "leave" and self.runner is not None:
            self.runner.exit(message["reason"])

    def ask_for_room(self, size: int) -> int:
        """Have the other processes take less of the store; returns how many bytes they say they have given back."""
        answer = self.head.ask("survey", question="room", details=size, timeout=ROOM_PATIENCE, explain=False)
        return self._ask_borrowers(size) + sum(answer.get("replies", ()))

    def _ask_borrowers(self, size: int) -> int:
        """Have those who hold memory of this process move to disk what they do not read.

        The question travels behind the values themselves: who answers has had all that was sent to him."""
        answers: list[_Released] = []
        for process in self.loans.holders_of(Block):
            peer = self._peers.get(process)
            if peer is not None:
                answers.append(_Released())
                peer.ask(wire.MAKE_ROOM, str(size).encode(), answers[-1])
        self.reactor.block(lambda: all(answer.size is not None for answer in answers), time.monotonic() + ROOM_PATIENCE)
        return sum(answer.size or 0 for answer in answers)

    def give_room(self, size: int, then: Callable[[int], None], *, ask_borrowers: bool) -> None:
        """Another process needs room in the store: make it, and call `then(bytes given back)`, from another thread."""

        def give() -> None:
            then(self.store.give_room(size) + (self._ask_borrowers(size) if ask_borrowers else 0))

        if self.store.may_take_long:
            threading.Thread(target=give, name="klieg make room", daemon=True).start()
        else:
            then(self.store.give_room(size))

    def _failed(self, error: BaseException) -> None:
        """klieg's own code has raised where nobody waits for it: better an end than calls that are stranded."""
        text = "".join(traceback.format_exception(error))
        self._is_over_because(_own_failure(text))
        self.on_failure(text)
        self.head.close()

    def _head_lost(self, why: str) -> None:
        if self.head.link.broken:  # the head lives: it was we who could make nothing of what it said
            self._is_over_because(_own_failure(why))
            self.on_failure(why)
        else:
            self._is_over_because(HeadDiedError(HEAD_DIED))
        self.on_head_lost()
        self._fail_everything()

    def _is_over_because(self, error: BaseException) -> None:
        with self._lock:
            if self._gone is None:
                self._gone = error

    def _fail_everything(self) -> None:
        """The runtime is over: whoever waits for anything is told."""
        for peer in list(self._peers.values()):
            for waiting in peer.take_pending():
                waiting.fail(self.gone())
        for channel in list(self._channels.values()):
            channel._die(self.gone())
        for tasks in list(self._tasks.values()):
            tasks.fail_held(self.gone)
            for call in tasks.drain():
                call.fail(self.gone())

    @property
    def is_over(self) -> bool:
        return self._gone is not None

    def gone(self) -> BaseException:
        """Why the runtime is over."""
        return self._gone or RuntimeShutdownError()

    def _check_usable(self) -> None:
        if self._gone is not None:
            raise self.gone()

    def _check_ours(self, actor: ActorToken) -> None:
        if actor.channel.engine is not self:
            raise ActorHandleNotFoundError("The handle belongs to a runtime that was shut down.")


class _Fetch:
    """Waits for the value of a borrowed ref."""

    def __init__(self, future: BorrowedFuture) -> None:
        self._future = future

    def resolve(self, outcome: Outcome) -> None:
        self._future.resolve(outcome)

    def fail(self, error: BaseException) -> None:
        self._future.resolve(Error(failures.dumps(error, "")))


class _Released:
    """Waits for the answer of a process that was asked to make room."""

    def __init__(self) -> None:
        self.size: int | None = None
        """Bytes that it has given back."""

    def resolve(self, outcome: Outcome) -> None:
        self.size = serialization.loads(outcome.payload)

    def fail(self, error: BaseException) -> None:
        self.size = 0


class _Answer:
    """Waits for the answer to a question."""

    def __init__(self, future: ObjectFuture) -> None:
        self._future = future

    def resolve(self, outcome: Outcome) -> None:
        self._future.resolve(outcome)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, OwnerDiedError):
            error = ActorUnavailableError("The actor's process ended before it had answered.")
        self._future.resolve(Error(failures.dumps(error, "")))


def _close_stream(stream: StreamFuture) -> None:
    stream.close()


def _nothing() -> None:
    return


def _own_failure(text: str) -> SystemError_:
    return SystemError_(
        "klieg itself has failed in this process, and with it the runtime. `klieg.shutdown()` and `klieg.init()` start "
        f"a new one. What failed:\n{text}"
    )
