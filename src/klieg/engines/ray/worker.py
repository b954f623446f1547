"""In a worker process of Ray: one klieg actor, or one task after another, around the concurrency core.

    exchange ──► Line (in the caller's order) ──► Host.deliver ──► executor ──► Delivery.succeed ──► Line ──► exchange
    direct ────► a lone call to a plain actor: the same, with a Reply in the place of the Line

A klieg actor is one async Ray actor. Ray's default event loop takes the exchanges and is the loop of an async klieg
actor; what acts on the queue from outside it (cancel, resize, statistics) has a loop of its own, in Ray's terms a
concurrency group. The calls of a plain actor run on the thread of the default loop, between two steps of it, so that a
lone call changes no thread; its exchanges are taken on the other loop, as calls hold this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import pickle
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import ray

from klieg import engine as engines
from klieg import propagation
from klieg import session as process_session
from klieg.concurrency.call import Call
from klieg.concurrency.executors import run_sync
from klieg.concurrency.generators import Stream
from klieg.concurrency.host import Host, has_hook, limits_of
from klieg.concurrency.watchdog import Watchdog
from klieg.engines import failures, serialization
from klieg.engines.calls import cancelled_error, expired_error
from klieg.engines.functions import Exported, Imports
from klieg.engines.loops import new_loop, watched
from klieg.engines.objects import ObjectFuture
from klieg.engines.ray import parcels
from klieg.engines.ray.actors import RayToken
from klieg.engines.ray.engine import RayEngine, payload_in
from klieg.engines.ray.environments import of_this_process
from klieg.engines.ray.interrupts import Interrupts
from klieg.engines.ray.messages import (
    ERROR,
    EXPIRED,
    HOOK_GRACE,
    ITEM,
    LARGE,
    SPECS_KEPT,
    VALUE,
    VALUES,
    ActorFacts,
    CallRecord,
    Message,
    Record,
    Session,
    SpecRecord,
    close,
    open_,
)
from klieg.engines.ray.trouble import quote
from klieg.engines.returns import split_returns
from klieg.engines.unpicklable import explain_value
from klieg.outcome import Serialized
from klieg.placement import Placement
from klieg.task import ClassInfo, FunctionSpec, TaskSpec

logger = logging.getLogger("klieg")

EXCHANGES: Final = 100_000
"""Ray calls that an actor may have open: one for each caller that waits, and a few that just bring calls."""

NOTES_KEPT: Final = 1000
"""What was said of calls that are not here is kept for so many of them; a guess."""

RUNTIME_ENDED: Final = "The actor is dead because its runtime was shut down."

LOOP_WAITS: Final = 0.005
"""Seconds for which the calls of a plain actor keep the loop of their thread waiting, or one call; as long as Python
lets one thread keep another waiting."""

EXIT_GRACE: Final = 1.0
"""Seconds that callers get to fetch the last outcomes of an actor that exits, and leftover tasks to clean up."""


def join(session: Session, in_task: bool) -> RayEngine:
    """The engine of this process for the runtime; Ray gives one process to one runtime after another."""
    engine = engines.current_or_none()
    if isinstance(engine, RayEngine) and engine.session.key == session.key:
        return engine
    if isinstance(engine, RayEngine):
        engine.shutdown()
    sys.path.extend(path for path in session.paths if path not in sys.path and os.path.isdir(path))
    engine = RayEngine(session, host_actor, in_task)
    engines.use(engine)
    process_session.settings = session.settings
    process_session.environment = of_this_process(session.shipped)
    propagation.use(session.settings.propagate, session.settings.traces)
    return engine


_imports = Imports()


# Actors


class KnownSpec:
    """A spec that a caller has described: what all its calls have in common."""

    __slots__ = ("function", "spec", "target")

    def __init__(self, spec: TaskSpec, exported: Exported | None, host: Host, placement: Placement) -> None:
        self.spec = spec if exported is None else spec.replace(function=stand_in(spec, placement))
        self.target = host.special(spec.method)
        self.function = None if exported is None else exported.key
        if exported is not None:
            _imports.add(exported.key, exported.data)


def stand_in(spec: TaskSpec, placement: Placement) -> FunctionSpec:
    """Says that the spec is a task's; the function itself is loaded when it is called."""
    return FunctionSpec(_absent, spec.name, placement)


