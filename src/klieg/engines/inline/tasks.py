"""Tasks of the inline engine: each on a thread of its own, or, coroutines, many on one loop."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING

from klieg.concurrency.host import Host
from klieg.concurrency.watchdog import Watchdog
from klieg.engines.calls import Channel, OutgoingCall
from klieg.engines.inline.call import STOP_GRACE, InlineCall, nothing
from klieg.engines.loops import new_loop
from klieg.engines.scheduler import Grant
from klieg.exceptions import (
    KliegError,
)
from klieg.task import FunctionSpec

if TYPE_CHECKING:
    from klieg.engines.inline.engine import InlineEngine


logger = logging.getLogger("klieg")

NO_LIMIT = 1 << 30


class InlineTasks(Channel):
    """Tasks that are no coroutines: each takes its resources, runs on a pool thread and gives them back."""

    target = "a worker"

    def __init__(self, engine: InlineEngine) -> None:
        super().__init__(strict=False)
        self.engine = engine
        self.host = Host(
            "task",
            "threaded",
            {"default": NO_LIMIT},
            wait=nothing,
            look=nothing,
            wake=nothing,
            start_thread=engine.start_thread,
            on_exit=lambda reason: None,
            runs_tasks=True,
        )
        self.host.open(None)

    def send(self, call: OutgoingCall) -> None:
        function = call.spec.function
        assert function is not None
        engine = self.engine
        inline = engine.task_call(call, function, self.host)
        if inline is None:
            return
        inline.release = functools.partial(self._release, inline)
        engine.request(function.placement, inline, _host_of_caller(call), short=True)

    def start(self, call: InlineCall, grant: Grant) -> None:
        """The task has its resources: it may run, unless it has ended meanwhile."""
        with self.engine.lock:
            call.grant = grant
            has_ended = self.engine.pending.get(call.id) is not call
        if has_ended:
            self.engine.give_back(call)
        else:
            self.host.deliver(call)

    def _release(self, call: InlineCall) -> None:
        with self.engine.lock:
            if call.grant is None:
                self.engine.withdraw(call)
                return
        self.engine.give_back(call)


class InlineAsyncTasks(Channel):
    """The calls of one `async def` task: so many at a time on one loop, which holds resources while it has any."""

    def __init__(self, engine: InlineEngine, function: FunctionSpec) -> None:
        super().__init__(strict=False)
        self.engine = engine
        self.function = function
        self.grant: Grant | None = None
        self._asked = False
        """True while it stands in line for its resources, or they are on their way."""
        self._calls: set[InlineCall] = set()
        """Those without an outcome."""
        self._waiting: list[InlineCall] = []
        """Those that start when the resources are there."""
        self.host = Host(
            function.name,
            "async",
            {"default": function.max_concurrency},
            wait=nothing,
            look=nothing,
            wake=nothing,
            start_thread=engine.start_thread,
            on_exit=lambda reason: None,
            loop=new_loop(),
            runs_tasks=True,
        )
        self.host.open(None)
        Watchdog(self.host, engine.call_at, logger.warning, engine.settings.thresholds(), engine.ask_waits)
        engine.start_thread(self._run_loop, f"klieg {function.name}")

    def send(self, call: OutgoingCall) -> None:
        inline = self.engine.task_call(call, self.function, self.host)
        if inline is None:
            return
        inline.release = functools.partial(self._release, inline)
        with self.engine.lock:
            self._calls.add(inline)
            is_ready = self.grant is not None
            asks = not is_ready and not self._asked
            if not is_ready:
                self._waiting.append(inline)
                self._asked = True
        if is_ready:
            self.host.deliver(inline)
        elif asks:
            self.engine.request(self.function.placement, self, _host_of_caller(call), short=True)

    def start(self, grant: Grant) -> None:
        """The resources are there: start what waits for them, unless it has all ended meanwhile."""
        with self.engine.lock:
            self._asked = False
            waiting, self._waiting = self._waiting, []
            is_wanted = bool(self._calls)
            if is_wanted:
                self.grant, self.host.gpus = grant, grant.gpus
        if not is_wanted:
            self.engine.free(grant)
        for call in waiting:
            if self.engine.pending.get(call.id) is call:
                self.host.deliver(call)

    def _release(self, call: InlineCall) -> None:
        """A call has ended. The last one gives the resources back, or the place in the line."""
        with self.engine.lock:
            self._calls.discard(call)
            if self._calls:
                return
            grant, self.grant = self.grant, None
            if grant is None and self.engine.withdraw(self):
                self._asked = False
        if grant is not None:
            self.engine.free(grant)

    def fail_all(self, error: KliegError) -> None:
        for call in list(self._calls):
            call.fail(error)

    def stop(self, reason: str) -> None:
        self.host.exit(reason)
        assert self.host.loop is not None
        self.host.loop.stop()

    def _run_loop(self) -> None:
        assert self.host.loop is not None
        self.host.loop.run(STOP_GRACE, nothing)


def _host_of_caller(call: OutgoingCall) -> Hashable:
    return call.parent.host if call.parent is not None else None
