"""What runs a call: one thread, a pool of threads, an event loop. One class each, with the same three methods."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from types import CoroutineType
from typing import Any, Final

from klieg.concurrency import recording
from klieg.concurrency.call import CURRENT, RUNNING, Call, Finished
from klieg.concurrency.generators import produce, produce_async, produce_on_loop
from klieg.concurrency.loops import WatchedLoop
from klieg.exceptions import AsyncioActorExit
from klieg.propagation import CARRIED, unpack
from klieg.task import STREAMS

LOOP_THREADS: Final[set[int]] = set()
"""Identifiers of the threads that run an async actor's loop; a blocking `get` there is refused."""

logger = logging.getLogger("klieg")

StartThread = Callable[[Callable[[], None], str], threading.Thread]
Interrupt = Callable[[Call], None]


def run_sync(call: Call) -> None:
    """Run a call on this thread, to its outcome. Raises nothing."""
    call.started = call.host.clock()
    call.state = RUNNING
    if (call.cancelled is not None or call.deadline is not None) and (error := call.refusal()) is not None:
        call.fail(error)
        return
    context = call.context
    context.run(CURRENT.set, call)
    try:
        args, kwargs = call.arguments()
        if CARRIED in kwargs:
            context.run(unpack, kwargs.pop(CARRIED))
        value = context.run(call.target or getattr(call.host.instance, call.spec.method), *args, **kwargs)
        if call.spec.num_returns in STREAMS:
            context.run(produce, _as_generator(value, call), call.open_stream())
            value = None
    except BaseException as error:
        fail(call, error)
        return
    finish(call, value)


def finish(call: Call, value: Any) -> None:
    """The user's code has returned: give the caller the value, unless something else was decided meanwhile."""
    if call.exits:
        call.host.exit_by(call, SystemExit())
    elif call.cancelled is not None and not call.interrupted:
        call.fail(call.cancelled)
    else:
        call.succeed(value)


def fail(call: Call, error: BaseException) -> None:
    """Give the caller the right error for what came out of the user's code."""
    if call.exits or isinstance(error, SystemExit | AsyncioActorExit):
        call.host.exit_by(call, error)
    elif call.cancelled is not None:
        call.fail(call.cancelled)
    else:
        call.fail(error)


def _as_generator(value: Any, call: Call) -> Any:
    if inspect.isgenerator(value) or hasattr(value, "__next__"):
        return value
    raise TypeError(
        f"{call.spec.name}() was called with num_returns={call.spec.num_returns!r}, but returned "
        f"{type(value).__name__} and not a generator."
    )


class MainExecutor:
    """One thread, one call after another: plain actors and tasks. The thread is whoever calls `run`."""

    def __init__(
        self,
        finished: Finished,
        wait: Callable[[], object],
        look: Callable[[float], None],
        wake: Callable[[], None],
        interrupt: Interrupt | None = None,
    ) -> None:
        self._finished = finished
        self._wait = wait
        self._look = look
        self._wake = wake
        self._interrupt = interrupt
        self.ready: deque[Call] = deque()
        self.current: Call | None = None
        """What runs now, for those who may interrupt it."""
        self.stopped = False

    def start(self, call: Call) -> None:
        self.ready.append(call)
        self._wake()

    def interrupt(self, call: Call) -> None:
        if self._interrupt is not None:
            self._interrupt(call)

    def stop(self) -> None:
        self.stopped = True
        self._wake()

    def run(self) -> None:
        """Run calls as they come until `stop`."""
        ready = self.ready
        while not self.stopped:
            if not ready:
                self._wait()
                continue
            call: Call | None = ready.popleft()
            while call is not None:
                self.current = call
                run_sync(call)
                self.current = None
                self._look(call.started)
                call = self._finished(call)

    def run_one(self) -> None:
        """Run the first call that is ready: for a thread that has other things to do in between."""
        call = self.ready.popleft()
        self.current = call
        run_sync(call)
        self.current = None
        following = self._finished(call)
        if following is not None:
            self.ready.appendleft(following)


class PoolExecutor:
    """A pool that grows when a call finds no idle thread, and keeps its threads."""

    def __init__(self, finished: Finished, start_thread: StartThread, name: str) -> None:
        self._finished = finished
        self._start_thread = start_thread
        self._name = name
        self._lock = threading.Lock()
        self._idle = 0
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._stopped = False
        self._started = 0

    def start(self, call: Call) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._queue.put(call)
                return
            name = f"{self._name}-{self._started}"
            self._started += 1
        try:
            self._start_thread(functools.partial(self._work, [call]), name)
        except RuntimeError as error:  # the machine has no thread left
            call.fail(RuntimeError(f"No thread could be started for {call.spec.name}(): {error}"))
            following = self._finished(call)
            if following is not None:
                self.start(following)

    def interrupt(self, call: Call) -> None:
        """Threads cannot be interrupted: the call sees `is_canceled()`, and its caller the error when it ends."""

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._queue.put(None)

    def _work(self, first: list[Call]) -> None:
        # A parameter would keep the call, and its arguments, as long as the thread lives.
        call: Call | None = first.pop()
        while True:
            while call is not None:
                run_sync(call)
                call = self._finished(call)
            with self._lock:
                if self._stopped:
                    return
                self._idle += 1
            call = self._queue.get()
            if call is None:
                return


