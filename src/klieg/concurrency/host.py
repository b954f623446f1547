"""How one actor runs many calls: its mailbox, its executors, its life from constructor to exit.

    deliver ──► mailbox ──► executor ──► the user's method ──► call.succeed / call.fail
                   ▲                                                     │
                   └────────────── finished: the next call ◄─────────────┘

The same class runs the tasks of a task worker, which is an actor without an instance.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from klieg.concurrency import recording
from klieg.concurrency.call import DONE, RUNNING, SPENT, Call, Executor, ExitActor
from klieg.concurrency.executors import LoopExecutor, MainExecutor, PoolExecutor, StartThread
from klieg.concurrency.groups import Mailbox
from klieg.concurrency.loops import WatchedLoop
from klieg.concurrency.own_loops import OwnLoops
from klieg.exceptions import ActorDiedError, AsyncioActorExit, WorkerCrashedError
from klieg.options import DEFAULT_ASYNC_CONCURRENCY, DEFAULT_GROUP
from klieg.placement import ANYWHERE
from klieg.task import TaskSpec

logger = logging.getLogger("klieg")

Mode = Literal["plain", "threaded", "async"]


def mode_of(is_async: bool, max_concurrency: int | None, groups: Mapping[str, int]) -> Mode:
    """How an actor with these options runs its calls (design.md, section 4)."""
    if is_async:
        return "async"
    return "threaded" if (max_concurrency or 1) > 1 or groups else "plain"


def limits_of(is_async: bool, max_concurrency: int | None, groups: Mapping[str, int]) -> dict[str, int]:
    """The limit of each group; `default` is one like any other, and may be declared."""
    default = max_concurrency or (DEFAULT_ASYNC_CONCURRENCY if is_async else 1)
    return {DEFAULT_GROUP: default, **groups}


def _no_loop() -> WatchedLoop:
    raise AssertionError("this host has no group with a loop of its own")


class Host:
    """Runs the calls of one actor. An engine makes one, feeds it calls and lends it a main thread or a loop."""

    def __init__(
        self,
        name: str,
        mode: Mode,
        limits: Mapping[str, int],
        *,
        wait: Callable[[], object],
        look: Callable[[float], None],
        wake: Callable[[], None],
        start_thread: StartThread,
        on_exit: Callable[[str], None],
        loop: WatchedLoop | None = None,
        own_loops: frozenset[str] = frozenset(),
        new_loop: Callable[[], WatchedLoop] = _no_loop,
        interrupt: Callable[[Call], None] | None = None,
        runs_tasks: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            wait: sleeps on the main thread until there may be a call to run.
            look: takes up what has come since a moment of the clock, when the last call of the main thread began.
            wake: ends `wait`; from any thread.
            loop: what the calls of an async actor run on; None for the others.
            own_loops: groups whose calls run on a loop of their own, which `new_loop` makes.
        """
        self.name = name
        self.clock = clock
        self.mode = mode
        self.mailbox = Mailbox(limits)
        self.instance: Any = None
        self.calls: dict[tuple[int, int], Call] = {}
        """Every call that has no outcome yet, by caller and id."""
        self._constructor: Call | None = None
        self.runs_tasks = runs_tasks
        self.token: Any = None
        """The actor's own token, for `current_actor`; None for tasks."""
        self.info: Any = None
        self.actor_name = ""
        self.placement = ANYWHERE
        """Where the actor lives, and what it holds as long as it does."""
        self.gpus: list[str] = []
        """The names of the GPUs that are the actor's, or the task worker's."""
        self.restarted = False
        self.interrupted: deque[Call] = deque()
        """Calls that were cancelled while they ran, for the watchdog to look after."""
        self.opened = 0.0
        """When the constructor had returned, a time of the clock."""
        self.unwatched = False
        """True while there is a watchdog that does not look, since there are no calls."""
        self.watch: Callable[[], None] = _nothing
        """Wakes the watchdog."""
        self.exit_reason: str | None = None
        """Set once the actor is to exit; nothing new is started from then on."""
        self._lock = threading.RLock()
        self._admitted: deque[Call] | None = None
        """Calls that may run and are being started, in order; None at nearly all times."""
        self._on_exit = on_exit
        self.main = MainExecutor(self._finished, wait, look, wake, interrupt)
        self.pool = PoolExecutor(self._finished, start_thread, name)
        self.loop = LoopExecutor(loop, self._finished) if loop is not None else None
        self.own_loops = OwnLoops(own_loops, name, new_loop, self._finished, start_thread)

    def construct(self, load: Callable[[], type[Any]], call: Call) -> None:
        """Load the class and run its constructor, where this kind of actor does; other calls wait for its return."""

        def build(*args: Any, **kwargs: Any) -> Any:
            cls = load()
            if inspect.iscoroutinefunction(cls.__init__):
                return self._build_async(cls, args, kwargs)
            self.open(cls(*args, **kwargs))
            return None

        self._constructor = call
        call.host = self
        call.target = build
        (self.loop or self.main).start(call)

    async def _build_async(self, cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        instance = cls.__new__(cls, *args, **kwargs)
        await instance.__init__(*args, **kwargs)
        self.open(instance)

    def open(self, instance: Any) -> None:
        """The constructor has returned: start what has waited for it."""
        with self._lock:
            self.instance = instance
            self.opened = self.clock()
            self._admit(self.mailbox.open())
        self._start_admitted()

    def _admit(self, calls: Iterable[Call]) -> None:
        """These may run. Held under the lock: until they have all started, whatever else may run waits behind them,
        so that nothing overtakes."""
        if self._admitted is None:
            self._admitted = deque()
        self._admitted.extend(calls)

    def _start_admitted(self) -> None:
        while True:
            with self._lock:
                if not self._admitted:
                    self._admitted = None
                    return
                call = self._admitted.popleft()
            self._executor(call).start(call)

    def special(self, method: str) -> Callable[..., Any] | None:
        """What runs for the methods that every actor has, whatever its class; None for the class's own."""
        if not method.startswith("__ray_"):
            return None
        known: dict[str, Callable[..., Any]] = {
            "__ray_ready__": _ready,
            "__ray_call__": self._call_with_self,
            "__ray_terminate__": self._terminate,
        }
        return known.get(method)

    def _call_with_self(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.instance, *args, **kwargs)

    def _terminate(self) -> None:
        self.exit(EXIT_ACTOR)
        raise ExitActor

    def deliver(self, call: Call) -> None:
        """Take a call; from any thread. It starts when its group lets it, in the order of delivery."""
        call.host = self
        with self._lock:
            if self.exit_reason is not None:
                refused = True
            else:
                refused = False
                self.calls[call.caller, call.id] = call
                runs = self.mailbox.put(call)
                if runs and self._admitted is not None:
                    self._admitted.append(call)
                    runs = False
        if refused:
            call.abandon(ActorDiedError(self.exit_reason or ""))
            return
        if runs:
            self._executor(call).start(call)
        if self.unwatched:
            self.watch()

    def _executor(self, call: Call) -> Executor:
        if self.mode == "async":
            assert self.loop is not None
            if call.spec.run_in == "thread":
                return self.pool
            return (self.own_loops.groups and self.own_loops.of(call.spec.group)) or self.loop
        return self.main if self.mode == "plain" else self.pool

    def _finished(self, call: Call) -> Call | None:
        call.state = DONE
        if recording.recorder is not None:
            recording.recorder.ran(call)
        call.context = SPENT  # its own names the call: a circle, which only the collector would undo
        if call is self._constructor:
            return None  # it holds no slot
        with self._lock:
            if self.calls.get((call.caller, call.id)) is call:  # else its caller has sent it again already: a retry
                del self.calls[call.caller, call.id]
            following = self.mailbox.done(call)
            if following is not None and self._admitted is not None:
                self._admitted.append(following)
                following = None
            leaving = self.exit_reason is not None and not self.mailbox.running
        if leaving:
            self._on_exit(self.exit_reason or "")
        if following is not None and self.mode == "async" and following.spec.run_in != call.spec.run_in:
            self._executor(following).start(following)
            return None
        return following

    def cancel(self, caller: int, number: int, error: BaseException) -> bool:
        """Stop a call with `error` for its caller: queued, it never starts; running, as its executor can.

        False if there is no such call here any more."""
        call = self.calls.get((caller, number))
        if call is None:
            return False
        with self._lock:
            if call.cancelled is None:
                call.cancelled = error
            waited = self.mailbox.discard(call)
            if waited:
                self.calls.pop((caller, number), None)
        if waited:
            call.fail(error)
        elif call.state is RUNNING:
            executor = self._executor(call)
            executor.interrupt(call)
            if isinstance(executor, LoopExecutor) or self.runs_tasks:
                self.interrupted.append(call)
        return True

    def exit_by(self, call: Call, error: BaseException) -> None:
        """The user's code has asked to leave: by `exit_actor()`, or by `sys.exit`."""
        if self.runs_tasks:
            call.fail(WorkerCrashedError(f"The task {call.spec.name}() ended its worker: {error!r}."))
            return
        if self.exit_reason is None:
            self.exit(_exit_reason(error))
        call.abandon(ActorDiedError(self.exit_reason or ""))

    def exit_from(self, call: Call | None, reason: str) -> None:
        """`exit_actor()` was called in `call`: whatever the call still does, its caller sees that the actor is gone."""
        if call is not None:
            call.exits = True
        self.exit(reason)

    def exit(self, reason: str) -> None:
        """Start nothing more; refuse what waits; leave when what runs has ended."""
        with self._lock:
            if self.exit_reason is not None:
                return
            self.exit_reason = reason
            refused = self.mailbox.drain()
            idle = not self.mailbox.running
        for call in refused:
            self.calls.pop((call.caller, call.id), None)
            call.abandon(ActorDiedError(reason))
        if idle:
            self._on_exit(reason)

    def end_soon(self, reason: str) -> None:
        """Exit, and cancel what runs on the actor's loops instead of waiting for its end."""
        self.exit(reason)
        for call in list(self.calls.values()):
            executor = self._executor(call)
            if call.state is RUNNING and isinstance(executor, LoopExecutor):
                executor.interrupt(call)

    def say_farewell(self, grace: float) -> None:
        """Run the class's `__ray_shutdown__`, if it has one, on the actor's thread, once nothing else runs there.

        An async one is awaited on the loop, for `grace` seconds at most. What it raises is logged."""
        instance = self.instance
        if not has_hook(type(instance)):
            return
        try:
            if self.loop is None:
                instance.__ray_shutdown__()
            else:
                self.loop.loop.run_until_complete(_await_hook(instance, grace))
        except BaseException:
            logger.exception("The shutdown hook of %s failed.", self.name)

    async def say_farewell_here(self, grace: float) -> None:
        """The same on a loop that runs already."""
        try:
            await _await_hook(self.instance, grace)
        except BaseException:
            logger.exception("The shutdown hook of %s failed.", self.name)

    def give_back(self) -> list[Call]:
        """Take out the calls that have not started, for the engine to run elsewhere; tasks only."""
        with self._lock:
            calls = self.mailbox.drain()
            for call in calls:
                self.calls.pop((call.caller, call.id), None)
        return calls

    def resize(self, limits: Mapping[str, int]) -> None:
        """Change how many calls of each of these groups may run from now on; those that run already go on.

        Raises ValueError for a plain actor, which has no limit to change, and for an unknown group."""
        if self.mode == "plain":
            raise ValueError(
                f"{self.name} is a plain actor: it runs one call at a time, in its main thread. Create it with "
                "max_concurrency=2 or more, or with concurrency groups, to be able to resize it."
            )
        unknown = sorted(set(limits) - set(self.mailbox.groups))
        if unknown:
            raise ValueError(f"{self.name} has no concurrency group {unknown[0]!r}, but {sorted(self.mailbox.groups)}.")
        with self._lock:
            self._admit([call for group, limit in limits.items() for call in self.mailbox.resize(group, limit)])
        self._start_admitted()

    def stats(self) -> dict[str, dict[str, int]]:
        """For each group: how many calls wait, how many run, how many may."""
        with self._lock:
            return {
                g.name: {"queued": len(g.waiting), "running": g.running, "limit": g.limit}
                for g in self.mailbox.groups.values()
            }

    def loops(self) -> list[LoopExecutor]:
        """Every loop that runs calls of this actor."""
        return [self.loop, *self.own_loops.started()] if self.loop is not None else []

    def runs_off_loop(self, spec: TaskSpec) -> bool:
        """True if calls of this kind run on another thread than that of an async actor's main loop."""
        return spec.run_in == "thread" or spec.group in self.own_loops.groups

    def running_in(self, group: str) -> list[Call]:
        """The calls that hold the places of a group."""
        return [c for c in list(self.calls.values()) if c.state is RUNNING and c.spec.group == group]


def has_hook(cls: type) -> bool:
    """True if instances of the class want to be told before their actor leaves."""
    return callable(getattr(cls, "__ray_shutdown__", None))


async def _await_hook(instance: Any, grace: float) -> None:
    value = instance.__ray_shutdown__()
    if inspect.isawaitable(value):
        await asyncio.wait_for(value, grace)


def _nothing() -> None:
    return


def _exit_reason(error: BaseException) -> str:
    if isinstance(error, AsyncioActorExit | ExitActor):
        return EXIT_ACTOR
    assert isinstance(error, SystemExit)
    return f"The actor is dead because its own code called sys.exit({error.code!r}): exit code {exit_code(error)}."


def _ready() -> bool:
    return True


def exit_code(error: SystemExit) -> int:
    """The status with which a process would end for this SystemExit."""
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


EXIT_ACTOR = "The actor is dead because it left by exit_actor()."
