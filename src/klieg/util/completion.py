"""Results in the order in which they come: `as_completed`, `map_unordered`, and a `wait` for coroutines.

    refs ──(a callback on each)──► Arrivals ──► next() in a thread, anext() in a coroutine

Nobody looks at refs that have not changed: taking n results costs n steps, not n².
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from klieg import api
from klieg.engines.failures import NOTHING
from klieg.engines.objects import ObjectFuture, deadline_of, first_done, seconds_left
from klieg.exceptions import GetTimeoutError
from klieg.object_ref import ObjectRef
from klieg.outcome import Value

R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Arrivals(Generic[R]):
    """Refs that are expected and those that have come, in the order of their coming."""

    def __init__(self) -> None:
        self.expected = 0
        """How many refs have not been taken yet, come or not."""
        self._came: deque[ObjectRef[R]] = deque()
        self._bells: deque[ObjectFuture] = deque()
        """One for each thread or coroutine that waits; resolved when there may be something for it."""
        self._lock = threading.Lock()

    def expect(self, ref: ObjectRef[R]) -> None:
        with self._lock:
            self.expected += 1
        ref._future.want()
        ref._future.add_callback(lambda _: self._arrive(ref))

    def take(self) -> ObjectRef[R] | None:
        """The ref that came first, None if none is there."""
        with self._lock:
            if not self._came:
                return None
            ref = self._came.popleft()
            self.expected -= 1
        if not self.expected:
            self._ring_all()  # others wait here for what will never come
        return ref

    def next(self, deadline: float | None) -> ObjectRef[R] | None:
        """The ref that comes next, None if there are no more; GetTimeoutError at the deadline."""
        while (ref := self.take()) is None and self.expected:
            bell = self._bell()
            if bell is not None:
                api.wait([ObjectRef(bell)], timeout=seconds_left(deadline))
                self._check(bell, deadline)
        return ref

    async def next_async(self, deadline: float | None) -> ObjectRef[R] | None:
        """The same for a coroutine."""
        while (ref := self.take()) is None and self.expected:
            bell = self._bell()
            if bell is not None:
                await _wait_for(bell, seconds_left(deadline))
                self._check(bell, deadline)
        return ref

    def _bell(self) -> ObjectFuture | None:
        """What to wait for; None if something has come meanwhile."""
        bell = ObjectFuture(0)
        self._bells.append(bell)
        return bell if self.expected and not self._came else None

    def _check(self, bell: ObjectFuture, deadline: float | None) -> None:
        if bell.outcome is None and not self._came and self.expected:
            raise GetTimeoutError(f"Timed out: {self.expected} results had not come.")

    def _arrive(self, ref: ObjectRef[R]) -> None:
        self._came.append(ref)
        self._ring_all()

    def _ring_all(self) -> None:
        while self._bells:
            try:
                bell = self._bells.popleft()
            except IndexError:  # another thread took the last one
                return
            bell.resolve(Value(NOTHING))


async def _wait_for(bell: ObjectFuture, timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await ObjectRef(bell)
    except TimeoutError:
        return


class Results(Generic[T]):
    """Results as they come, for `for` and for `async for`. One that is an error is raised; the next call goes on."""

    def __init__(self, arrivals: Arrivals[Any], as_refs: bool, timeout: float | None) -> None:
        self._arrivals = arrivals
        self._as_refs = as_refs
        self._deadline = deadline_of(timeout)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._fill()
        ref = self._arrivals.next(self._deadline)
        if ref is None:
            raise StopIteration
        return self._open(ref)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        self._fill()
        ref = await self._arrivals.next_async(self._deadline)
        if ref is None:
            raise StopAsyncIteration
        return self._open(ref)

    def _fill(self) -> None:
        """Start what may be started now."""

    def _open(self, ref: ObjectRef[Any]) -> T:
        return ref if self._as_refs else ref.result()  # type: ignore[return-value]  # the overloads below tell which


@overload
def as_completed(
    refs: Iterable[ObjectRef[R]],
    *,
    chunk_size: int = ...,
    yield_obj_refs: Literal[False] = ...,
    timeout: float | None = ...,
    fetch_local: bool = ...,
) -> Results[R]: ...
@overload
def as_completed(
    refs: Iterable[ObjectRef[R]],
    *,
    chunk_size: int = ...,
    yield_obj_refs: Literal[True],
    timeout: float | None = ...,
    fetch_local: bool = ...,
) -> Results[ObjectRef[R]]: ...
def as_completed(
    refs: Iterable[ObjectRef[Any]],
    *,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Results[Any]:
    """The values of the refs as they come, whichever is first: `for value in as_completed(refs)`, or `async for`.

    A call that failed raises its error where its value would have been; the iterator can be asked for the next one
    after that.

    Args:
        refs: any iterable; a ref that is in it twice comes twice.
        chunk_size: accepted for Ray's sake. Each value is handed over when it is there, never held back for others.
        yield_obj_refs: give the refs, not their values: `result()` and `exception()` of them do not wait.
        timeout: seconds for the whole iteration, from now.
        fetch_local: accepted, without effect.

    Raises:
        TypeError, ValueError: something in `refs` is no ref, or chunk_size or timeout is out of range.
        GetTimeoutError: from the iterator, when the time is up. The calls go on.
        BlockingGetError: from `for` on the event loop of an async actor, where `async for` is the way.
    """
    _check_numbers(chunk_size, None, timeout)
    arrivals: Arrivals[Any] = Arrivals()
    for ref in [_checked(ref, "as_completed takes ObjectRefs") for ref in refs]:
        arrivals.expect(ref)
    return Results(arrivals, yield_obj_refs, timeout)


class RemoteCallable(Protocol[T_contra, R_co]):
    """A remote function of one argument, or such a method of an actor."""

    def remote(self, item: T_contra, /) -> ObjectRef[R_co]: ...


class _Mapping(Results[T]):
    """Results of calls that are made as earlier ones are taken."""

    def __init__(
        self, fn: RemoteCallable[Any, Any], items: Iterable[Any], most: float, as_refs: bool, timeout: float | None
    ) -> None:
        super().__init__(Arrivals(), as_refs, timeout)
        self._fn = fn
        self._items = iter(items)
        self._most = most

    def _fill(self) -> None:
        while self._arrivals.expected < self._most:
            try:
                item = next(self._items)
            except StopIteration:
                self._most = 0
                return
            self._arrivals.expect(_checked(self._fn.remote(item), "map_unordered needs a call that returns one value"))


@overload
def map_unordered(
    fn: RemoteCallable[T, R],
    items: Iterable[T],
    *,
    backpressure_size: int | None = ...,
    chunk_size: int = ...,
    yield_obj_refs: Literal[False] = ...,
    timeout: float | None = ...,
    fetch_local: bool = ...,
) -> Results[R]: ...
@overload
def map_unordered(
    fn: RemoteCallable[T, R],
    items: Iterable[T],
    *,
    backpressure_size: int | None = ...,
    chunk_size: int = ...,
    yield_obj_refs: Literal[True],
    timeout: float | None = ...,
    fetch_local: bool = ...,
) -> Results[ObjectRef[R]]: ...
def map_unordered(
    fn: RemoteCallable[Any, Any],
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Results[Any]:
    """The values of `fn.remote(item)` for every item, as they come, with a bounded number of calls under way.

    Nothing is called before the first value is asked for, and `items` is read no faster than values are taken, so it
    may be endless. Usable with `for` and with `async for`; errors are raised as by `as_completed`.

    Args:
        fn: a remote function, or a method of an actor.
        backpressure_size: calls that may have been made whose values have not been taken; None: no limit.
        chunk_size, yield_obj_refs, timeout, fetch_local: as for `as_completed`.

    Raises:
        TypeError, ValueError: `fn` has no `.remote`, or a number is out of range.
    """
    if not hasattr(fn, "remote"):
        raise TypeError(f"map_unordered takes a remote function or an actor's method, not {type(fn).__name__}.")
    _check_numbers(chunk_size, backpressure_size, timeout)
    return _Mapping(
        fn, items, float("inf") if backpressure_size is None else backpressure_size, yield_obj_refs, timeout
    )


async def wait_async(
    refs: list[ObjectRef[R]], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[ObjectRef[R]], list[ObjectRef[R]]]:
    """`klieg.wait` for coroutines: (ready, not ready) as soon as `num_returns` are ready, or after `timeout` seconds.

    The same arguments, the same order of both lists, the same errors; the event loop goes on meanwhile.
    """
    futures, seconds = api.check_wait(refs, num_returns, timeout)
    pending = [future for future in futures if future.outcome is None]
    missing = num_returns - (len(futures) - len(pending))
    if refs and missing > 0:
        await _wait_for_some(pending, missing, seconds)
    return api.split(refs, first_done(futures, num_returns))


async def _wait_for_some(futures: list[ObjectFuture], count: int, timeout: float | None) -> None:
    bell = ObjectFuture(0)
    came: deque[None] = deque()
    lock = threading.Lock()

    def arrived(future: ObjectFuture) -> None:
        with lock:
            came.append(None)
            enough = len(came) == count
        if enough:
            bell.resolve(Value(NOTHING))

    for future in futures:
        future.want()
        future.add_callback(arrived)
    try:
        await _wait_for(bell, timeout)
    finally:
        for future in futures:
            future.remove_callback(arrived)


def _checked(ref: Any, rule: str) -> ObjectRef[Any]:
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"{rule}, not {type(ref).__name__}.")
    return ref


def _check_numbers(chunk_size: int, backpressure_size: int | None, timeout: float | None) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}.")
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError(f"backpressure_size must be at least 1 or None, not {backpressure_size}.")
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must be at least 0 seconds, not {timeout}.")
