"""Object refs: names of results, and futures for asyncio and for `concurrent.futures`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import time
import types
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

from klieg import engine, ids
from klieg.concurrency import stacks
from klieg.concurrency.waits import block_noted
from klieg.engines import serialization
from klieg.engines.calls import END_OF_STREAM, StreamFuture
from klieg.engines.failures import NOTHING
from klieg.engines.objects import ObjectFuture, Ref, seconds_left
from klieg.engines.unwrap import error_of, unwrap
from klieg.exceptions import TaskCancelledError
from klieg.outcome import Value

R = TypeVar("R", covariant=True)
V = TypeVar("V")


class ObjectRef(Ref, Generic[R]):
    """The name of a result of type R that exists now or later.

    `await ref` and `klieg.get(ref)` give the value, or raise what the task raised; any number of times, from any loop
    and thread, each time a fresh copy. A ref can be given to `asyncio.wait`, `gather`, `wait_for`, `as_completed`
    and `shield`; giving up the wait never cancels the call. `ref.future()` is a `concurrent.futures.Future`.

    A ref passed as an argument of its own is replaced by its value; inside a list or another object it stays a ref.
    """

    __slots__ = ("_asyncio_callbacks",)
    _asyncio_callbacks: _PendingCallbacks

    def __init__(self, future: ObjectFuture) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, R]:
        future = self._future
        if future.outcome is None:
            yield from _arrival(future)
        value: R = unwrap(future)
        return value

    def future(self) -> concurrent.futures.Future[R]:
        """A new `concurrent.futures.Future` of the result.

        Cancelling it affects neither the call nor other futures of the ref; its callbacks run on a thread of klieg's.
        """
        copy: ResultFuture[R] = ResultFuture()
        running = engine.current()
        run = running.callbacks.run

        def finish() -> None:
            running.count_sleepers(-1)
            if not copy.set_running_or_notify_cancel():
                return
            try:
                value = unwrap(future)
            except BaseException as error:
                copy.set_exception(error)
            else:
                copy.set_result(value)

        future = self._future
        running.count_sleepers(1)
        future.want()
        future.add_callback(lambda _: run(finish))
        lead_by_running_loop(running)
        return copy

    def as_future(self) -> asyncio.Future[R]:
        """A new `asyncio.Future` of the result, of the running loop; RuntimeError without one."""
        loop = asyncio.get_running_loop()
        return asyncio.ensure_future(_awaited(self), loop=loop)

    def done(self) -> bool:
        """True once there is a value or an error."""
        return self._future.outcome is not None

    def cancelled(self) -> bool:
        """True if the call was cancelled."""
        return self.done() and isinstance(error_of(self._future), TaskCancelledError)

    def result(self) -> R:
        """The value, or raises the error; `asyncio.InvalidStateError` if there is neither yet."""
        if not self.done():
            raise asyncio.InvalidStateError("Result is not ready.")
        value: R = unwrap(self._future)
        return value

    def exception(self) -> Exception | None:
        """The error, None if there is a value; `asyncio.InvalidStateError` if there is neither yet."""
        if not self.done():
            raise asyncio.InvalidStateError("Result is not ready.")
        return error_of(self._future)

    def add_done_callback(
        self, callback: Callable[[Self], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Have the running loop call `callback(ref)` once the result is there. RuntimeError without a running loop."""
        loop = asyncio.get_running_loop()

        def arrived(future: ObjectFuture) -> None:
            _on_loop(loop, _call_if_kept, pending, self, callback, context=context)

        pending = _PendingCallbacks.of(self)
        pending.add(callback, arrived)
        _prepare(self._future, loop)
        self._future.add_callback(arrived)

    def remove_done_callback(self, callback: Callable[[Self], object]) -> int:
        """Take back every registration of `callback`; returns how many there were."""
        removed = _PendingCallbacks.of(self).remove(callback)
        for arrived in removed:
            self._future.remove_callback(arrived)
        return len(removed)

    def hex(self) -> str:
        return self._id().hex()

    def binary(self) -> bytes:
        return self._id().binary()

    def task_id(self) -> ids.TaskID:
        """The id of the call that makes the value; of a `put` value, an id of its own."""
        return ids.TaskID.from_int(self._future.id)

    def job_id(self) -> ids.JobID:
        return ids.JOB_ID

    def is_nil(self) -> bool:
        return False

    @classmethod
    def nil(cls) -> ids.UniqueID:
        return ids.UniqueID.nil()

    @classmethod
    def size(cls) -> int:
        return ids.UniqueID.SIZE

    def _id(self) -> ids.UniqueID:
        return ids.UniqueID.from_int(self._future.id)

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(value or error)` on a thread of klieg's; libraries written for Ray use it."""

        run = engine.current().callbacks.run

        def call() -> None:
            error = error_of(future)
            callback(unwrap(future) if error is None else error)

        future = self._future
        future.want()
        future.add_callback(lambda _: run(call))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self._future.id == other._future.id

    def __hash__(self) -> int:
        return hash(self._future.id)

    def __repr__(self) -> str:
        return f"ObjectRef({self.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        if not serialization.note(self._future):
            engine.current().pin(self._future)
        return _restore, (self._future.id,)


class ResultFuture(concurrent.futures.Future[V]):
    """A `concurrent.futures.Future` whose waiters look for results themselves, as those in `get` do.

    A thread that only slept until another one found the result would wait some milliseconds for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bell = ObjectFuture(0)
        self.add_done_callback(_ring)  # the first, so that those of users do not delay it

    def result(self, timeout: float | None = None) -> V:
        return super().result(self.wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self.wait(timeout))

    def wait(self, timeout: float | None = None) -> float | None:
        """Wait until it is done, at most `timeout` seconds; returns what is left of them."""
        running, bell = engine.current_or_none(), self._bell
        if bell.outcome is not None or running is None:
            return timeout
        deadline = None if timeout is None else time.monotonic() + max(0, timeout)
        running.block(bell.is_done, (bell,), deadline)
        return seconds_left(deadline)


def _ring(done: concurrent.futures.Future[Any]) -> None:
    assert isinstance(done, ResultFuture)
    done._bell.resolve(Value(NOTHING))
    running = engine.current_or_none()
    if running is not None:
        running.nudge()


def lead_by_running_loop(running: engine.Engine) -> None:
    """If this thread has an asyncio loop, have it look for results: it may be about to wait for a concurrent future."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        running.attach(loop)


def _restore(number: int) -> ObjectRef[Any]:
    future = serialization.known(number) or engine.current().future_of(number)
    assert isinstance(future, ObjectFuture)
    return ObjectRef(future)


async def _awaited(ref: ObjectRef[R]) -> R:
    return await ref


@types.coroutine
def _arrival(future: ObjectFuture) -> Generator[Any, None, None]:
    """Sleep until the future has its outcome. Cancelling the sleeper cancels nothing but the sleep, unless asked to."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(arrived: ObjectFuture) -> None:
        if asyncio._get_running_loop() is loop:  # its own thread takes the result in: no detour by the loop's queue
            _set_done(waiter)
        else:
            _on_loop(loop, _set_done, waiter)

    _prepare(future, loop)
    future.add_callback(wake)
    try:
        yield from waiter
    except asyncio.CancelledError:
        future.remove_callback(wake)
        call = future.call
        if call is not None and call.spec.cancel_on_await_cancel:
            engine.current().cancel(future, force=False, recursive=True)
        raise


def _what_arrives(frame: types.FrameType) -> str:
    """What `_arrival` waits for, for those who read await stacks."""
    future = frame.f_locals.get("future")
    call = getattr(future, "call", None)
    if call is None:
        return f"a ref of another process, {future.id:x}" if isinstance(future, ObjectFuture) else "a ref"
    return f"{call.spec.name} #{call.id & ids.COUNTER_MASK} of {call.channel.target if call.channel else 'nobody'}"


stacks.EXPLAIN[_arrival.__code__] = _what_arrives


def _prepare(future: ObjectFuture, loop: asyncio.AbstractEventLoop) -> None:
    running = engine.current_or_none()
    if running is not None:
        future.want()
        running.attach(loop)


def _on_loop(
    loop: asyncio.AbstractEventLoop,
    function: Callable[..., object],
    *args: Any,
    context: contextvars.Context | None = None,
) -> None:
    """Call `function` on the loop: at its next step if this is its thread, else by waking it; never if it is closed."""
    try:
        if asyncio._get_running_loop() is loop:
            loop.call_soon(function, *args, context=context)
        else:
            loop.call_soon_threadsafe(function, *args, context=context)
    except RuntimeError:  # the loop was closed before the result came: nobody is left to tell
        return


def _set_done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _PendingCallbacks:
    """The done-callbacks of one ref that have not run, so that they can be taken back."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, Callable[[ObjectFuture], None]]] = []

    @classmethod
    def of(cls, ref: ObjectRef[Any]) -> _PendingCallbacks:
        try:
            return ref._asyncio_callbacks
        except AttributeError:
            ref._asyncio_callbacks = cls()
            return ref._asyncio_callbacks

    def add(self, callback: Any, arrived: Callable[[ObjectFuture], None]) -> None:
        self._entries.append((callback, arrived))

    def remove(self, callback: Any) -> list[Callable[[ObjectFuture], None]]:
        removed = [arrived for kept, arrived in self._entries if kept == callback]
        self._entries = [entry for entry in self._entries if entry[0] != callback]
        return removed


def _call_if_kept(pending: _PendingCallbacks, ref: ObjectRef[Any], callback: Callable[[Any], object]) -> None:
    if pending.remove(callback):
        callback(ref)


class DynamicObjectRefGenerator(Sequence[ObjectRef[Any]]):
    """The refs of all items of a call with `num_returns="dynamic"`, once they are all there."""

    def __init__(self, refs: list[ObjectRef[Any]]) -> None:
        self._refs = refs

    def __getitem__(self, index: Any) -> Any:
        return self._refs[index]

    def __len__(self) -> int:
        return len(self._refs)


class ObjectRefGenerator(Generic[R]):
    """The refs of a streaming generator's items, in order, as they come: `for ref in gen`, `async for ref in gen`.

    An error in the generator is its last ref. Dropping this object closes the generator in its worker.
    """

    def __init__(self, stream: StreamFuture) -> None:
        self._stream = stream
        self._index = 0
        self._finalizer = weakref.finalize(self, engine.current().drop_stream, stream)
        self._finalizer.atexit = False

    def __iter__(self) -> Iterator[ObjectRef[R]]:
        return self

    def __next__(self) -> ObjectRef[R]:
        future = self._stream.item(self._index)
        if future.outcome is None:
            block_noted(engine.current().block, future.is_done, (future,), None)
        if future.outcome is END_OF_STREAM:
            raise StopIteration
        return self._advance(future)

    def __aiter__(self) -> AsyncIterator[ObjectRef[R]]:
        return self

    async def __anext__(self) -> ObjectRef[R]:
        future = self._stream.item(self._index)
        if future.outcome is None:
            await _arrival(future)
        if future.outcome is END_OF_STREAM:
            raise StopAsyncIteration
        return self._advance(future)

    def _advance(self, future: ObjectFuture) -> ObjectRef[R]:
        self._stream.take(self._index)
        self._index += 1
        return ObjectRef(future)

    def completed(self) -> ObjectRef[None]:
        """A ref that is ready when the generator has ended, well or not; its value is None."""
        return ObjectRef(self._stream)

    def next_ready(self) -> bool:
        """True if the next `next()` would not wait."""
        return self._stream.item(self._index).outcome is not None

    def is_finished(self) -> bool:
        """True if every item was taken and there are no more."""
        return self._stream.item(self._index).outcome is END_OF_STREAM

    def task_id(self) -> ids.TaskID:
        return ids.TaskID.from_int(self._stream.id)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("An ObjectRefGenerator cannot be passed on: iterate it here, and pass the refs it gives.")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({ids.TaskID.from_int(self._stream.id).hex()})"

    def send(self, value: Any) -> None:
        raise NotImplementedError("A streaming generator takes no values from its consumer.")

    throw = close = asend = athrow = aclose = send
