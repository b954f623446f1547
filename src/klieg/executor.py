"""`klieg.Executor`: a `concurrent.futures.Executor` whose calls are tasks, or calls of one actor.

    submit ──► pending ──(a slot is free)──► .remote() ──► ... ──► thread of callbacks ──► the caller's Future
                  │                                                         │
                  └── cancel() still can                                    └──► the next one

No more calls are handed on than run at once: one that has been handed on counts as running, and `cancel()` of it
returns False, as the contract of `concurrent.futures` wants.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import functools
import itertools
import math
import os
import threading
import time
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Final, Generic, ParamSpec, TypeVar

from klieg import engine, session
from klieg.actor import ActorHandle, ActorMethod, AnyHandle
from klieg.engine import Engine
from klieg.engines.objects import seconds_left
from klieg.exceptions import ActorDiedError, HeadDiedError, RuntimeShutdownError, TaskError
from klieg.object_ref import ObjectRef, ResultFuture, lead_by_running_loop
from klieg.options import DEFAULT_ASYNC_CONCURRENCY
from klieg.placement import Placement
from klieg.remote_function import RemoteFunction

P = ParamSpec("P")
T = TypeVar("T")

FUNCTIONS_KEPT: Final = 64
"""Remote functions that an executor keeps, so that a function that is submitted often is pickled once."""


class BrokenActorExecutor(concurrent.futures.BrokenExecutor):
    """The actor, or the whole runtime, that carried out the executor's calls is gone; the cause says how."""


