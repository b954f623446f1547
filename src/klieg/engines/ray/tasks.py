"""Tasks: each is one Ray task, which opens klieg's payload, runs the function and returns klieg's outcome.

A task returns two Ray objects: its records, small enough to come with Ray's own answer, and the contents of what is
large, which stay on the node until somebody opens them.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ray

from klieg.engines import failures
from klieg.engines.calls import Channel, OutgoingCall
from klieg.engines.functions import Exported
from klieg.engines.placement_groups import REMOVED
from klieg.engines.ray import parcels
from klieg.engines.ray.actors import RayToken, portable
from klieg.engines.ray.messages import ERROR, VALUE, Record, Session
from klieg.engines.ray.placing import options_of
from klieg.engines.ray.trouble import task_trouble
from klieg.exceptions import RuntimeShutdownError, TaskPlacementGroupRemoved
from klieg.ids import COUNTER_MASK
from klieg.outcome import Error, Serialized, Value
from klieg.placement import Placement
from klieg.task import STREAMS, FunctionSpec, TaskSpec

if TYPE_CHECKING:
    from klieg.engines.ray.engine import RayEngine

OPTIONS_KEPT: Final = 500
"""Specs whose Ray options are remembered."""


class TaskRun:
    """A call that Ray has been given."""

    __slots__ = ("contents", "records")

    def __init__(self, records: Any, contents: Any) -> None:
        self.records = records
        self.contents = contents


class TaskChannel(Channel):
    """All tasks of this process."""

    def __init__(self, engine: RayEngine) -> None:
        super().__init__(strict=False)
        self.engine = engine
        self._under_way: dict[int, OutgoingCall] = {}
        self._functions: dict[FunctionSpec, Any] = {}
        self._configured: dict[TaskSpec, Any] = {}

    target = "a Ray task"

    def under_way(self) -> list[OutgoingCall]:
        """The calls that Ray has been given and that have no outcome yet."""
        return list(self._under_way.values())

    def send(self, call: OutgoingCall) -> None:
        function = call.spec.function
        if function is not None and self.engine.groups.was_removed(function.placement):
            call.fail(_group_removed(call))
            return
        describe = self.engine.describe
        values = [(place, parcels.wrap(value, describe)) for place, value in call.values() or ()]
        records, contents = self._remote_function(call.spec).remote(
            portable(call.spec),
            self.engine.process,
            call.id & COUNTER_MASK,
            parcels.wrap(call.payload, describe),
            values,
            None if call.deadline is None else call.deadline - time.monotonic(),
        )
        call.peer = TaskRun(records, contents)
        self._under_way[call.id] = call
        self.engine.expect(records, lambda answer: self._came_home(call, contents, answer))

    def _remote_function(self, spec: TaskSpec) -> Any:
        configured = self._configured.get(spec)
        if configured is None:
            function = spec.function
            assert function is not None
            options = options_of(function.placement, self.engine.groups, self.engine.environment)
            configured = self._made(function).options(
                **options, name=spec.name, num_returns=2, max_retries=spec.max_retries
            )
            self._configured[spec] = configured
            if len(self._configured) > OPTIONS_KEPT:
                del self._configured[next(iter(self._configured))]
        return configured

    def _made(self, function: FunctionSpec) -> Any:
        """The function as Ray knows it."""
        made = self._functions.get(function)
        if made is None:
            placement = dataclasses.replace(function.placement, said={})
            task = _make_task(self.engine.exports.function(function), placement, self.engine.session)
            made = self._functions[function] = ray.remote(max_calls=function.max_calls)(task)
        return made

    def _came_home(self, call: OutgoingCall, contents: Any, answer: Any) -> None:
        if self._under_way.pop(call.id, None) is None:
            return  # shut down, or cancelled, meanwhile
        if isinstance(answer, Exception):
            contents._on_completed(_ignore)  # the same error: Ray would report it as one that nobody has read
            call.fail(task_trouble(answer, call.spec.name))
            return
        outcomes = [open_record(self.engine, record, contents) for record in answer]
        first = outcomes[0]
        if isinstance(first, Error):
            self._failed(call, first)
        elif len(call.futures) == 1:
            call.resolve(first)
        else:
            call.resolve_each([outcome.payload for outcome in outcomes])

    def _failed(self, call: OutgoingCall, failure: Error) -> None:
        assert isinstance(failure.payload, bytes)
        if call.takes_another_try(failure.payload):
            call.peer = None
            self.send(call)
        else:
            call.resolve(failure)

    def fail_in(self, group: int) -> None:
        """The placement group was removed: its tasks fail, whether they run or wait."""
        for call in self.under_way():
            place = call.spec.function.placement.place if call.spec.function is not None else None
            if place is not None and place[0] == group and self._under_way.pop(call.id, None) is not None:
                ray.cancel(call.peer.records, force=True)
                call.fail(_group_removed(call))

    def fail_all(self) -> None:
        for number in list(self._under_way):
            call = self._under_way.pop(number, None)
            if call is not None:
                call.fail(RuntimeShutdownError())
        self.fail_held(RuntimeShutdownError)


def _group_removed(call: OutgoingCall) -> TaskPlacementGroupRemoved:
    return TaskPlacementGroupRemoved(f"The task {call.spec.name} cannot run: {REMOVED}")


def _ignore(value: Any) -> None:
    return


class Workers:
    """Actors that carry out tasks: those of a generator, which needs to hear from its consumer, one actor each, and
    async ones, of which several share an actor's loop. They live as long as they have calls."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self._shared: dict[FunctionSpec, weakref.WeakSet[RayToken]] = {}
        self._lock = threading.Lock()

    def find(self, spec: TaskSpec) -> RayToken | None:
        """Who is to run a call; None for Ray itself."""
        function = spec.function
        assert function is not None
        if function.max_concurrency > 1:
            with self._lock:
                return self._least_busy(spec, function)
        return self._engine.create_worker(spec) if spec.num_returns in STREAMS else None

    def _least_busy(self, spec: TaskSpec, function: FunctionSpec) -> RayToken:
        shared = self._shared.setdefault(function, weakref.WeakSet())
        tokens = sorted(shared, key=_load)
        if tokens and (_load(tokens[0]) < function.max_concurrency or len(tokens) >= self._most(function)):
            return tokens[0]
        token = self._engine.create_worker(spec)
        shared.add(token)
        return token

    def _most(self, function: FunctionSpec) -> int:
        """How many workers of the function the cluster can hold."""
        total = self._engine.resources()[0]
        return max(1, min((int(total.get(key, 0) / amount) for key, amount in function.demand.items()), default=1))