def _absent() -> None:
    return


class Delivery(Call):
    """A call that came in an exchange."""

    __slots__ = ("function", "home", "line", "payload", "values")

    def __init__(
        self, home: HostActor, line: Line | Reply, number: int, known: KnownSpec, payload: Serialized, values: Any
    ) -> None:
        super().__init__(number, line.caller, known.spec, known.target)
        self.home = home
        self.line = line
        self.function = known.function
        self.payload: Serialized | None = payload
        self.values: list[tuple[int | str, Serialized]] | None = values

    def large(self) -> list[parcels.Stored]:
        """What of the arguments is in Ray's store."""
        values = self.values or ()
        return [p for p in (self.payload, *(value for _, value in values)) if isinstance(p, parcels.Stored)]

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.function is not None:
            self.target = _imports.load(self.function)
        payload, self.payload = self.payload, None
        values, self.values = self.values, None
        return serialization.loads_arguments(payload or b"", values)

    def succeed(self, value: Any) -> None:
        try:
            payloads = split_returns(value, self.spec, parcels.raw)
        except BaseException as error:
            self.fail(error)
            return
        boxed = [self.home.box(payload) for payload in payloads]
        self.line.finish((self.id, VALUE, boxed[0]) if len(boxed) == 1 else (self.id, VALUES, boxed))

    def fail(self, error: BaseException) -> None:
        self.line.finish((self.id, ERROR, failures.dumps(error, self.spec.name)))

    def open_stream(self) -> Stream:
        self.stream = Stream(self._emit, self.spec.backpressure)
        self.take_grant(self.stream)
        return self.stream

    def take_grant(self, stream: Stream) -> None:
        """Tell the stream what its consumer has said. Whoever of grant and stream comes second sees the other."""
        taken = self.home.grants.pop((self.caller, self.id), 0)
        if taken < 0:
            stream.close()
        else:
            stream.grant(taken)

    def _emit(self, index: int, item: Any) -> None:
        try:
            payload = _dumps_raw(item)
        except Exception as error:
            raise explain_value(error, f"item {index} of {self.spec.name}()", item) from error
        assert isinstance(self.line, Line)  # a stream never comes as a direct call
        self.line.add((self.id, ITEM, index, self.home.box(payload)))


class Construction(Call):
    """The first call of an actor. Its outcome is that of the Ray actor's own constructor."""

    __slots__ = ("done", "loop", "opened")

    def __init__(self, spec: TaskSpec, caller: int, opened: Callable[[], Any]) -> None:
        super().__init__(0, caller, spec, None)
        self.opened = opened
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[BaseException | None] = self.loop.create_future()

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments: tuple[tuple[Any, ...], dict[str, Any]] = self.opened()
        return arguments

    def succeed(self, value: Any) -> None:
        self._end(None)

    def fail(self, error: BaseException) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.loop.call_soon_threadsafe(self.done.set_result, error)


