"""The engine of a Ray cluster: the same object in the driver and in every worker, since workers make calls too.

submit ──► ActorChannel ──► Link ──► a Ray call for many calls ──► worker.HostActor
       └─► TaskChannel ──────────► a Ray task for each call ─────► worker.run_task
block  ──► Arrivals: what Ray has brought ──► OutgoingCall.resolve ──► ObjectFuture
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import ray

from klieg.concurrency.call import CURRENT, Call
from klieg.concurrency.host import Host, has_hook, mode_of
from klieg.concurrency.snapshot import RUNNERS, snapshot_of
from klieg.concurrency.stacks import thread_stacks
from klieg.engines import failures, serialization
from klieg.engines.callbacks import Callbacks
from klieg.engines.calls import Channel, OutgoingCall, StreamFuture, cancelled_error
from klieg.engines.deadlines import Deadlines, inherited_deadline
from klieg.engines.functions import Exports, export
from klieg.engines.inventory import inventory
from klieg.engines.objects import ActorToken, ObjectFuture, PutFuture, Ready
from klieg.engines.outgoing import outgoing
from klieg.engines.placement_groups import REMOVED, ready_outcome
from klieg.engines.ray import parcels
from klieg.engines.ray.actors import ActorChannel, Link, RayToken, WorkerChannel
from klieg.engines.ray.arrivals import Arrivals, Arrived
from klieg.engines.ray.borrowing import BorrowedFuture, promise_by_actor
from klieg.engines.ray.messages import CANCELLED, EXPIRED, HOOK_GRACE, ActorFacts, Record, Session
from klieg.engines.ray.noticeboard import Noticeboard
from klieg.engines.ray.placing import Groups, actor_options_of, options_of
from klieg.engines.ray.tasks import TaskChannel, TaskRun, Workers, make_record, open_record
from klieg.engines.ray.trouble import actor_trouble, task_trouble, text_of
from klieg.engines.serialization import Named
from klieg.engines.unread import report_unread
from klieg.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorHandleNotFoundError,
    ActorPlacementGroupRemoved,
    DeadlineExceededError,
    ObjectLostError,
    RuntimeShutdownError,
    SystemError_,
)
from klieg.ids import COUNTER_MASK, NodeID, id_maker, new_process_number
from klieg.outcome import UNREAD, Error, Serialized, Value
from klieg.task import STREAMS, ActorSpec, ClassInfo, TaskSpec

KILLED: Final = "The actor is dead because it was killed by `klieg.kill`."

NAME_PATIENCE: Final = 5.0
"""Seconds that Ray gets to free the name of an actor that is dead; it needs some milliseconds."""

NAME_LOOKS_EVERY: Final = 0.01
"""Seconds between two attempts to take such a name."""

STOP_GRACE: Final = 1.0
"""Seconds that callbacks of users under way get to end at shutdown."""


class RayEngine:
    """All verbs, on a Ray cluster. See `klieg.engine.Engine` for what each promises."""

    name = "ray"

    def __init__(self, session: Session, host_actor: Callable[[], Any], in_task: bool = False) -> None:
        """
        Args:
            host_actor: makes the Ray actor class that hosts a klieg actor, and in it another engine.
            in_task: True where Ray runs tasks, which give their resources to others while they wait.
        """
        self.session = session
        self._host_actor = host_actor
        self.process = new_process_number()
        self.namespace = session.namespace
        self.node = NodeID.from_hex(ray.get_runtime_context().get_node_id())
        self.exports = Exports()
        self.callbacks = Callbacks()
        self.next_number = id_maker(self.process)
        self.promise: Callable[[ObjectFuture], Any] | None = None
        """Makes a Ray ref that will hold the record of a future; how depends on what this process is."""
        self.host: Host | None = None
        """In an actor: what hosts it."""
        self.environment: Mapping[str, Any] = {}
        """The runtime environment to add to what is called from here; Ray itself knows that of its job, and those of
        workers."""
        self.on_shutdown: Callable[[], None] = _nothing
        """Leaves the cluster, if this process has joined it for klieg's sake."""
        self._in_task = in_task
        self._tasks = TaskChannel(self)
        self._workers = Workers(self)
        self._channels: weakref.WeakValueDictionary[int, ActorChannel] = weakref.WeakValueDictionary()
        self._tokens: weakref.WeakValueDictionary[int, RayToken] = weakref.WeakValueDictionary()
        self._created: weakref.WeakSet[RayToken] = weakref.WeakSet()
        self._borrowed: weakref.WeakValueDictionary[int, BorrowedFuture] = weakref.WeakValueDictionary()
        self._promised: weakref.WeakKeyDictionary[ObjectFuture, Any] = weakref.WeakKeyDictionary()
        self._pinned: dict[int, Named] = {}
        self._wait_for_groups: dict[int, weakref.WeakSet[ObjectFuture]] = {}
        self._noticeboard = Noticeboard()
        self.groups = Groups(self._noticeboard)
        self._held_back: deque[Link] = deque()
        self._chores: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()
        self._closed = False
        self._arrivals = Arrivals(self.flush, self._do_chores)
        self._deadlines = Deadlines(self.call_at, self._expire)
        UNREAD.ring = self._arrivals.ring

    # The verbs

    def submit(
        self, spec: TaskSpec, actor: ActorToken | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ObjectFuture, ...]:
        self._check_open()
        if spec.function is not None:
            self.exports.function(spec.function)
        payload, dependencies = serialization.dumps_arguments(args, kwargs, spec.name, parcels.raw)
        call = OutgoingCall(spec, parcels.keep(payload), dependencies, self.next_number)
        call.keep = actor if spec.function is None else self._workers.find(spec)
        enclosing = CURRENT.get()
        if enclosing is not None:
            enclosing.adopt(call)
            call.parent = enclosing
        call.deadline = inherited_deadline(spec, enclosing.deadline if enclosing is not None else None)
        if spec.num_returns in STREAMS:
            self._open_stream(call)
        channel: Channel = self._tasks if call.keep is None else self._channel_of(call.keep)
        channel.submit(call, self.block)
        if call.deadline is not None:
            self._deadlines.watch(call)
        return call.futures

    def create_actor(self, spec: ActorSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorToken:
        self._check_open()
        info, options = spec.info, spec.options
        name = f"{info.name}.__init__"
        payload, dependencies = serialization.dumps_arguments(args, kwargs, name, parcels.raw)
        mode = mode_of(info.is_async, options.max_concurrency, info.groups)
        facts = ActorFacts(
            number=self.next_number(),
            mode=mode,
            max_concurrency=options.max_concurrency,
            name=options.name or "",
            info=pickle.dumps(info),
            cls=export(spec.cls, f"the actor class {info.name}").data,
            placement=dataclasses.replace(options.placement, said={}),
        )
        place, namespace = options.placement.place, options.namespace or self.namespace
        if place is not None and self.groups.is_removed(place[0]):
            raise ActorPlacementGroupRemoved(f"The actor {info.name} cannot run: {REMOVED}")
        remote_class = self._host_actor().options(
            **actor_options_of(options.placement, self.groups, self.environment),
            name=options.name,
            namespace=namespace,
            lifetime=options.lifetime,
            max_restarts=options.max_restarts,
        )
        places = [place for place, _ in dependencies or ()]
        values = [self._ray_ref(future) for _, future in dependencies or ()]
        parcel = parcels.wrap(parcels.keep(payload), self.describe)
        handle = self._claim_name(
            options.name, namespace, lambda: remote_class.remote(self.session, facts, parcel, places, *values)
        )
        if options.name:  # so that it can be found before its constructor has returned
            self._noticeboard.leave(handle._actor_id.hex(), (facts.number, facts.info))
        channel = ActorChannel(self, facts.number, info.name, mode == "plain")
        channel.max_pending, channel.on_full = options.max_pending_calls, options.on_full
        token = self._new_token(facts.number, channel, handle, dies_with_us=options.lifetime != "detached")
        token.has_hook = has_hook(spec.cls)
        return token

    def _claim_name(self, name: str | None, namespace: str, create: Callable[[], Any]) -> Any:
        """What `create` returns. Ray frees the name of a dead actor a moment after callers have learnt of the death,
        and that of one whose constructor failed when it is killed or nobody holds a handle any more."""
        patience = time.monotonic() + NAME_PATIENCE
        while True:
            try:
                return create()
            except ValueError as error:
                if not name or "already" not in str(error):
                    raise
                if time.monotonic() > patience or not _free_name(name, namespace):
                    raise ActorAlreadyExistsError(text_of(error)) from None
                time.sleep(NAME_LOOKS_EVERY)

    def create_worker(self, spec: TaskSpec) -> RayToken:
        """An actor that carries out tasks of one function, for those that Ray's own tasks cannot."""
        function = spec.function
        assert function is not None
        is_async = function.max_concurrency > 1
        info = ClassInfo(function.name, is_async, {})
        facts = ActorFacts(
            number=self.next_number(),
            mode="async" if is_async else "plain",
            max_concurrency=function.max_concurrency,
            name="",
            info=pickle.dumps(info),
            cls=None,
            placement=dataclasses.replace(function.placement, said={}),
        )
        options = {"num_cpus": 1, **options_of(function.placement, self.groups, self.environment)}
        remote_class = self._host_actor().options(**options, max_restarts=-1)
        handle = remote_class.remote(self.session, facts, b"", [])
        channel = WorkerChannel(self, facts.number, function.name, strict=False)
        return self._new_token(facts.number, channel, handle, dies_with_us=True)

    def _new_token(self, number: int, channel: ActorChannel, handle: Any, dies_with_us: bool) -> RayToken:
        token = RayToken(number, channel, handle, counted=True)
        self._channels[number] = channel
        self._tokens[number] = token
        if dies_with_us:
            self._created.add(token)
        return token

    def put(self, value: Any) -> PutFuture:
        self._check_open()
        return PutFuture(self.next_number(), Value(parcels.dumps(value)))

    def block(self, ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None) -> bool:
        return self._arrivals.block(ready, futures, deadline, self._in_task)

    def nudge(self) -> None:
        """Nothing to do: whoever waits has a callback on the future."""

    def count_sleepers(self, change: int) -> None:
        """Nothing to do: results come by themselves."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls made in one step of the loop leave together at its end; whoever resolves a future wakes the loop."""
        self._arrivals.release_lone()
        if self._held_back:
            loop.call_soon(self.flush)

    def cancel(self, future: ObjectFuture, force: bool, recursive: bool) -> None:
        if isinstance(future, BorrowedFuture):
            if future.outcome is None:
                future.cancel(force, recursive)
            return
        call: OutgoingCall | None = future.call
        if call is None:
            return
        channel, error = call.channel, cancelled_error(call.spec)
        if channel is not None and channel.cancel_held(call, error):
            return
        call.retries = 0
        self._stop(call, CANCELLED, force, recursive)

    def _stop(self, call: OutgoingCall, why: int, force: bool, recursive: bool) -> None:
        """Have whoever has the call end it."""
        run, token = call.peer, call.keep
        if isinstance(run, TaskRun):
            ray.cancel(run.records, force=force, recursive=False)  # the task's own process stops what it has called
        elif run is not None and token is not None:
            self.flush()
            if why == CANCELLED:
                run.cancelled.add(call.id & COUNTER_MASK)
            answer = token.handle.cancel.remote(self.process, call.id & COUNTER_MASK, why, recursive)
            if run.is_direct(call):
                self.expect(answer, lambda never_starts: run.cancel_direct(call, never_starts))

    def cancel_children(self, call: Call) -> None:
        """Cancel what a call of this process has called and still waits for."""
        for child in list(call.children):
            self.cancel(child.futures[0], False, True)

    def _expire(self, call: OutgoingCall, error: DeadlineExceededError) -> None:
        """The call's time is up: its caller learns it now, whatever the process that has it still does."""
        if call.channel is not None and call.channel.cancel_held(call, error):
            return
        call.expire(error)
        self._stop(call, EXPIRED, force=False, recursive=False)

    def kill(self, actor: ActorToken, no_restart: bool) -> None:
        channel = self._channel_of(actor)
        assert isinstance(actor, RayToken)
        if no_restart:
            channel.die(ActorDiedError(KILLED, channel.hex()))
        ray.kill(actor.handle, no_restart=no_restart)
        if not no_restart:
            channel.reconnect(actor.handle)

    def find_actor(self, name: str, namespace: str | None) -> tuple[ActorToken, ClassInfo] | None:
        self._check_open()
        try:
            handle = ray.get_actor(name, namespace or self.namespace)
            notice = self._noticeboard.find(handle._actor_id.hex())
            number, described = notice or self._ask(handle.describe.remote())
        except (ValueError, AttributeError, ray.exceptions.RayActorError):
            return None  # AttributeError: an actor of that name, but not one of klieg's
        info: ClassInfo = pickle.loads(described)
        return RayToken(number, self._channel(number, info.name), handle, counted=False), info

    def named_actors(self) -> list[tuple[str, str]]:
        self._check_open()
        found = ray.util.list_named_actors(all_namespaces=True)
        return [(each["namespace"], each["name"]) for each in found]

    def nodes(self) -> list[dict[str, Any]]:
        self._check_open()
        described: list[dict[str, Any]] = ray.nodes()
        return described

    def resources(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        self._check_open()
        return ray.cluster_resources(), ray.available_resources()

    def objects(self) -> list[dict[str, Any]]:
        return inventory(self.process, lambda number: [], list(self._borrowed.values()))

    def store_usage(self) -> dict[str, Any]:
        """Nothing of klieg's: large values are Ray's own objects, and `ray memory` lists them."""
        return {"limit": 0, "used": 0, "processes": []}

    def stats(self, actor: ActorToken) -> dict[str, dict[str, int]]:
        stats: dict[str, dict[str, int]] = self._ask_actor(actor, "stats")
        return stats

    def snapshot(self, timeout: float) -> list[dict[str, Any]]:
        """Of this process, and of the actors that it knows."""
        self._check_open()
        tokens = list(self._tokens.values())
        asked = {token.handle.snapshot.remote(): token for token in tokens}
        answered = ray.wait(list(asked), num_returns=len(asked), timeout=timeout)[0] if asked else []
        silent = [token.channel.target for ref, token in asked.items() if ref not in answered]
        return [
            self.own_snapshot(),
            *(reply for ref in answered if (reply := _answer_of(ref)) is not None),
            *({"silent": {"pid": 0, "title": title, "state": "on a node", "stacks": ""}} for title in silent),
        ]

    def own_snapshot(self) -> dict[str, Any]:
        """What this process is doing."""
        return {
            "process": self.process,
            "pid": os.getpid(),
            "driver": self.host is None,
            "actors": [] if self.host is None else [snapshot_of(self.host)],
            "threads": thread_stacks(without=RUNNERS),
            "outgoing": outgoing(self._outgoing()),
        }

    def _outgoing(self) -> Iterator[tuple[OutgoingCall, str, str]]:
        channels: list[ActorChannel | TaskChannel] = [*self._channels.values(), self._tasks]
        for channel in channels:
            yield from ((call, channel.target, where) for call, where in channel.unsent())
            yield from ((call, channel.target, "") for call in channel.under_way())

    def resize(self, actor: ActorToken, limits: Mapping[str, int]) -> None:
        answer = self._ask_actor(actor, "resize", dict(limits))
        if isinstance(answer, ValueError):
            raise answer
        self._noticeboard.leave(f"limits {actor.id:x}", answer)  # for its next incarnation

    def limits_of(self, actor: int) -> dict[str, int]:
        """What the actor of that number was resized to, if it was."""
        limits: dict[str, int] = self._noticeboard.find(f"limits {actor:x}") or {}
        return limits

    def create_placement_group(self, group: int, facts: Mapping[str, Any]) -> str:
        self._check_open()
        name, taken = facts["name"], {each["name"] for each in self.groups.facts() if each["state"] != "REMOVED"}
        if name and name in taken:
            raise SystemError_(f"There is a placement group of the name {name!r} already.")
        self.groups.create(group, facts)
        return ""  # Ray keeps what fits nowhere: an autoscaler may still bring a machine

    def placement_group_ready(self, group: int, value: Any) -> ObjectFuture:
        self._check_open()
        future = ObjectFuture(self.next_number())
        if self.groups.is_removed(group):
            future.resolve(ready_outcome(GROUP_REMOVED, b""))
            return future
        payload = parcels.dumps(value)
        self._wait_for_groups.setdefault(group, weakref.WeakSet()).add(future)

        def placed(answer: Any) -> None:
            if future.outcome is not None:
                return  # the group was removed meanwhile
            if isinstance(answer, Exception):
                future.resolve(Error(failures.dumps(task_trouble(answer, "placement_group"), "placement_group")))
            else:
                future.resolve(Value(payload))

        self.expect(self.groups.find(group).ready(), placed)
        return future

    def remove_placement_group(self, group: int) -> None:
        """What waits for the group, or runs in it as a task of this process, ends here: Ray lets some of it wait."""
        self._check_open()
        self.groups.remove(group)
        for future in self._wait_for_groups.pop(group, ()):
            if future.outcome is None:
                future.resolve(ready_outcome(GROUP_REMOVED, b""))
        self._tasks.fail_in(group)

    def placement_groups(self) -> list[dict[str, Any]]:
        self._check_open()
        return self.groups.facts()

    def table(self, of: str) -> list[dict[str, Any]]:
        raise SystemError_(f"Ray knows its {of} itself: ask `ray.util.state`, or the command `ray list`.")

    def survey(self, question: str, details: Mapping[str, Any], timeout: float) -> tuple[list[Any], list[Any]]:
        raise SystemError_(f"Ray knows its {question} itself: ask `ray.util.state`, or the command `ray list`.")

    def let_go(self) -> None:
        """Ray closes its own descriptors in a fork, or leaves them: nothing here is klieg's."""

    def _ask(self, ref: Any) -> Any:
        """The value of a Ray ref, waited for in Ray."""
        return ray.get(ref)

    def _ask_actor(self, actor: ActorToken, method: str, *args: Any) -> Any:
        """What the actor says, beside its queue; raises how it is gone."""
        channel = self._channel_of(actor)
        assert isinstance(actor, RayToken)
        if channel.death is not None:
            raise channel.death
        try:
            return self._ask(getattr(actor.handle, method).remote(*args))
        except ray.exceptions.RayActorError as error:
            raise actor_trouble(error, channel.hex(), channel.name) from None

    def shutdown(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        report_unread()
        self._end_gently()
        for token in list(self._created):
            token.channel.die(RuntimeShutdownError())
            _kill_quietly(token.handle)
        for channel in list(self._channels.values()):
            channel.die(RuntimeShutdownError())
        self._tasks.fail_all()
        self.callbacks.stop(STOP_GRACE)
        UNREAD.ring = _nothing
        self._arrivals.close()
        self.promise = None
        if ray.is_initialized():
            self.groups.remove_own()
            self._noticeboard.clear()
        self.on_shutdown()

    def _end_gently(self) -> None:
        """Have the actors that want to be told leave by themselves, in the time of their hooks and a second."""
        told = [token.handle.end.remote() for token in list(self._created) if token.has_hook]
        if told and ray.is_initialized():
            ray.wait(told, num_returns=len(told), timeout=HOOK_GRACE + 1.0, fetch_local=False)

    # What the channels need

    def expect(self, ref: Any, arrived: Arrived) -> None:
        self._arrivals.expect(ref, arrived)

    def expect_lone(self, ref: Any, arrived: Arrived, call: OutgoingCall) -> None:
        """For the only ref under way on a link. In actors, Ray frowns on a thread that waits in it."""
        if self.host is None and not self._in_task and call.deadline is None:
            self._arrivals.expect_lone(ref, arrived, call)
        else:
            self._arrivals.expect(ref, arrived)

    def flush_soon(self, link: Link) -> None:
        self._held_back.append(link)
        self._arrivals.ring()

    def flush(self) -> None:
        """Send the calls that were held back to be sent together."""
        while self._held_back:
            try:
                link = self._held_back.popleft()
            except IndexError:  # another thread has taken the last one
                return
            link.flush()

    def do_soon(self, chore: Callable[[], object]) -> None:
        """Have the engine's own thread do something; safe in a finalizer and on Ray's thread."""
        self._chores.append(chore)
        self._arrivals.ring()

    def call_at(self, moment: float, function: Callable[[], None]) -> None:
        self._arrivals.call_at(moment, function)

    def _do_chores(self) -> None:
        while self._chores:
            chore = self._chores.popleft()
            if not self._closed:
                chore()
        report_unread()

    # Refs and handles that come and go

    def describe(self, named: Named) -> tuple[Any, ...]:
        """What another process needs to know of a ref or actor that a value names."""
        if isinstance(named, RayToken):
            return ACTOR, named.id, named.handle, named.channel.name, named.counted
        assert isinstance(named, ObjectFuture)
        if named.outcome is not None:
            return DONE, named.id, self.record_of(named)
        if isinstance(named, BorrowedFuture):
            return PENDING, named.id, named.records, named.index, named.contents, named.sent_to
        call: OutgoingCall | None = named.call
        run = call.peer if call is not None else None
        if call is not None and isinstance(run, TaskRun) and not call.spec.retry_exceptions:
            return PENDING, named.id, run.records, call.futures.index(named), run.contents, None
        sent_to = (call.keep.handle, self.process, call.id & COUNTER_MASK) if call and isinstance(run, Link) else None
        return PENDING, named.id, self._ray_ref(named), 0, None, sent_to

    def recognize(self, described: tuple[Any, ...]) -> Named:
        """What stands here for a ref or actor that a value from another process names."""
        kind, number = described[:2]
        if kind == ACTOR:
            return self._recognize_actor(number, *described[2:])
        known = self._borrowed.get(number)
        if known is not None:
            return known
        if kind == DONE:
            return ObjectFuture(number, open_record(self, described[2], None))
        future = self._borrowed[number] = BorrowedFuture(self, number, *described[2:])
        return future

    def _recognize_actor(self, number: int, handle: Any, name: str, counted: bool) -> RayToken:
        with self._lock:
            token = self._tokens.get(number)
            if token is None or (counted and not token.counted):
                token = RayToken(number, self._channel(number, name), handle, counted)
                self._tokens[number] = token
        return token

    def record_of(self, future: ObjectFuture) -> Record:
        assert future.outcome is not None
        return make_record(self, future.outcome)

    def _ray_ref(self, future: ObjectFuture) -> Any:
        """A Ray ref of the list of the future's one record."""
        if future.outcome is not None:
            return ray.put([self.record_of(future)])
        ref = self._promised.get(future)
        if ref is None:
            with self._lock:
                if self.promise is None:
                    self.promise = promise_by_actor(self)
            ref = self._promised[future] = self.promise(future)
        future.want()
        return ref

    def pin(self, named: Named) -> None:
        """The user pickles a ref or handle by hand, or closes over one: keep what it names for all who may meet the
        bytes, since nobody can know when they go."""
        if named.id not in self._pinned:
            self._pinned[named.id] = named
            self._noticeboard.leave(f"{named.id:x}", self.describe(named))

    def future_of(self, number: int) -> ObjectFuture:
        named = self._pinned.get(number) or self._borrowed.get(number) or self._find_notice(number)
        if not isinstance(named, ObjectFuture):
            raise ObjectLostError(f"No value is known under the id {number:x} in this runtime.")
        return named

    def token_of(self, number: int, info: ClassInfo) -> ActorToken:
        token = self._pinned.get(number) or self._tokens.get(number) or self._find_notice(number)
        if not isinstance(token, ActorToken):
            raise ActorHandleNotFoundError(f"No actor is known under the id {number:x} in this runtime.")
        return token

    def _find_notice(self, number: int) -> Named | None:
        """What another process has pinned under the number; kept from now on, as it keeps it."""
        described = self._noticeboard.find(f"{number:x}")
        if described is None:
            return None
        named = self._pinned[number] = self.recognize(described)
        return named

    def drop_stream(self, stream: StreamFuture) -> None:
        self.do_soon(stream.close)

    def _channel(self, number: int, name: str) -> ActorChannel:
        with self._lock:
            channel = self._channels.get(number)
            if channel is None:
                channel = self._channels[number] = ActorChannel(self, number, name, strict=False)
        return channel

    def _channel_of(self, actor: ActorToken) -> ActorChannel:
        self._check_open()
        channel = actor.channel
        if not isinstance(channel, ActorChannel) or channel.engine is not self:
            raise ActorHandleNotFoundError("The handle belongs to a runtime that was shut down.")
        return channel

    def _open_stream(self, call: OutgoingCall) -> None:
        stream = call.futures[0]
        assert isinstance(stream, StreamFuture)

        def grant(taken: int) -> None:
            token = call.keep
            if isinstance(token, RayToken) and (taken < 0 or call.spec.backpressure > 0):
                token.handle.grant.remote(self.process, call.id & COUNTER_MASK, taken)

        stream.grant = grant

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeShutdownError


ACTOR: Final = 0
DONE: Final = 1
PENDING: Final = 2

GROUP_REMOVED: Final = {"removed": True}


def payload_in(engine: RayEngine, record: Record) -> Serialized:
    """The payload in a record; raises the error if it is one."""
    outcome = open_record(engine, record, None)
    if isinstance(outcome, Error):
        raise failures.loads(outcome.payload)
    return outcome.payload


def _free_name(name: str, namespace: str) -> bool:
    """See to it that Ray frees the name, if the actor that has it is dead; False if it is not."""
    try:
        handle = ray.get_actor(name, namespace)
        ray.get(handle.describe.remote(), timeout=NAME_PATIENCE)
    except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError, AttributeError):
        return False  # it is being restarted, or constructed, or is none of klieg's
    except ray.exceptions.RayActorError:
        _kill_quietly(handle)
        return True
    except ValueError:  # it is free by now
        return True
    return False


def _answer_of(ref: Any) -> dict[str, Any] | None:
    """What an actor says of itself; None if it is dead."""
    try:
        answer: dict[str, Any] = ray.get(ref)
    except ray.exceptions.RayError:
        return None
    return answer


def _kill_quietly(handle: Any) -> None:
    if not ray.is_initialized():
        return  # Ray's own end of the program came first; to call it now would start a cluster
    try:
        ray.kill(handle)
    except Exception:  # the connection, or the actor, is gone already
        return


def _nothing() -> None:
    return
