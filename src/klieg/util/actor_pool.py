"""A fixed set of actors that share work: each takes the next piece when the result of its last one was taken."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

from klieg import api
from klieg.actor import ActorHandle
from klieg.object_ref import ObjectRef, ObjectRefGenerator
from klieg.util.completion import wait_async

V = TypeVar("V")
Submit = Callable[[Any, V], Any]
"""Given an actor and a value, makes the call and returns its ref: `lambda actor, value: actor.double.remote(value)`."""

TIMED_OUT = "Timed out waiting for result"


@dataclasses.dataclass(frozen=True, slots=True)
class _Running:
    actor: ActorHandle[Any]
    result: Any
    """What `Submit` returned: a ref, a list of refs (num_returns > 1) or a generator of refs."""

    @property
    def sign(self) -> Any:
        """What to wait for: the refs of one call become ready together."""
        return self.result[0] if isinstance(self.result, list) else self.result


class ActorPool:
    """Actors that share work: `pool.map(lambda actor, value: actor.double.remote(value), values)`.

    An actor is busy from `submit` until its result is taken, not only until it is there; so no more results lie
    around than there are actors. An actor that died stays in the pool, and what it is given fails.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle = list(actors)
        self._running: dict[int, _Running] = {}
        """By number of submission, in that order."""
        self._waiting: deque[tuple[Submit[Any], Any]] = deque()
        self._next_number = 0
        self._next_return = 0

    def map(self, fn: Submit[V], values: Iterable[V]) -> PoolResults:
        """The results for all values, in their order, for `for` and for `async for`. Earlier submissions are dropped.

        Everything is submitted now, as far as there are idle actors; the rest while the results are taken.
        """
        self._submit_all(fn, values)
        return PoolResults(self, self._oldest)

    def map_unordered(self, fn: Submit[V], values: Iterable[V]) -> PoolResults:
        """Like `map`, in the order in which the results come."""
        self._submit_all(fn, values)
        return PoolResults(self, self._first_ready)

    def submit(self, fn: Submit[V], value: V) -> None:
        """Have the next idle actor do `fn(actor, value)`; if none is idle, once a result has been taken."""
        if self._idle:
            self._start(self._idle.pop(), fn, value)
        else:
            self._waiting.append((fn, value))

    def has_next(self) -> bool:
        """True if there is a result to take, there already or yet to come."""
        return bool(self._running)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        Args:
            timeout: seconds.
            ignore_if_timedout: drop the call that took too long, and take its actor for idle.

        Raises:
            StopIteration: nothing was submitted.
            TimeoutError: not ready in time.
            ValueError: `get_next_unordered` has been here before and has taken a later one.
        """
        return self._next(self._oldest, timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result that is there first; arguments and errors as for `get_next`."""
        return self._next(self._first_ready, timeout, ignore_if_timedout)

    def has_free(self) -> bool:
        """True if an actor is idle and no submission waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """An idle actor, which leaves the pool; None if there is none, or work waits for it."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor; ValueError if it is in the pool already."""
        if actor in self._idle or any(running.actor == actor for running in self._running.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._return(actor)

    # Submitting

    def _submit_all(self, fn: Submit[V], values: Iterable[V]) -> None:
        self._drop_all()
        for value in values:
            self.submit(fn, value)

    def _drop_all(self) -> None:
        self._waiting.clear()
        self._next_return = self._next_number
        dropped, self._running = self._running, {}
        self._idle.extend(running.actor for running in dropped.values())

    def _start(self, actor: Any, fn: Submit[V], value: V) -> None:
        try:
            result = fn(actor, value)
        except BaseException:  # nothing was started
            self._idle.append(actor)
            raise
        self._running[self._next_number] = _Running(actor, result)
        self._next_number += 1

    def _return(self, actor: Any) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    # Taking results

    def _oldest(self) -> list[int]:
        if self._next_return >= self._next_number:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        return [self._next_return]

    def _first_ready(self) -> list[int]:
        return list(self._running)

    def _next(self, candidates: Callable[[], list[int]], timeout: float | None, ignore_if_timedout: bool) -> Any:
        if not self.has_next():
            raise StopIteration("No more results to get")
        numbers = candidates()
        ready, _ = api.wait([self._running[n].sign for n in numbers], timeout=timeout)
        if not ready:
            if not ignore_if_timedout:
                raise TimeoutError(TIMED_OUT)
            running = self._take(numbers[0])
            raise TimeoutError(f"{TIMED_OUT}. The task {running.result} has been ignored.")
        return api.get(self._take_ready(numbers, ready[0]).result)

    async def _next_async(self, candidates: Callable[[], list[int]]) -> Any:
        numbers = candidates()
        ready, _ = await wait_async([self._running[n].sign for n in numbers])
        return await _value(self._take_ready(numbers, ready[0]).result)

    def _take_ready(self, numbers: list[int], sign: Any) -> _Running:
        return self._take(next(n for n in numbers if self._running[n].sign is sign))

    def _take(self, number: int) -> _Running:
        running = self._running.pop(number)
        self._next_return = max(self._next_return, number + 1)
        self._return(running.actor)
        return running


class PoolResults:
    """What `ActorPool.map` returns, for `for` and `async for`. An error is raised in its turn; the next one follows."""

    def __init__(self, pool: ActorPool, candidates: Callable[[], list[int]]) -> None:
        self._pool = pool
        self._candidates = candidates

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._pool._next(self._candidates, None, False)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._pool.has_next():
            raise StopAsyncIteration
        return await self._pool._next_async(self._candidates)


async def _value(result: Any) -> Any:
    if isinstance(result, ObjectRefGenerator):
        return result
    return [await ref for ref in result] if isinstance(result, list) else await _ref(result)


async def _ref(result: ObjectRef[Any]) -> Any:
    return await result