class LoopExecutor:
    """One event loop for all calls of an async actor; what they await is interleaved, nothing runs in parallel."""

    def __init__(self, loop: WatchedLoop, finished: Finished) -> None:
        self.loop = loop
        self._finished = finished
        self._ready: deque[Call] = deque()
        self._draining = False
        self._woken = False
        self.thread = 0
        """The identifier of the loop's thread, while it has one."""
        self.tasks: dict[Call, asyncio.Task[None]] = {}
        self._stopped = False
        self._in_calls = False
        """True while the loop runs for the sake of calls, and not to clear up behind them."""

    def adopt_thread(self) -> None:
        """Called on the loop's thread before the first call."""
        self.thread = threading.get_ident()
        LOOP_THREADS.add(self.thread)

    def leave_thread(self) -> None:
        LOOP_THREADS.discard(self.thread)
        self.thread = 0

    @property
    def busy_since(self) -> float | None:
        """Since when the loop has been running callbacks without a look at its sockets; None while it sleeps."""
        return self.loop.busy_since

    def call_of(self, task: asyncio.Task[Any]) -> Call | None:
        """The call that the task is, or was started by; None if it belongs to none."""
        get_context = getattr(task, "get_context", None)
        if get_context is not None:  # since Python 3.12
            found: Call | None = get_context().get(CURRENT)
            return found
        return next((call for call, known in list(self.tasks.items()) if known is task), None)

    def start(self, call: Call) -> None:
        self._ready.append(call)
        if threading.get_ident() == self.thread:
            if not self._draining:
                self._drain()
        elif not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._drain)

    def run_after(self, dispatch: Callable[[], bool]) -> bool:
        """Have the calls that `dispatch` starts run once it has returned: they may need messages themselves.

        Called on the loop's thread, between two steps of the loop."""
        self._draining = True
        try:
            return dispatch()
        finally:
            self._draining = False
            if self._ready:
                self._drain()

    def interrupt(self, call: Call) -> None:
        self.loop.call_soon_threadsafe(self._cancel, call)

    def stop(self) -> None:
        self._stopped = True
        self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._in_calls:
            self.loop.stop()

    def run_until_stopped(self) -> None:
        """Run the loop on this thread until `stop`. That user code stops it is no reason: it is the actor's loop."""
        self._in_calls = True
        while not self._stopped:
            self.loop.run_forever()
            if not self._stopped:
                logger.warning("Code on an actor's event loop has called `loop.stop()`: `exit_actor()` ends an actor.")
        self._in_calls = False

    def run(self, grace: float, farewell: Callable[[], None] | None = None) -> None:
        """Run the loop on this thread until `stop`; then cancel what calls have left behind on it, and close it.

        Args:
            grace: seconds that what is cancelled gets to clean up.
            farewell: called on this thread when nothing runs on the loop any more; it may run the loop.
        """
        asyncio.set_event_loop(self.loop)
        self.adopt_thread()
        try:
            self.run_until_stopped()
            self.loop.run_until_complete(self.finish_background(grace))
            if farewell is not None:
                farewell()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.leave_thread()
            asyncio.set_event_loop(None)
            self.loop.close()

    async def finish_background(self, grace: float) -> None:
        """Cancel the tasks that calls have left behind and give them `grace` seconds to clean up."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=grace)

    def _cancel(self, call: Call) -> None:
        task = self.tasks.get(call)
        if task is not None:
            task.cancel()

    def _drain(self) -> None:
        # A call that ends at once starts the next from inside its own last step; the flag turns that recursion,
        # as deep as the queue is long, into this loop.
        self._woken = False
        if self._draining:
            return
        self._draining = True
        try:
            while self._ready:
                self._begin(self._ready.popleft())
        finally:
            self._draining = False

    def _begin(self, call: Call) -> None:
        call.context.run(CURRENT.set, call)
        task = _new_task(self._run(call), self.loop, call)
        if not task.done():
            self.tasks[call] = task

    async def _run(self, call: Call) -> None:
        call.started = call.host.clock()
        call.state = RUNNING
        try:
            if (call.cancelled is not None or call.deadline is not None) and (error := call.refusal()) is not None:
                raise error
            args, kwargs = call.arguments()
            if CARRIED in kwargs:
                unpack(kwargs.pop(CARRIED))
            value = (call.target or getattr(call.host.instance, call.spec.method))(*args, **kwargs)
            if call.spec.num_returns in STREAMS:
                await self._stream(call, value)
                value = None
            elif type(value) is CoroutineType:
                recorder = recording.recorder
                value = await (value if recorder is None else recorder.watched(call, value))
        except BaseException as error:
            fail(call, error)
        else:
            finish(call, value)
        self.tasks.pop(call, None)
        following = self._finished(call)
        if following is not None:
            self.start(following)

    async def _stream(self, call: Call, value: Any) -> None:
        stream = call.open_stream()
        if inspect.isasyncgen(value):
            await produce_async(value, stream)
        else:
            await produce_on_loop(_as_generator(value, call), stream)


if sys.version_info >= (3, 12):

    def _new_task(
        coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, call: Call
    ) -> asyncio.Task[None]:
        # A coroutine that finishes without suspending then costs no trip through the loop.
        return asyncio.Task(coroutine, loop=loop, name=call.label, context=call.context, eager_start=True)

else:

    def _new_task(
        coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, call: Call
    ) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=loop, name=call.label, context=call.context)