def _load(token: RayToken) -> int:
    load: int = token.channel.load()
    return load


def _make_task(exported: Exported, placement: Placement, session: Session) -> Callable[..., Any]:
    """The Ray function for a klieg function: Ray pickles it once, with what it needs to be klieg's."""

    def klieg_task(*call: Any) -> Any:
        from klieg.engines.ray.worker import run_task  # on the node, once Ray has brought klieg there

        return run_task(session, exported, placement, *call)

    return klieg_task


def open_record(engine: RayEngine, record: Record, contents: Any) -> Value | Error:
    """The outcome that a task has returned; `contents` is the Ray ref of what is large."""
    kind, content = record
    if kind == ERROR:
        return Error(content)
    return Value(_open(engine, content, contents))


def _open(engine: RayEngine, parcel: Any, contents: Any) -> Serialized:
    if isinstance(parcel, tuple) and isinstance(parcel[0], int):
        return parcels.Stored(contents, parcel[1], tuple(engine.recognize(each) for each in parcel[2]))
    return parcels.unwrap(parcel, engine.recognize)


def make_record(engine: RayEngine, outcome: Value | Error) -> Record:
    """The outcome of a finished future, for another process."""
    if isinstance(outcome, Error):
        outcome.unread = False
        return ERROR, outcome.payload
    return VALUE, parcels.wrap(outcome.payload, engine.describe)


def failed(error: BaseException, name: str) -> Record:
    return ERROR, failures.dumps(error, name)
