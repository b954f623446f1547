"""The engine that runs everything in this process: for tests, debuggers and notebooks.

Same semantics as worker processes: arguments and results are copies, calls run concurrently on threads and loops,
order and limits are those of the concurrency core. What a process gives and a thread cannot is missing: the GIL is
shared, module globals are too, and a call that never ends can be abandoned but not killed.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from klieg import measurements, session
from klieg.concurrency import recording
from klieg.concurrency.call import CURRENT
from klieg.concurrency.host import Host
from klieg.concurrency.snapshot import RUNNERS, snapshot_of
from klieg.concurrency.stacks import thread_stacks
from klieg.concurrency.waits import Facts, late, waits_of
from klieg.engines import serialization, tables, task_table
from klieg.engines.callbacks import Callbacks
from klieg.engines.calls import OutgoingCall, StreamFuture, cancelled_error
from klieg.engines.deadlines import Deadlines, inherited_deadline
from klieg.engines.inline.actors import KILLED, InlineActor
from klieg.engines.inline.call import STOP_GRACE, InlineCall, nothing
from klieg.engines.inline.tasks import InlineAsyncTasks, InlineTasks
from klieg.engines.inventory import MOST, inventory, known_here
from klieg.engines.objects import ActorToken, ObjectFuture, PutFuture, Ready, block_by_callbacks, deadline_of
from klieg.engines.outgoing import outgoing
from klieg.engines.placement_groups import PlacementGroups, made, ready_outcome
from klieg.engines.recorded import recorded
from klieg.engines.scheduler import Grant, Scheduler
from klieg.engines.serialization import Named
from klieg.engines.timers import Timers
from klieg.engines.unread import report_unread
from klieg.exceptions import (
    ActorAlreadyExistsError,
    ActorHandleNotFoundError,
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    DeadlineExceededError,
    KliegError,
    ObjectLostError,
    RuntimeEnvSetupError,
    RuntimeShutdownError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
)
from klieg.ids import NODE_ID, id_maker, new_process_number
from klieg.machine import gpu_names
from klieg.outcome import UNREAD, Value
from klieg.placement import Placement
from klieg.runtime_env import RuntimeEnv
from klieg.settings import Settings
from klieg.task import ActorSpec, ClassInfo, FunctionSpec, TaskSpec

DEAD_KEPT = 1000
"""Dead actors that tables still show."""

OUT_OF_SCOPE = "The actor is dead because all handles to it were dropped."

Holder = InlineCall | InlineActor | InlineAsyncTasks
"""Who stands in line for resources, and holds them then."""


def _refuse_environment(environment: Mapping[str, Any]) -> None:
    if environment:
        raise RuntimeEnvSetupError(
            f"A runtime environment ({', '.join(environment)}) needs a process of its own, and the inline engine runs "
            "everything in this one: prepare this process, or use `init(engine='local')`."
        )


class InlineEngine:
    """All verbs in one process. See `klieg.engine.Engine` for what each promises."""

    name = "inline"

    def __init__(self, resources: Mapping[str, float], namespace: str, settings: Settings) -> None:
        self.settings = settings
        self.process = new_process_number()
        self.namespace = namespace
        self.node = NODE_ID
        self.lock = threading.RLock()
        _refuse_environment(settings.runtime_env)
        gpus = gpu_names(resources.get("GPU", 0))
        self._scheduler: Scheduler[Holder] = Scheduler(resources, gpus, time.monotonic)
        self._groups = PlacementGroups(self, self._scheduler)
        self._next_look: float | None = None
        self.pending: dict[int, InlineCall] = {}
        self.actors: dict[int, InlineActor] = {}
        self._buried: deque[dict[str, Any]] = deque(maxlen=DEAD_KEPT)
        """The last facts of dead actors, for those who ask."""
        self._started = time.time()
        self._names: dict[tuple[str, str], InlineActor] = {}
        self._next_id = id_maker(self.process)
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._closed = False
        self._pinned: dict[int, Named] = {}
        self._dropped: SimpleQueue[int | StreamFuture | None] = SimpleQueue()
        """Actors without handles, generators without consumers; SimpleQueue.put is safe in a finalizer."""
        self._timers = Timers()
        self._deadlines = Deadlines(self.call_at, self._expire)
        self._janitor = self.start_thread(self._clean_up, "klieg janitor")
        self.tasks = InlineTasks(self)
        self._async_tasks: list[InlineAsyncTasks] = []
        self.callbacks = Callbacks()
        UNREAD.ring = lambda: self._dropped.put(0)

    def submit(
        self, spec: TaskSpec, actor: ActorToken | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ObjectFuture, ...]:
        self._check_open()
        payload, dependencies = serialization.dumps_arguments(args, kwargs, spec.name)
        channel = self._task_channel(spec.function) if actor is None else actor.channel
        if channel.engine is not self:
            raise ActorHandleNotFoundError("The handle belongs to a runtime that was shut down.")
        call = OutgoingCall(spec, payload, dependencies, self._next_id)
        call.keep = actor
        enclosing = CURRENT.get()
        if enclosing is not None:
            enclosing.adopt(call)
            call.parent = enclosing
            if isinstance(enclosing, InlineCall) and enclosing.host is self.tasks.host and enclosing.spreads:
                call.fail(cancelled_error(spec))  # were it a process, an interrupt would not have let it come here
                return call.futures
        call.deadline = inherited_deadline(spec, enclosing.deadline if enclosing else None)
        if recording.recorder is not None:
            recording.recorder.submitted(call.id, call.parent)
        channel.submit(call, self.block)
        if call.deadline is not None:
            self._deadlines.watch(call)
        return call.futures

    def _task_channel(self, function: FunctionSpec | None) -> InlineTasks | InlineAsyncTasks:
        if function is None or function.max_concurrency == 1:
            return self.tasks
        with self.lock:
            self._check_open()
            for channel in self._async_tasks:
                if channel.function.function is function.function and channel.function.runs_like(function):
                    return channel
            self._async_tasks.append(InlineAsyncTasks(self, function))
            return self._async_tasks[-1]

    def task_call(self, call: OutgoingCall, function: FunctionSpec, host: Host) -> InlineCall | None:
        """The call, pending from now on; None if it can never have what it asks for, so that it has failed."""
        inline = InlineCall(call, self, function.function)
        inline.host = host
        self.pending[call.id] = inline
        placement = function.placement
        session.capturing = session.capturing or placement.captures
        try:
            self.check(placement, f"The task {function.name}", TaskUnschedulableError, TaskPlacementGroupRemoved)
        except KliegError as error:
            inline.fail(error)
            return None
        return inline

    def create_actor(self, spec: ActorSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorToken:
        self._check_open()
        name = f"{spec.info.name}.__init__"
        payload, dependencies = serialization.dumps_arguments(args, kwargs, name)
        number = self._next_id()
        what = f"The actor {spec.info.name}"
        self.check(spec.options.placement, what, ActorUnschedulableError, ActorPlacementGroupRemoved)
        key = (spec.options.namespace or self.namespace, spec.options.name or "")
        with self.lock:
            if spec.options.name and key in self._names:
                raise ActorAlreadyExistsError(f"The name {key[1]!r} is taken by another actor in namespace {key[0]!r}.")
            actor = self.actors[number] = InlineActor(self, number, spec)
            if spec.options.name:
                self._names[key] = actor
        call = OutgoingCall(TaskSpec(name, method="__init__"), payload, dependencies, self._next_id)
        actor.construct(call)
        return ActorToken(number, actor, None if spec.options.lifetime == "detached" else self._dropped.put)

    def put(self, value: Any) -> PutFuture:
        self._check_open()
        return PutFuture(self._next_id(), Value(serialization.dumps(value)))

    def block(self, ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None) -> bool:
        """Sleep until `ready()`; a task that sleeps gives its resources to others meanwhile."""
        if ready():
            return True
        recorder = recording.recorder
        if recorder is None:
            return self._block(ready, futures, deadline)
        start = recorder.clock()
        try:
            return self._block(ready, futures, deadline)
        finally:
            recorder.waited(CURRENT.get(), start)

    def _block(self, ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None) -> bool:
        call = CURRENT.get()
        if not isinstance(call, InlineCall) or call.grant is None:
            return block_by_callbacks(ready, futures, deadline)
        grant = call.grant
        with self.lock:
            granted = self._scheduler.lend(grant)
        self.settle(granted)
        try:
            return block_by_callbacks(ready, futures, deadline)
        finally:
            with self.lock:
                self._scheduler.reclaim(grant)

    def nudge(self) -> None:
        """Nothing to do: whoever waits has a callback on the future."""

    def count_sleepers(self, change: int) -> None:
        """Nothing to do: results come by themselves."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to do: whoever resolves a future wakes the loop."""

    def cancel(self, future: ObjectFuture, force: bool, recursive: bool) -> None:
        call: OutgoingCall | None = future.call
        if call is None:
            return
        error = cancelled_error(call.spec)
        channel = call.channel
        if channel is not None and channel.cancel_held(call, error):
            return
        self._stop(call, error, recursive)

    def _stop(self, call: OutgoingCall, error: BaseException, recursive: bool) -> None:
        """Have a call that is in its host's hands, or waits for its resources, end with `error`."""
        inline = self.pending.get(call.id)
        if inline is None:
            return
        inline.spreads = recursive
        children = list(inline.children) if recursive else []
        if not inline.host.cancel(self.process, call.id, error):
            inline.fail(error)  # it waits for its resources
        for child in children:
            self.cancel(child.futures[0], False, True)

    def _expire(self, call: OutgoingCall, error: DeadlineExceededError) -> None:
        """The call's time is up: its caller learns it now, whatever the call itself still does."""
        if call.channel is None or not call.channel.cancel_held(call, error):
            call.expire(error)
            self._stop(call, error, recursive=False)

    def call_at(self, moment: float, function: Callable[[], None]) -> None:
        if self._timers.at(moment, function):
            self._dropped.put(0)

    def kill(self, actor: ActorToken, no_restart: bool) -> None:
        self._check_ours(actor)
        channel = actor.channel
        assert isinstance(channel, InlineActor)
        channel.life.killed = True
        if no_restart or not channel.restart(KILLED):
            channel.die(KILLED)

    def again(self, call: OutgoingCall) -> OutgoingCall:
        """The same call, to be made once more under a number of its own."""
        return OutgoingCall(call.spec, call.payload, call.dependencies, self._next_id)

    def find_actor(self, name: str, namespace: str | None) -> tuple[ActorToken, ClassInfo] | None:
        with self.lock:
            actor = self._names.get((namespace or self.namespace, name))
        return None if actor is None else (ActorToken(actor.id, actor, None), actor.spec.info)

    def named_actors(self) -> list[tuple[str, str]]:
        with self.lock:
            return list(self._names)

    def nodes(self) -> None:
        """This machine alone."""

    def resources(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        with self.lock:
            return self._scheduler.total(), self._scheduler.free()

    def check(self, placement: Placement, what: str, never: type[KliegError], removed: type[KliegError]) -> None:
        """Raise one of the two errors for what can never be placed, RuntimeEnvSetupError for an environment."""
        _refuse_environment(RuntimeEnv.load(placement.environment))
        with self.lock:
            reason = self._scheduler.why_never(placement.demand, placement.place)
            is_gone = self._groups.is_gone(placement.place)
        if reason:
            raise (removed if is_gone else never)(f"{what} can never be placed: {reason}")

    def request(self, placement: Placement, who: Holder, caller: Hashable, short: bool = False) -> None:
        """Start a task or an actor once its resources are there, perhaps at once."""
        with self.lock:
            grant = self._scheduler.request(placement.demand, who, placement.place, caller, short)
        if grant is not None:
            self._start(who, grant)

    def _start(self, who: Holder, grant: Grant) -> None:
        if isinstance(who, InlineCall):
            self.tasks.start(who, grant)
        else:
            who.start(grant)

    def withdraw(self, who: Holder) -> bool:
        """Leave the line; False if `who` does not stand in one: its resources may be on their way."""
        with self.lock:
            return self._scheduler.withdraw(who)

    def create_placement_group(self, group: int, facts: Mapping[str, Any]) -> str:
        self._check_open()
        with self.lock:
            answer = self._groups.create(group, facts, None)
        return made(answer, facts["name"])

    def placement_group_ready(self, group: int, value: Any) -> ObjectFuture:
        self._check_open()
        future = ObjectFuture(self._next_id())
        payload = serialization.dumps(value)
        with self.lock:
            self._groups.when_ready(group, lambda answer: future.resolve(ready_outcome(answer, payload)))
        return future

    def remove_placement_group(self, group: int) -> None:
        self._check_open()
        with self.lock:
            self._groups.remove(group)

    def placement_groups(self) -> list[dict[str, Any]]:
        self._check_open()
        with self.lock:
            return self._groups.table()

    def fail_waiting(self, item: Holder, reason: str) -> None:
        if isinstance(item, InlineActor):
            item.die(f"The actor is dead because {reason}")
        elif isinstance(item, InlineAsyncTasks):
            item.fail_all(TaskPlacementGroupRemoved(f"The task {item.function.name} cannot run: {reason}"))
        else:
            item.fail(TaskPlacementGroupRemoved(f"The task {item.spec.name} cannot run: {reason}"))

    def end_all_in(self, group: int, reason: str) -> None:
        for actor in [a for a in self.actors.values() if a.host.placement.place and a.host.placement.place[0] == group]:
            self.fail_waiting(actor, reason)
        holders: list[InlineCall | InlineAsyncTasks] = [*self.pending.values(), *self._async_tasks]
        for holder in holders:
            if holder.grant is not None and holder.grant.place is not None and holder.grant.place[0] == group:
                self.fail_waiting(holder, reason)

    def give_back(self, holder: InlineCall | InlineActor) -> None:
        """What a call or an actor holds is free again."""
        with self.lock:
            grant, holder.grant = holder.grant, None
        if grant is not None:
            self.free(grant)

    def free(self, grant: Grant) -> None:
        with self.lock:
            granted = self._scheduler.release(grant)
        self.settle(granted)

    def settle(self, granted: list[tuple[Any, Grant | None]]) -> None:
        for item, grant in granted:
            if grant is None:
                self._groups.placed(item)
            else:
                self._start(item, grant)
        with self.lock:
            moment = self._scheduler.next_look()
            if moment is None or moment == self._next_look:
                return
            self._next_look = moment
        self.call_at(moment, self._look)

    def _look(self) -> None:
        with self.lock:
            granted = self._scheduler.look()
        self.settle(granted)

    def let_go(self) -> None:
        """Its threads are the parent's; there is nothing else."""

    def shutdown(self) -> None:
        with self.lock:
            if self._closed:
                return
            self._closed = True
        report_unread()
        for call in list(self.pending.values()):
            call.fail(RuntimeShutdownError())
        self.tasks.fail_held(RuntimeShutdownError)
        for actor in list(self.actors.values()):
            actor.fail_held(RuntimeShutdownError)
            actor.die("The actor is dead because `klieg.shutdown()` was called.")
        self.tasks.host.exit("`klieg.shutdown()` was called.")
        self.tasks.host.pool.stop()
        for channel in self._async_tasks:
            channel.stop("`klieg.shutdown()` was called.")
        self.callbacks.stop(STOP_GRACE)
        UNREAD.ring = nothing
        self._dropped.put(None)
        self._join_threads()

    def start_thread(self, run: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        with self.lock:
            self._threads.add(thread)  # not before: a shutdown on another thread would join what has not started
        return thread

    def forget(self, actor: InlineActor) -> None:
        self.end_children(actor.host)
        with self.lock:
            if self.actors.pop(actor.id, None) is not None:
                self._buried.append(self._row_of(actor))
            for key in [key for key, named in self._names.items() if named is actor]:
                del self._names[key]
        self.give_back(actor)

    def end_children(self, host: Host) -> None:
        """End the actors that this life of an actor has created."""
        for child in [a for a in list(self.actors.values()) if a.parent is host]:
            child.die("The actor is dead because its owner, the actor that created it, died.")

    def snapshot(self, timeout: float) -> list[dict[str, Any]]:
        return [
            {
                "process": self.process,
                "pid": os.getpid(),
                "driver": True,
                "actors": [snapshot_of(host) for host in self._hosts()],
                "threads": thread_stacks(without=RUNNERS),
                "outgoing": outgoing(self._outgoing()),
                "waits": self._waits(),
            }
        ]

    def _waits(self) -> Facts:
        unsent = [entry for channel in self._all_channels() for entry in channel.unsent()]
        return {"pid": os.getpid(), "hosts": [waits_of(host) for host in self._hosts()], "late": late(unsent)}

    def _all_channels(self) -> list[InlineActor | InlineTasks | InlineAsyncTasks]:
        return [*list(self.actors.values()), self.tasks, *self._async_tasks]

    def _hosts(self) -> list[Host]:
        return [channel.host for channel in self._all_channels()]

    def ask_waits(self, then: Callable[[list[Facts]], None]) -> None:
        """Have a function called with what is known of who waits for whom."""
        then([self._waits()])

    def table(self, of: str) -> list[dict[str, Any]]:
        self._check_open()
        pid = os.getpid()
        makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "actors": lambda: [*self._buried, *(self._row_of(actor) for actor in list(self.actors.values()))],
            "workers": lambda: [
                tables.worker_row(self.process, kind="DRIVER", state="DRIVER", pid=pid, title="driver")
            ],
            "nodes": lambda: [tables.node_row(self._scheduler.total(), self.settings.labels, self._started)],
            "jobs": lambda: [tables.job_row(pid, shlex.join(sys.orig_argv), self._started)],
            "placement_groups": lambda: [tables.placement_group_row(facts) for facts in self.placement_groups()],
            "store": lambda: [self.store_usage()],
        }
        return makers[of]()

    def _row_of(self, actor: InlineActor) -> dict[str, Any]:
        options = actor.spec.options
        state = "DEAD" if actor.death is not None else "ALIVE" if actor.grant is not None else "PENDING_CREATION"
        return tables.actor_row(
            actor.id,
            class_name=actor.spec.info.name,
            state=state,
            name=options.name or "",
            namespace=options.namespace or self.namespace,
            pid=os.getpid(),
            process=self.process,
            is_detached=options.lifetime == "detached",
            placement=options.placement,
            death=actor.death or "",
            restarts=actor.restarts,
            owner=self.process,
        )

    def survey(self, question: str, details: Mapping[str, Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self._check_open()
        most = details.get("most", task_table.MOST)
        hosts = self._hosts()
        if question == "timeline":
            return [{"pid": os.getpid(), "title": "this process", **recorded(hosts, details)}], []
        if question == "objects":
            known = known_here(self.process, os.getpid(), self.objects(), details.get("most", MOST))
            return [known], []
        if question == "metrics":
            return [{"pid": os.getpid(), "metrics": measurements.dump()}], []
        if question != "calls":
            return [], []  # what is printed here, this process has printed itself
        made = task_table.made_here(self.process, self._outgoing(), most)
        return [{**made, **task_table.running_here(self.process, os.getpid(), hosts, most)}], []

    def _outgoing(self) -> Iterator[tuple[OutgoingCall, str, str]]:
        for channel in self._all_channels():
            yield from ((call, channel.target, where) for call, where in channel.unsent())
        for inline in list(self.pending.values()):
            if inline.outgoing.channel is not None:
                waits = inline.host is self.tasks.host and inline.grant is None
                yield inline.outgoing, inline.outgoing.channel.target, "waits for resources" if waits else ""

    def resize(self, actor: ActorToken, limits: Mapping[str, int]) -> None:
        self._living(actor).resize(limits)

    def objects(self) -> list[dict[str, Any]]:
        return inventory(self.process, lambda number: [])

    def store_usage(self) -> dict[str, Any]:
        """Nothing: values of one process need not be shared."""
        return {"limit": 0, "used": 0, "processes": []}

    def stats(self, actor: ActorToken) -> dict[str, dict[str, int]]:
        return self._living(actor).host.stats()

    def _living(self, actor: ActorToken) -> InlineActor:
        self._check_ours(actor)
        channel = actor.channel
        assert isinstance(channel, InlineActor)
        if channel.death is not None:
            raise channel.died()
        return channel

    def pin(self, named: Named) -> None:
        """The user pickles a ref or handle by hand: keep what it names, since nobody can know when the bytes go."""
        self._pinned[named.id] = named

    def future_of(self, number: int) -> ObjectFuture:
        named = self._pinned.get(number)
        if not isinstance(named, ObjectFuture):
            raise ObjectLostError(f"No value is known under the id {number:x} in this runtime.")
        return named

    def token_of(self, number: int, info: ClassInfo) -> ActorToken:
        named = self._pinned.get(number)
        if not isinstance(named, ActorToken):
            raise ActorHandleNotFoundError(f"No actor is known under the id {number:x} in this runtime.")
        return named

    def drop_stream(self, stream: StreamFuture) -> None:
        self._dropped.put(stream)

    def _check_ours(self, actor: ActorToken) -> None:
        if actor.channel.engine is not self:
            raise ActorHandleNotFoundError("The handle belongs to a runtime that was shut down.")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeShutdownError

    def _clean_up(self) -> None:
        """End actors whose last handle is gone, report errors that nobody read, do what is due."""
        while (dropped := self._next_dropped()) is not None:
            self._timers.run()
            report_unread()
            if dropped == 0:
                continue
            if isinstance(dropped, StreamFuture):
                dropped.close()
                continue
            actor = self.actors.get(dropped)
            if actor is not None:
                actor.host.exit(OUT_OF_SCOPE)

    def _next_dropped(self) -> int | StreamFuture | None:
        """What was dropped, or 0 if it is time to look at the timers; None at the end."""
        try:
            return self._dropped.get(timeout=self._timers.left())
        except Empty:
            return 0

    def _join_threads(self) -> None:
        deadline = deadline_of(STOP_GRACE)
        with self.lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                left = max(0.0, (deadline or 0) - time.monotonic())
                thread.join(left)
