"""`multiprocessing.Pool` over actors: `from klieg.util.multiprocessing import Pool`, and the rest stays as it is.

    apply, map, imap ──► Job ──► jobs ──(thread "klieg pool": a worker is idle)──► PoolWorker.run ──► Job.arrived
                                            ▲                                                            │
                                            └───────────────────── idle workers ◄────────────────────────┘

The thread reads the users' iterables and pickles their arguments. It is there while there is something to hand out.
"""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import pickle
import threading
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import TimeoutError
from typing import Any, Final, Literal, NoReturn

import cloudpickle

from klieg import api, engine, session
from klieg.actor import ActorHandle
from klieg.engine import Engine
from klieg.engines.unwrap import mark_read
from klieg.exceptions import ActorError, HeadDiedError, RuntimeShutdownError
from klieg.object_ref import ObjectRef
from klieg.util.pool_results import TERMINATED, AsyncResult, IMapIterator, Job, MapResult, Piece

LINGER: Final = 0.2
"""Seconds for which the thread stays when there is nothing to hand out; starting another costs 0.1 ms."""

FUNCTIONS_LOADED: Final = 32
"""Functions that a worker keeps unpickled."""

State = Literal["RUN", "CLOSE", "TERMINATE"]


class Pool:
    """A pool of worker processes with the methods of `multiprocessing.Pool`; each worker is an actor.

    Other than there, lambdas and closures work, a worker that dies fails the work that it had (and is replaced) instead
    of leaving its caller waiting for ever, and results can be awaited.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the workers.

        Args:
            processes: how many; default: the runtime's CPUs.
            initializer: called with `initargs` in each worker when it starts.
            maxtasksperchild: pieces of work after which a worker is replaced by a fresh one.
            context: accepted, without effect: workers are klieg's.
            ray_address: passed to `init` if klieg is not running.
            ray_remote_args: `.options()` of the workers, such as `{"num_cpus": 1}`.

        Raises ValueError or TypeError for a bad argument.
        """
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if maxtasksperchild is not None and not _is_positive(maxtasksperchild):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if ray_address is not None and not api.is_initialized():
            api.init(address=ray_address)
        if processes is None:
            processes = max(1, int(session.running_engine().resources()[0].get("CPU", 1)))
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        worker = _WORKER.options(**(ray_remote_args or {}))
        make = functools.partial(worker.remote, initializer, tuple(initargs))
        self._crew = _Crew(make, processes, maxtasksperchild)

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> Any:
        """What `func(*args, **kwds)` returns, or raises."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Start one call. `callback(value)` or `error_callback(error)` is called before the result is ready.

        ValueError if the pool was closed.
        """
        pieces = iter([("call", _packed(func), (tuple(args), dict(kwds)))])
        job = AsyncResult(pieces, 1, self._crew.run_callback, callback, error_callback)
        self._crew.submit(job, self)
        return job

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """The list of `func(item)` for every item; raises the first error, once everything has been tried."""
        result: list[Any] = self.map_async(func, iterable, chunksize).get()
        return result

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """`map` without waiting.

        Args:
            chunksize: items that travel together; default: so that each worker gets about four pieces.
        """
        return self._map_async("map", func, iterable, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """The list of `func(*item)` for every item."""
        result: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return result

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """`starmap` without waiting."""
        return self._map_async("starmap", func, iterable, chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """The results one by one, in order. The iterable is read as workers become idle, by a thread of the pool."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """The results one by one, as they come."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def close(self) -> None:
        """Take no more work; the workers end when they have done what there is."""
        self._crew.close()

    def terminate(self) -> None:
        """End the workers now; what is not done fails with `multiprocessing.ProcessError`."""
        self._crew.terminate()

    def join(self) -> None:
        """Wait until all work is done and the workers are gone; ValueError before `close` or `terminate`."""
        self._crew.join()

    def __enter__(self) -> Pool:
        self._crew.check_running()
        return self

    def __exit__(self, *exc: object) -> None:
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__module__}.{type(self).__qualname__} state={self._crew.state} pool_size={self._crew.size}>"
        )

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        crew = self.__dict__.get("_crew")
        if crew is not None and crew.state == "RUN":
            text = f"unclosed running multiprocessing pool {self!r}"
            crew.abandon()  # first: where warnings are errors, the next line is the last
            _warn(text, ResourceWarning, source=self)

    def _map_async(
        self,
        how: str,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> MapResult:
        self._crew.check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        size = chunksize or math.ceil(len(items) / (self._crew.size * 4)) or 1
        pieces, count = _pieces(how, func, items, size), math.ceil(len(items) / size)
        job = MapResult(pieces, count, self._crew.run_callback, callback, error_callback)
        self._crew.submit(job, self)
        return job

    def _imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, ordered: bool) -> IMapIterator:
        self._crew.check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        job = IMapIterator(_pieces("map", func, iterable, chunksize), self._crew.run_callback, ordered)
        self._crew.submit(job, self)
        return job