class Line:
    """One caller, as the actor sees it: its exchanges in their order, and the outcomes that wait to be fetched."""

    def __init__(self, caller: int, loop: asyncio.AbstractEventLoop) -> None:
        self.caller = caller
        self.specs: dict[int, KnownSpec] = {}
        self.unfinished = 0
        self.loop = loop
        """What the exchanges are taken on."""
        self._loop_thread = threading.get_ident()
        self._next = 0
        self._early: dict[int, asyncio.Future[None]] = {}
        self._records: deque[Record] = deque()
        self._returned = 0
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self.lock = threading.Lock()
        self.closing = False
        self._empty: asyncio.Future[None] | None = None
        """Set when the last records are fetched, once the actor waits for that."""

    async def turn(self, number: int) -> None:
        """Wait until every earlier exchange has delivered its calls: Ray may start them in another order."""
        with self.lock:
            if number == self._next:
                return
            come = self._early[number] = self.loop.create_future()
        await come

    def next(self) -> None:
        """The exchange whose turn it was has delivered its calls; from any thread."""
        with self.lock:
            self._next += 1
            following = self._early.pop(self._next, None)
        if following is None:
            return
        if threading.get_ident() == self._loop_thread:
            _settle(following)
        else:
            self.loop.call_soon_threadsafe(_settle, following)

    def finish(self, record: Record) -> None:
        """A call has its outcome; from any thread."""
        with self.lock:
            self.unfinished -= 1
        self.add(record)

    def add(self, record: Record) -> None:
        self._records.append(record)
        if self._waiter is None or self._woken:
            return
        self._woken = True
        if threading.get_ident() == self._loop_thread:
            self._wake()
        else:
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = False
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def fetch(self) -> Message:
        """What is ready; waits for it if no other exchange of this caller does."""
        if not self._records and self._waiter is None and self.unfinished and not self.closing:
            self._waiter = self.loop.create_future()
            if not self._records:  # one may have come from another thread before it could see the waiter
                await self._waiter
            self._waiter = None
        records = []
        while self._records:
            records.append(self._records.popleft())
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        turn = self._returned
        self._returned += 1
        return close((turn, records), all(type(record[-1]) is bytes for record in records))

    async def close(self, patience: float) -> None:
        """The actor exits: let nobody wait for more, and give the caller some seconds to fetch what there is."""
        self.closing = True
        self._wake()
        if self._records and patience > 0:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=patience)