class Executor(concurrent.futures.Executor):
    """Runs calls in klieg's workers, behind the interface of `concurrent.futures`.

    A plain function runs as a task; with `actor=` it runs in that actor's process, within the actor's limit. A remote
    function or an actor's method may be submitted as well, and is called by its `.remote`.

    A call raises what its function raised, as its own type, with the remote traceback as the cause. A worker that dies
    fails the calls that it ran, after their retries, and no others; an actor that dies breaks its executor.
    """

    def __init__(self, max_workers: int | None = None, *, actor: AnyHandle | None = None, **options: Any) -> None:
        """Nothing is started before the first `submit`.

        Args:
            max_workers: calls that run at once; default: as many as the runtime's CPUs, or the actor, can run.
            actor: where plain functions run.
            options: of the tasks, such as `num_cpus=2` or `max_retries=0`.

        Raises ValueError or TypeError for a bad number, an unknown option, or options beside an actor.
        """
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        if actor is not None and options:
            raise ValueError(f"Options of tasks have no meaning in an actor: {', '.join(sorted(options))}.")
        self._options = {**options, "num_returns": 1}
        self._call_any = RemoteFunction(_call, self._options)  # checks the options, too
        self._actor: Any = actor  # at run time every handle is an ActorHandle
        self._limit = max_workers
        self._engine: Engine | None = None
        """The runtime of the calls under way."""
        self._functions: OrderedDict[types.FunctionType, RemoteFunction[..., Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pending: deque[_Work[Any]] = deque()
        self._slots_taken = 0
        self._unfinished: set[_Work[Any]] = set()
        """Handed on and not finished: until the callbacks of its future have run."""
        self._is_shut_down = False
        self._broken: BaseException | None = None
        _executors.add(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Schedule `fn(*args, **kwargs)` and return its future.

        Raises:
            RuntimeError: after `shutdown`, or at the interpreter's end.
            BrokenExecutor: the executor's actor died.
            ValueError: `async def`, unless the executor's actor is async.
        """
        self._check_open()  # before a runtime is started for what will be refused
        work: _Work[T] = _Work(self._caller(fn, args, kwargs))
        running = session.running_engine()
        with self._lock:
            self._check_open()
            self._engine = running
            self._pending.append(work)
        running.callbacks.start()
        lead_by_running_loop(running)
        self._start_more()
        return work.future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of `fn(*items)` for `zip(*iterables)`, in order. Closing the iterator cancels what is pending.

        Args:
            timeout: seconds from now within which each result must be there, else TimeoutError.
            chunksize: calls that travel and run together; without effect for an actor's method.
            buffersize: calls that may be submitted beyond the results taken; None: all of them, now.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1 or isinstance(fn, ActorMethod):
            return _results((self.submit(fn, *items) for items in calls), buffersize, deadline)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        submitted = (self._submit_chunk(fn, chunk) for chunk in chunks)
        ahead = None if buffersize is None else math.ceil(buffersize / chunksize)
        return _flatten(_results(submitted, ahead, deadline))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing new. May be called again.

        Args:
            wait: return only when every future is done and its callbacks have run.
            cancel_futures: cancel what has not started; what runs is not touched.
        """
        with self._lock:
            self._is_shut_down = True
            dropped = self._take_pending() if cancel_futures else []
        for work in dropped:
            work.cancel()
        if wait:
            self._wait_until_idle()

    # From `submit` to `.remote()`

    def _check_open(self) -> None:
        if self._broken is not None:
            raise _broken(self._broken)
        if _exiting.is_set():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _caller(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """What makes the remote call."""
        if isinstance(fn, RemoteFunction | ActorMethod):
            return functools.partial(fn.remote, *args, **kwargs)
        if self._actor is not None:
            return functools.partial(self._actor.__ray_call__.remote, _call_in_actor, fn, args, kwargs)
        remote = self._remote_function(fn)
        if remote is None:
            return functools.partial(self._call_any.remote, fn, args, kwargs)
        return functools.partial(remote.remote, *args, **kwargs)

    def _remote_function(self, fn: Any) -> RemoteFunction[..., Any] | None:
        """The remote function of a plain one; None for what travels with each call: it may hold what is to be freed."""
        if not isinstance(fn, types.FunctionType) or fn.__closure__ is not None:
            return None
        with self._lock:
            if fn in self._functions:
                self._functions.move_to_end(fn)
                return self._functions[fn]
        made: RemoteFunction[..., Any] = RemoteFunction(fn, self._options)
        with self._lock:
            self._functions[fn] = made
            if len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        return made

    def _submit_chunk(self, fn: Any, chunk: list[Any]) -> concurrent.futures.Future[list[Any]]:
        if isinstance(fn, RemoteFunction):
            together: Any = RemoteFunction(_call_each, {**fn._given, "num_returns": 1})
            return self.submit(together, fn._function, chunk)
        return self.submit(_call_each, fn, chunk)

    def _start_more(self) -> None:
        while (work := self._take_next()) is not None:
            try:
                ref = work.start()
            except Exception as error:
                self._free_slot()
                self._finish(work, None, error)
            else:
                self._follow(work, ref)
            del work  # which holds the result once it is there

    def _take_next(self) -> _Work[Any] | None:
        if self._limit is None:
            self._limit = self._default_limit()
        if engine.current_or_none() is not self._engine:  # never start a new runtime for what the last one has left
            self._break(RuntimeShutdownError())
        with self._lock:
            while self._pending and self._slots_taken < self._limit:
                work = self._pending.popleft()
                if work.future.set_running_or_notify_cancel():
                    self._slots_taken += 1
                    self._unfinished.add(work)
                    return work
            self._changed.notify_all()
        return None

    def _default_limit(self) -> int:
        if self._actor is not None:
            return _limit_of(self._actor)
        cpus = Placement.of(self._options, cpus=1).demand.get("CPU", 0)
        total = session.running_engine().resources()[0].get("CPU", 1)
        return max(1, int(total // cpus)) if cpus else DEFAULT_ASYNC_CONCURRENCY

    # From the outcome to the future

    def _follow(self, work: _Work[Any], ref: ObjectRef[Any]) -> None:
        running = self._engine
        assert running is not None
        run = running.callbacks.run
        running.count_sleepers(1)
        ref._future.add_callback(lambda _: running.count_sleepers(-1))
        ref._future.want()
        ref._future.add_callback(lambda _: run(functools.partial(self._arrived, work, ref)))

    def _arrived(self, work: _Work[Any], ref: ObjectRef[Any]) -> None:
        """On the thread of callbacks: the user's objects are unpickled here, and the user's callbacks run here."""
        try:
            value, error = ref.result(), None
        except Exception as raised:
            value, error = None, raised
        if error is not None and self._breaks(error):
            self._break(error)
        self._free_slot()
        self._start_more()
        self._finish(work, value, error)  # last, so that nothing here keeps the result when its reader drops it

    def _free_slot(self) -> None:
        with self._lock:
            self._slots_taken -= 1

    def _finish(self, work: _Work[Any], value: Any, error: Exception | None) -> None:
        if error is None:
            work.future.set_result(value)
        elif error is self._broken:
            work.future.set_exception(_broken(error))
        else:
            work.future.set_exception(error.original() if isinstance(error, TaskError) else error)
        with self._lock:
            self._unfinished.discard(work)
            self._changed.notify_all()

    def _breaks(self, error: Exception) -> bool:
        if isinstance(error, ActorDiedError) and self._actor is not None:
            return error.actor_id in (None, self._actor._actor_id.hex())
        return isinstance(error, RuntimeShutdownError | HeadDiedError)

    def _break(self, error: Exception) -> None:
        with self._lock:
            self._broken = self._broken or error
            dropped = self._take_pending()
        for work in dropped:
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(_broken(self._broken))

    def _take_pending(self) -> list[_Work[Any]]:
        dropped = list(self._pending)
        self._pending.clear()
        return dropped

    def _wait_until_idle(self) -> None:
        with self._lock:
            works = [*self._unfinished, *self._pending]
        for work in works:
            work.future.wait()  # looks for results itself
        with self._lock:
            self._changed.wait_for(lambda: not self._unfinished and not self._pending)


class _Work(Generic[T]):
    """A call that was submitted, and its future."""

    __slots__ = ("_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self.future: ResultFuture[T] = ResultFuture()

    def start(self) -> ObjectRef[T]:
        """Make the remote call, once, and forget its arguments."""
        assert self._call is not None
        call, self._call = self._call, None
        ref = call()
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"A call must have one result; this one returned {type(ref).__name__}.")
        return ref

    def cancel(self) -> None:
        self.future.cancel()
        self.future.set_running_or_notify_cancel()  # tells those in `concurrent.futures.wait`


def _broken(why: BaseException) -> BrokenActorExecutor:
    error = BrokenActorExecutor(f"The executor can run no calls any more: {why}")
    error.__cause__ = why
    return error


def _limit_of(actor: ActorHandle[Any]) -> int:
    info = actor._info
    default = info.max_concurrency or (DEFAULT_ASYNC_CONCURRENCY if info.is_async else 1)
    return default + sum(size for name, size in info.groups.items() if name != "default")


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _call_in_actor(instance: Any, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _call_each(fn: Callable[..., Any], chunk: list[Any]) -> list[Any]:
    return [fn(*items) for items in chunk]


def _results(
    submitted: Iterator[concurrent.futures.Future[T]], ahead: int | None, deadline: float | None
) -> Generator[T, None, None]:
    """Submit so many now, and give all results in order."""
    return _take_each(deque(itertools.islice(submitted, ahead)), submitted, deadline)


def _take_each(
    futures: deque[concurrent.futures.Future[T]],
    submitted: Iterator[concurrent.futures.Future[T]],
    deadline: float | None,
) -> Generator[T, None, None]:
    try:
        while futures:
            futures[0].result(seconds_left(deadline))
            futures.extend(itertools.islice(submitted, 1))
            yield futures.popleft().result()  # nothing here keeps the result once it has been taken
    finally:
        for future in futures:
            future.cancel()


def _flatten(chunks: Generator[list[T], None, None]) -> Generator[T, None, None]:
    with contextlib.closing(chunks):
        for chunk in chunks:
            chunk.reverse()
            while chunk:
                yield chunk.pop()


_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
_exiting = threading.Event()


def _finish_all() -> None:
    """The program ends only when everything that was submitted is done, as with the standard library's executors."""
    _exiting.set()
    for executor in list(_executors):
        executor.shutdown()


atexit.register(_finish_all)  # after the registration of the runtime's own end, hence called before it
os.register_at_fork(after_in_child=_executors.clear)