def _is_positive(number: Any) -> bool:
    return isinstance(number, int) and number > 0


def _pieces(how: str, func: Callable[..., Any], iterable: Iterable[Any], size: int) -> Iterator[Piece]:
    packed, items = _packed(func), iter(iterable)
    while chunk := list(itertools.islice(items, size)):
        yield how, packed, chunk


def _packed(func: Callable[..., Any]) -> Any:
    """A function, pickled once for all its pieces. Other callables travel with each piece: they may have a state."""
    if isinstance(func, types.FunctionType) and func.__closure__ is None:
        try:
            return _Pickled(cloudpickle.dumps(func))
        except Exception:  # the worker's call will say what is wrong with it
            return func
    return func


class _Pickled(bytes):
    """A pickled function."""


class PoolWorker:
    """The actor."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self._load = functools.lru_cache(FUNCTIONS_LOADED)(pickle.loads)
        if initializer is not None:
            initializer(*initargs)

    def run(self, how: str, func: Any, work: Any) -> Any:
        """One piece of work: `how` says what `work` holds."""
        if isinstance(func, _Pickled):
            func = self._load(func)
        if how == "call":
            args, kwds = work
            return func(*args, **kwds)
        return [func(*item) for item in work] if how == "starmap" else [func(item) for item in work]


_WORKER = api.remote(PoolWorker)


class _Member:
    """A worker as the pool sees it."""

    __slots__ = ("actor", "pieces")

    def __init__(self, actor: ActorHandle[Any]) -> None:
        self.actor = actor
        self.pieces = 0
        """How many it was given."""


class _Crew:
    """The workers of a pool and what they are to do. The thread knows it, not the pool: it would keep that alive."""

    def __init__(self, make: Callable[[], ActorHandle[Any]], size: int, most_pieces: int | None) -> None:
        self.size = size
        self.state: State = "RUN"
        self._make = make
        self._most_pieces = most_pieces
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        """Those that have pieces to hand out."""
        self._unfinished: set[Job] = set()
        self._members: set[_Member] = set()
        self._idle: deque[_Member] = deque()
        self._leaving: list[ObjectRef[Any]] = []
        self._thread: threading.Thread | None = None
        self._engine: Engine = session.running_engine()
        for _ in range(size):
            self._idle.append(self._hire())

    def run_callback(self, function: Callable[[], None]) -> None:
        self._engine.callbacks.run(function)

    def check_running(self) -> None:
        if self.state != "RUN" or engine.current_or_none() is not self._engine:
            raise ValueError("Pool not running")

    def submit(self, job: Job, pool: Pool) -> None:
        job.when_done, job.pool = self._job_done, pool
        with self._changed:
            self.check_running()
            self._unfinished.add(job)
            if len(self._unfinished) == 1:
                self._engine.count_sleepers(1)
            if job.has_pieces():
                self._line_up(job)
        if not job.has_pieces():
            job.end()

    def _line_up(self, job: Job) -> None:
        self._jobs.append(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._hand_out, name="klieg pool", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            if self.state == "RUN":
                self.state = "CLOSE"
            self._changed.notify_all()
            idle = not self._unfinished
        if idle:
            self._dismiss()

    def terminate(self) -> None:
        self._end(multiprocessing.ProcessError(TERMINATED))

    def abandon(self) -> None:
        """Nobody has the pool any more. Called by a finalizer: dropping the handles is enough, and takes no lock."""
        self.state = "TERMINATE"
        self._members.clear()
        self._idle.clear()

    def join(self) -> None:
        if self.state == "RUN":
            raise ValueError("Pool is still running")
        while self._unfinished:
            for job in list(self._unfinished):
                job.done.wait(None)
        thread = self._thread
        if thread is not None:
            thread.join()
        if self._leaving and api.is_initialized():
            api.wait(self._leaving, num_returns=len(self._leaving))

    # The thread

    def _hand_out(self) -> None:
        session.NO_AUTO_INIT.add(threading.get_ident())
        try:
            while self._hand_out_one():  # a call for each, so that nothing here keeps the last one while it waits
                pass
        finally:
            session.NO_AUTO_INIT.discard(threading.get_ident())

    def _hand_out_one(self) -> bool:
        """Give the next piece to a worker; False when the thread may end."""
        job = self._wait_for_work()
        if job is None:
            return False
        read = job.next_piece()  # runs the user's iterator, so under no lock
        if job.is_read:
            with self._changed:
                if job in self._jobs:  # unless the pool was terminated meanwhile
                    self._jobs.remove(job)
        if read is not None:
            self._give(job, *read)
        return True

    def _wait_for_work(self) -> Job | None:
        """The first job once there is a worker for it; None when the thread may end."""
        with self._changed:
            while self.state != "TERMINATE":
                if self._jobs:
                    if self._idle or len(self._members) < self.size:
                        return self._jobs[0]
                    self._changed.wait()
                elif self.state == "CLOSE" or not (self._changed.wait(LINGER) or self._jobs):
                    break
            self._thread = None
            return None

    def _give(self, job: Job, index: int, piece: Piece) -> None:
        member = None
        try:
            member = self._idle.popleft() if self._idle else self._hire()
            ref = member.actor.run.remote(*piece)
        except Exception as error:  # the arguments cannot be pickled, or the runtime is gone
            if member is not None:
                self._idle.append(member)
            self._end_if_over(error)
            job.arrived(index, error)
            return
        member.pieces += 1
        ref._future.want()
        ref._future.add_callback(lambda _: self._arrived(member, job, index, ref))

    def _hire(self) -> _Member:
        member = _Member(self._make())
        self._members.add(member)
        return member

    # From the outcome to the job

    def _arrived(self, member: _Member, job: Job, index: int, ref: ObjectRef[Any]) -> None:
        outcome = ref._future.outcome
        if outcome is not None and outcome.is_error:  # has to be unpickled, which is not to hold up others' results
            self._engine.callbacks.run(lambda: self._failed(member, job, index, ref))
            return
        self._take_back(member)
        job.arrived(index, ref)

    def _failed(self, member: _Member, job: Job, index: int, ref: ObjectRef[Any]) -> None:
        error = ref.exception()
        if isinstance(error, ActorError):
            self._members.discard(member)
            with self._changed:
                self._changed.notify_all()
        else:
            self._take_back(member)
        self._end_if_over(error)
        job.arrived(index, ref)

    def _take_back(self, member: _Member) -> None:
        with self._changed:
            if self._most_pieces is not None and member.pieces >= self._most_pieces:
                self._members.discard(member)
            elif member in self._members:
                self._idle.append(member)
            self._changed.notify_all()

    def _job_done(self, job: Job) -> None:
        with self._changed:
            self._unfinished.discard(job)
            if not self._unfinished:
                self._engine.count_sleepers(-1)
            leave = self.state == "CLOSE" and not self._unfinished
        if leave:
            self._dismiss()

    # The end

    def _dismiss(self) -> None:
        """All work is done: let the workers go."""
        with self._changed:
            members, self._members = self._members, set()
            self._idle.clear()
        self._leaving = [member.actor.__ray_terminate__.remote() for member in members]
        for ref in self._leaving:
            ref._future.add_callback(mark_read)  # that the worker is gone then is no news to be reported

    def _end_if_over(self, error: BaseException | None) -> None:
        if isinstance(error, RuntimeShutdownError | HeadDiedError):
            self._end(error)

    def _end(self, error: Exception) -> None:
        with self._changed:
            self.state = "TERMINATE"
            jobs, members = list(self._unfinished), list(self._members)
            self._jobs.clear()
            self._members.clear()
            self._idle.clear()
            self._changed.notify_all()
        for job in jobs:
            job.abort(error)
        if engine.current_or_none() is self._engine:
            for member in members:
                api.kill(member.actor)


__all__ = ["AsyncResult", "Pool", "TimeoutError"]