class Reply:
    """Where the outcome of a direct call goes: home with the Ray call that brought it."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self.caller = line.caller
        self.specs = line.specs
        self.record: Record = ()
        self._loop = loop
        self._come = loop.create_future()

    def finish(self, record: Record) -> None:
        self.record = record
        self._loop.call_soon_threadsafe(_settle, self._come)

    async def wait(self) -> Message:
        await self._come
        return close((0, [self.record]), type(self.record[-1]) is bytes)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


M = TypeVar("M", bound=Callable[..., Any])
N = TypeVar("N")


def _control(method: M) -> M:
    """A method that acts on the queue from outside it: it runs on a loop of its own, whatever the actor does."""
    declared: M = ray.method(concurrency_group="control")(method)
    return declared


class HostActor:
    """The Ray actor that is one klieg actor."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, session: Session, facts: ActorFacts, arguments: Any, places: list[Any], *values: Any
    ) -> None:
        self.engine = join(session, in_task=False)
        self.engine.promise = self._promise
        self.facts = facts
        self.grants: dict[tuple[int, int], int] = {}
        """What consumers of generators have said before the generator ran."""
        self._cancels: dict[tuple[int, int], tuple[int, bool]] = {}
        """Calls that are to end and have not arrived: a cancel travels beside the exchanges and may overtake them."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._main_on_loop = facts.mode == "plain"
        self._main_scheduled = False
        self._replies = 0
        """Direct calls that have not gone home."""
        self._lines: dict[int, Line] = {}
        self._large: dict[int, Serialized] = {}
        self._promised: dict[int, ObjectFuture] = {}
        self._exchanging: set[asyncio.Task[Any]] = set()
        self._leaving = False
        self._farewell_wanted = False
        self._said_farewell = threading.Event()
        self._constructed = facts.cls is None
        self._me = _own_handle()
        self.host = self._make_host()
        process_session.worker_host = self.engine.host = self.host
        if facts.cls is None:
            return
        cls = facts.cls
        opened = functools.partial(self._open_arguments, arguments, places, values)
        call = Construction(TaskSpec(f"{self.host.name}.__init__", method="__init__"), self.engine.process, opened)
        self.host.construct(lambda: pickle.loads(cls), call)
        error = await call.done
        if error is not None:
            raise _printable(error, call.spec.name)
        self._constructed = True

    def _make_host(self) -> Host:
        facts = self.facts
        info: ClassInfo = pickle.loads(facts.info)
        bell = threading.Semaphore(0)
        host = Host(
            info.name,
            facts.mode,  # type: ignore[arg-type]  # from the description
            limits_of(info.is_async, facts.max_concurrency, info.groups) | self._resized(),
            wait=bell.acquire,
            look=_nothing,
            wake=self._run_soon if self._main_on_loop else bell.release,
            start_thread=_start_thread,
            on_exit=self._exit_soon,
            loop=watched(self._loop) if facts.mode == "async" else None,
            own_loops=info.own_loops,
            new_loop=new_loop,
            runs_tasks=facts.cls is None,
        )
        Watchdog(host, self.engine.call_at, logger.warning, process_session.settings.thresholds())
        if facts.cls is None:
            host.open(None)
            self._lend_thread(host)
            return host
        host.placement = facts.placement
        host.gpus = gpus_of_this_process()
        _capture(facts.placement)
        host.info = info
        host.actor_name = facts.name
        host.token = RayToken(facts.number, self.engine._channel(facts.number, info.name), self._me, counted=False)
        host.restarted = _was_restarted()
        self._lend_thread(host)
        return host

    def _resized(self) -> dict[str, int]:
        """The limits that an earlier incarnation of this actor was given while it lived."""
        return self.engine.limits_of(self.facts.number) if _was_restarted() else {}

    def _lend_thread(self, host: Host) -> None:
        """Start what runs the constructor, and the calls of all but a threaded actor."""
        if host.loop is not None:
            host.loop.adopt_thread()
        elif self._main_on_loop:
            asyncio.set_event_loop(None)  # what runs here between two steps of the loop is not to find it
        else:
            _start_thread(functools.partial(self._run_main, host), "klieg main")

    def _run_main(self, host: Host) -> None:
        """The thread of an actor that is not async: its constructor, its calls and its farewell."""
        host.main.run()
        self._say_farewell()

    def _run_soon(self) -> None:
        """Have the loop's thread run what is ready, between two steps of the loop; from any thread."""
        if self._main_scheduled:
            return
        self._main_scheduled = True
        if threading.get_ident() == self._loop_thread:
            self._loop.call_soon(self._run_ready)
        else:
            self._loop.call_soon_threadsafe(self._run_ready)

    def _run_ready(self) -> None:
        """Run calls, which must not see that their thread has a loop. It gets its turn every few milliseconds, and
        whenever a direct call may go home: two steps later Ray has been told."""
        main, until, replies = self.host.main, time.monotonic() + LOOP_WAITS, self._replies
        self._main_scheduled = False
        with _no_loop_here(self._loop):
            while main.ready and not main.stopped:
                main.run_one()
                if replies or time.monotonic() > until:
                    break
        if main.ready and not self._main_scheduled:
            self._main_scheduled = True
            self._loop.call_soon(self._loop.call_soon, self._loop.call_soon, self._run_ready)

    def _say_farewell_on_loop(self) -> None:
        with _no_loop_here(self._loop):
            self._say_farewell()

    def _say_farewell(self) -> None:
        """Run the actor's shutdown hook on its thread; on an async actor's loop it is awaited by a task."""
        if self._farewell_wanted:
            self.host.say_farewell(HOOK_GRACE)
        self._said_farewell.set()

    async def _say_farewell_here(self) -> None:
        if self._farewell_wanted:
            await self.host.say_farewell_here(HOOK_GRACE)
        self._said_farewell.set()

    def _open_arguments(self, arguments: Any, places: list[Any], values: tuple[Any, ...]) -> Any:
        recognize = self.engine.recognize
        opened = [(place, payload_in(self.engine, value[0])) for place, value in zip(places, values, strict=True)]
        return serialization.loads_arguments(parcels.unwrap(arguments, recognize), opened)

    # What callers do

    async def exchange(self, message: Message) -> Message | None:
        """Take calls, give outcomes. None if this incarnation has never heard of the caller."""
        return await self._exchange(message)

    @_control
    async def exchange_aside(self, message: Message) -> Message | None:
        """The same, while the actor's own loop is held."""
        return await self._exchange(message)

    async def direct(self, message: Message) -> Message | None:
        """Take the only call of a caller that has nothing else under way, and give its outcome."""
        line_number, _, specs, calls = open_(message)
        line = self._lines.get(line_number)
        if line is None:
            return None
        self._replies += 1
        try:
            reply = Reply(line, self._loop)
            self._learn(line, specs)
            self._deliver(self._open(reply, calls[0]))
            line.next()
            return await reply.wait()
        finally:
            self._replies -= 1

    async def _exchange(self, message: Message) -> Message | None:
        line_number, number, specs, calls = open_(message)
        line = self._lines.get(line_number)
        if line is None:
            return None
        task = asyncio.current_task()
        assert task is not None
        self._exchanging.add(task)
        try:
            await line.turn(number)
            self._learn(line, specs)
            for record in calls:
                call = self._open(line, record)
                for payload in call.large():
                    await payload.fetch()
                with line.lock:
                    line.unfinished += 1
                self._deliver(call)
            line.next()
            return await line.fetch()
        finally:
            self._exchanging.discard(task)

    def _deliver(self, call: Delivery) -> None:
        self.host.deliver(call)
        if self._cancels:
            self._cancel_arrived(call)

    def _learn(self, line: Line, specs: list[SpecRecord]) -> None:
        for number, spec, exported in specs:
            line.specs[number] = KnownSpec(spec, exported, self.host, self.facts.placement)
            if len(line.specs) > 2 * SPECS_KEPT:
                del line.specs[next(iter(line.specs))]

    def _open(self, line: Line | Reply, record: CallRecord) -> Delivery:
        number, spec_number, arguments, values, seconds = record
        recognize = self.engine.recognize
        payload = parcels.unwrap(arguments, recognize)
        opened = values and [(place, parcels.unwrap(value, recognize)) for place, value in values]
        call = Delivery(self, line, number, line.specs[spec_number], payload, opened)
        if seconds is not None:
            call.deadline = time.monotonic() + seconds
        return call

    def box(self, payload: Serialized) -> Any:
        """A payload on its way to a caller, who will ask for the contents if they are large."""
        if parcels.size_of(payload) <= parcels.INLINE_LIMIT:
            return parcels.wrap(parcels.keep(payload), self.engine.describe)
        key = self.engine.next_number()
        self._large[key] = payload
        named = () if isinstance(payload, bytes) else payload.refs
        return LARGE, key, [self.engine.describe(each) for each in named]

    @_control
    async def hello(self, line_number: int, process: int) -> tuple[str, bool]:
        """A caller introduces itself; it learns that this incarnation is alive, the method for its exchanges, and
        whether a lone call may come directly."""
        if self.host.own_loops.groups or self._main_on_loop:
            self._open_line(line_number, Line(process, asyncio.get_running_loop()))
            return "exchange_aside", self._main_on_loop
        opening = asyncio.run_coroutine_threadsafe(self._open_line_here(line_number, process), self._loop)
        await asyncio.wrap_future(opening)
        return "exchange", False

    async def _open_line_here(self, number: int, process: int) -> None:
        self._open_line(number, Line(process, self._loop))

    def _open_line(self, number: int, line: Line) -> None:
        self._lines.setdefault(number, line)

    @_control
    async def take(self, key: int) -> list[parcels.Contents]:
        """The contents of a large value, which become Ray's, owned by the caller."""
        return [parcels.contents_of(self._large.pop(key))]

    @_control
    async def cancel(self, caller: int, number: int, why: int, recursive: bool) -> bool:
        """True if the call has not arrived, or has ended: in either case it will not start any more."""
        _remember(self._cancels, (caller, number), (why, recursive))
        call = self.host.calls.get((caller, number))
        if call is not None:
            self._cancel_arrived(call)
        return call is None

    def _cancel_arrived(self, call: Call) -> None:
        """End the call if somebody has asked for that. Whoever of cancel and call comes second sees the other."""
        asked = self._cancels.pop((call.caller, call.id), None)
        if asked is None:
            return
        why, recursive = asked
        error = expired_error(call.spec) if why == EXPIRED else cancelled_error(call.spec)
        self.host.cancel(call.caller, call.id, error)
        if recursive:
            self.engine.cancel_children(call)

    @_control
    async def grant(self, caller: int, number: int, taken: int) -> None:
        _remember(self.grants, (caller, number), taken)
        call = self.host.calls.get((caller, number))
        if isinstance(call, Delivery) and call.stream is not None:
            call.take_grant(call.stream)

    @_control
    async def describe(self) -> tuple[int, bytes]:
        return self.facts.number, self.facts.info

    @_control
    async def snapshot(self) -> dict[str, Any]:
        return self.engine.own_snapshot()

    @_control
    async def stats(self) -> dict[str, dict[str, int]]:
        return self.host.stats()

    @_control
    async def resize(self, limits: Mapping[str, int]) -> dict[str, int] | ValueError:
        """The limits of all groups now, or what is wrong with the new ones; nothing is changed then."""
        try:
            self.host.resize(limits)
        except ValueError as error:
            return error
        return {name: group["limit"] for name, group in self.host.stats().items()}

    # Promises of this process, which Ray can call

    def _promise(self, future: ObjectFuture) -> Any:
        self._promised[future.id] = future
        return self._me.keep_promise.remote(future.id)

    @_control
    async def keep_promise(self, number: int) -> list[Record]:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        future = self._promised.pop(number)
        future.want()
        future.add_callback(lambda _: _on_loop(loop, arrived.set))
        await arrived.wait()
        return [self.engine.record_of(future)]

    # The end

    def _exit_soon(self, reason: str) -> None:
        """The host has nothing left to run and wants to leave; from any thread."""
        if not self._constructed:
            return  # what the Ray actor's own constructor raises ends it
        if not self._leaving:
            self._leaving = True
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._leave()))

    async def _leave(self) -> None:
        await self._clean_up()
        deadline = time.monotonic() + EXIT_GRACE
        for line in self._lines.values():
            closing = asyncio.run_coroutine_threadsafe(line.close(deadline - time.monotonic()), line.loop)
            await asyncio.wrap_future(closing)
        self._me.leave.remote()

    async def _clean_up(self) -> None:
        """Cancel what the actor's calls have left on the loop, and let go of its state."""
        own = {*self._exchanging, asyncio.current_task()}
        left = asyncio.all_tasks() - own if self.host.mode == "async" else set()
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=EXIT_GRACE)
        self._farewell_wanted = self._constructed and has_hook(type(self.host.instance))
        self.host.main.stop()
        if self.host.loop is not None:
            await self._say_farewell_here()
        elif self._main_on_loop:
            self._say_farewell_on_loop()
        elif self._farewell_wanted:
            await asyncio.to_thread(self._said_farewell.wait, HOOK_GRACE)
        self.host.instance = None
        self.host.pool.stop()
        self.host.own_loops.stop()

    def __ray_shutdown__(self) -> None:
        """Ray ends the actor, for it has done what it was asked and nobody names it any more."""
        if not self._leaving and self._constructed and has_hook(type(self.host.instance)):
            self._leaving = self._farewell_wanted = True
            self.host.main.stop()
            if self.host.loop is not None and not self._loop.is_running():
                self._loop.run_until_complete(self._say_farewell_here())
            elif self.host.loop is not None:
                asyncio.run_coroutine_threadsafe(self._say_farewell_here(), self._loop)
            elif self._main_on_loop and self._loop.is_running():
                self._loop.call_soon_threadsafe(self._say_farewell_on_loop)
            elif self._main_on_loop:
                self._say_farewell()
            self._said_farewell.wait(HOOK_GRACE)
        self.host.instance = None

    @_control
    async def end(self) -> None:
        """The runtime ends: leave, when what runs has ended. Answered by the death of the actor."""
        self.host.end_soon(RUNTIME_ENDED)
        await asyncio.Event().wait()

    @_control
    async def leave(self) -> None:
        ray.actor.exit_actor()

    def __repr__(self) -> str:
        return f"{self.host.name}()" if hasattr(self, "host") else "klieg actor"


def _remember(notes: dict[tuple[int, int], N], key: tuple[int, int], note: N) -> None:
    """Keep a note for a call that may come, or may have ended long ago: the oldest notes go."""
    notes[key] = note
    if len(notes) > NOTES_KEPT:
        notes.pop(next(iter(notes)), None)


@contextlib.contextmanager
def _no_loop_here(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While the user's code runs on this thread, the thread has no running loop: it may run one of its own."""
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


def gpus_of_this_process() -> list[str]:
    """The names of the GPUs that Ray has given to this worker."""
    return [str(name) for name in ray.get_gpu_ids()]


def _capture(placement: Placement) -> None:
    """What is called from here runs in the same placement group, if it is to."""
    process_session.capturing = process_session.capturing or placement.captures


def _own_handle() -> Any:
    """The handle of the Ray actor that asks; it does not keep the actor alive."""
    with _quietly():
        return ray.get_runtime_context().current_actor


def _was_restarted() -> bool:
    with _quietly():
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Ray itself uses deprecated names of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def host_actor() -> Any:
    """`HostActor` as Ray's actor class."""
    return ray.remote(concurrency_groups={"control": EXCHANGES}, max_concurrency=EXCHANGES)(HostActor)


def _printable(error: BaseException, name: str) -> Exception:
    """What the Ray actor's constructor raises: Ray shows its text to every caller."""
    return RuntimeError(quote(failures.format_traceback(error, name)))


def _dumps_raw(value: Any) -> Serialized:
    return serialization.dumps(value, parcels.raw)


def _start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


# Tasks


class TaskCall(Call):
    """The call that a Ray task carries out, on the thread that Ray runs it on."""

    __slots__ = ("contents", "engine", "exported", "payload", "records", "values")

    def __init__(
        self, engine: RayEngine, exported: Exported, spec: TaskSpec, caller: int, number: int, payload: Any, values: Any
    ) -> None:
        super().__init__(number, caller, spec, None)
        self.engine = engine
        self.exported = exported
        self.payload = payload
        self.values = values
        self.records: list[Record] = []
        self.contents: list[parcels.Contents] = []

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        _imports.add(self.exported.key, self.exported.data)
        self.target = _imports.load(self.exported.key)
        recognize = self.engine.recognize
        values = self.values and [(place, parcels.unwrap(value, recognize)) for place, value in self.values]
        return serialization.loads_arguments(parcels.unwrap(self.payload, recognize), values)

    def succeed(self, value: Any) -> None:
        try:
            payloads = split_returns(value, self.spec, parcels.raw)
        except BaseException as error:
            self.fail(error)
            return
        self.records = [(VALUE, self._box(payload)) for payload in payloads]

    def _box(self, payload: Serialized) -> Any:
        if parcels.size_of(payload) <= parcels.INLINE_LIMIT:
            return parcels.wrap(parcels.keep(payload), self.engine.describe)
        self.contents.append(parcels.contents_of(payload))
        named = () if isinstance(payload, bytes) else payload.refs
        return LARGE, len(self.contents) - 1, [self.engine.describe(each) for each in named]

    def fail(self, error: BaseException) -> None:
        self.records = [(ERROR, failures.dumps(error, self.spec.name))]


@functools.cache
def _task_host() -> Host:
    """The host that the tasks of this process name as theirs; it queues nothing, since Ray does."""
    host = Host(
        "task",
        "plain",
        {"default": 1},
        wait=_nothing,
        look=_nothing,
        wake=_nothing,
        start_thread=_start_thread,
        on_exit=lambda reason: None,
        runs_tasks=True,
    )
    host.open(None)
    return host


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(function)


def _nothing(*_: object) -> None:
    return


def run_task(
    session: Session,
    exported: Exported,
    placement: Placement,
    spec: TaskSpec,
    caller: int,
    number: int,
    payload: Any,
    values: Any,
    seconds: float | None,
) -> tuple[list[Record], list[parcels.Contents]]:
    """Carry out one task: its records, and the contents of what is large among its values."""
    engine = join(session, in_task=True)
    call = TaskCall(engine, exported, spec.replace(function=stand_in(spec, placement)), caller, number, payload, values)
    if seconds is not None:
        call.deadline = time.monotonic() + seconds
    _capture(placement)
    call.host = process_session.worker_host = _task_host()
    call.host.gpus = gpus_of_this_process()
    with Interrupts.of_this_process().during(call):
        run_sync(call)
    if call.cancelled is not None:
        engine.cancel_children(call)
    return call.records, call.contents
