"""What a `Pool` hands out for work under way: one class for each way of asking for it.

A job is asked for its pieces one by one (`next_piece`), is told the outcome of each (`arrived`), and is done when it
has read all of them and has all their outcomes.
"""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Final

from klieg import api, engine
from klieg.engines.failures import NOTHING
from klieg.engines.objects import ObjectFuture, seconds_left
from klieg.exceptions import TaskError
from klieg.object_ref import ObjectRef
from klieg.outcome import Value

Piece = tuple[Any, ...]
"""The arguments of `PoolWorker.run` for one piece of work."""

Outcome = ObjectRef[Any] | Exception
"""A ref that is ready, or why there never was one."""

RunCallback = Callable[[Callable[[], None]], None]
"""Runs the user's callbacks, on a thread where they hold up nobody's results."""


class Signal:
    """Something that happens once, and that threads and coroutines wait for while they look for results themselves."""

    def __init__(self) -> None:
        self._future = ObjectFuture(0)

    def is_set(self) -> bool:
        return self._future.outcome is not None

    def set(self) -> None:
        """Called once."""
        self._future.resolve(Value(NOTHING))
        running = engine.current_or_none()
        if running is not None:
            running.nudge()

    def wait(self, timeout: float | None) -> bool:
        if not self.is_set():
            api.wait([ObjectRef(self._future)], timeout=None if timeout is None else max(0, timeout))
        return self.is_set()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ObjectRef(self._future).__await__()


class Job:
    """Work of one call of a pool's method."""

    def __init__(self, pieces: Iterator[Piece], count: int | None, run_callback: RunCallback) -> None:
        """`count`: how many pieces there are, if that is known; it saves asking once more for a piece."""
        self._pieces = pieces
        self._count = count
        self._run_callback = run_callback
        self._lock = threading.Lock()
        self._read = 0
        """Pieces that have been read."""
        self._length: int | None = None
        """Pieces there are in all, once they have all been read."""
        self._outcomes = 0
        self.done = Signal()
        self.when_done: Callable[[Job], None] = _nothing
        """Tells the pool; called once, before `done` is set."""
        self.pool: Any = None
        """Kept alive until the job is done."""

    def has_pieces(self) -> bool:
        """False if it is known that there are none at all."""
        return self._count != 0

    @property
    def is_read(self) -> bool:
        """True when there is no further piece to ask for."""
        return self._length is not None

    def next_piece(self) -> tuple[int, Piece] | None:
        """Number and content of the next piece, None if there is none. An error of the iterable counts as one."""
        index = self._read
        try:
            piece = next(self._pieces)
        except StopIteration:
            self.end()
            return None
        except BaseException as error:
            self._read += 1
            self.end()
            self.arrived(index, error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return None
        self._read += 1
        if self._read == self._count:
            self.end()
        return index, piece

    def end(self) -> None:
        """There are no more pieces than those that were read."""
        with self._lock:
            if self._length is not None:
                return
            self._length = self._read
            self._pieces = iter(())  # they hold the user's items
            complete = self._outcomes >= self._read
        self._ended()
        if complete:
            self._complete()

    def arrived(self, index: int, outcome: Outcome) -> None:
        """A piece is done; from any thread, each once."""
        self._take(index, outcome)
        with self._lock:
            self._outcomes += 1
            complete = self._outcomes == self._length
        if complete:
            self._complete()

    def abort(self, error: Exception) -> None:
        """Fail what is not there yet; the pool is gone."""
        raise NotImplementedError

    def _take(self, index: int, outcome: Outcome) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        """The number of pieces is known now."""

    def _complete(self) -> None:
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            if self.done.is_set():
                return
            self.when_done(self)
            self.pool = None
            self.done.set()


def _nothing(job: Job) -> None:
    return


def open_outcome(outcome: Outcome) -> Any:
    """The value; raises what the worker raised, as its own type, with the remote traceback as its cause."""
    error: BaseException
    if isinstance(outcome, Exception):
        error = outcome
    else:
        try:
            return outcome.result()
        except TaskError as raised:
            error = raised.original()
    raise error


class AsyncResult(Job):
    """The result of `apply_async`, and of `map_async` and `starmap_async`. `await` works on it, too."""

    def __init__(
        self,
        pieces: Iterator[Piece],
        count: int,
        run_callback: RunCallback,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        super().__init__(pieces, count, run_callback)
        self._callbacks = (callback, error_callback)
        self._arrived: dict[int, Outcome] = {}
        self._first_error: Outcome | None = None
        self._aborted: Exception | None = None
        self._settling = threading.Lock()
        self._settled: tuple[bool, Any] | None = None
        """Whether it is a success, and the value or error, once somebody has asked."""

    def ready(self) -> bool:
        """True once there is a value or an error."""
        return self.done.is_set()

    def successful(self) -> bool:
        """True if there is a value, False if there is an error; ValueError if there is neither yet."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._settle()[0]

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, at most `timeout` seconds."""
        self.done.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The value, or raises the error; `multiprocessing.TimeoutError` after `timeout` seconds."""
        if not self.done.wait(timeout):
            raise multiprocessing.TimeoutError
        return self._value_or_raise()

    def __await__(self) -> Generator[Any, None, Any]:
        yield from self.done.__await__()
        return self._value_or_raise()

    def abort(self, error: Exception) -> None:
        self._aborted = error
        self._callbacks = (None, None)
        self._finish()

    def _value_or_raise(self) -> Any:
        success, value = self._settle()
        if success:
            return value
        raise value

    def _take(self, index: int, outcome: Outcome) -> None:
        failed = isinstance(outcome, Exception) or outcome._future.outcome.is_error  # type: ignore[union-attr]  # it is there
        with self._lock:
            if not failed:
                self._arrived[index] = outcome
            elif self._first_error is None:
                self._first_error = outcome

    def _complete(self) -> None:
        if self._callbacks == (None, None):
            self._finish()
        else:
            self._run_callback(self._call_back)

    def _call_back(self) -> None:
        """Whoever waits sees the result after the callback has returned, as with the standard library's pool."""
        success, value = self._settle()
        callback = self._callbacks[not success]
        try:
            if callback is not None:
                callback(value)
        finally:
            self._finish()

    def _settle(self) -> tuple[bool, Any]:
        with self._settling:
            if self._settled is None:
                try:
                    self._settled = (True, self._value())
                except Exception as error:
                    self._settled = (False, error)
                self._arrived.clear()
            return self._settled

    def _value(self) -> Any:
        """Unpickle what has come, once; raises its error."""
        if self._aborted is not None:
            raise self._aborted
        if self._first_error is not None:
            open_outcome(self._first_error)
        return self._put_together([open_outcome(self._arrived[index]) for index in sorted(self._arrived)])

    def _put_together(self, values: list[Any]) -> Any:
        return values[0]


class MapResult(AsyncResult):
    """The list of all results of a map, ready when the last one is; of several errors it raises the first to come."""

    def _put_together(self, values: list[Any]) -> Any:
        return list(itertools.chain.from_iterable(values))


class IMapIterator(Job):
    """Results one by one: in order, or (`imap_unordered`) as they come. `async for` works on it, too."""

    def __init__(self, pieces: Iterator[Piece], run_callback: RunCallback, ordered: bool) -> None:
        super().__init__(pieces, None, run_callback)
        self._ordered = ordered
        self._came: dict[int, Outcome] = {}
        self._came_count = 0
        self._next = 0
        self._opened: deque[Any] = deque()
        """Values of the piece that is being handed out."""
        self._aborted: Exception | None = None
        self._changes: deque[Signal] = deque()
        """One for each of those who wait."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result, or raises its error; `multiprocessing.TimeoutError` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + max(0, timeout)
        while not self._opened:
            change = self._advance()
            if change is not None and not change.wait(seconds_left(deadline)):
                raise multiprocessing.TimeoutError
        return self._opened.popleft()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            while not self._opened:
                change = self._advance()
                if change is not None:
                    await change
        except StopIteration:
            raise StopAsyncIteration from None
        return self._opened.popleft()

    def _advance(self) -> Signal | None:
        """Open the next piece, raising its error; else return what to wait for. StopIteration if there are no more."""
        with self._lock:
            if self._next in self._came:
                outcome = self._came.pop(self._next)
                self._next += 1
            elif self._aborted is not None:
                outcome, self._aborted, self._length = self._aborted, None, self._next
            elif self._length is not None and self._next >= self._length:
                raise StopIteration
            else:
                self._changes.append(change := Signal())
                return change
        self._opened.extend(open_outcome(outcome))
        return None

    def abort(self, error: Exception) -> None:
        with self._lock:
            self._aborted = error
        self._ring()
        self._finish()

    def _take(self, index: int, outcome: Outcome) -> None:
        with self._lock:
            self._came[index if self._ordered else self._came_count] = outcome
            self._came_count += 1
        self._ring()

    def _ended(self) -> None:
        self._ring()

    def _ring(self) -> None:
        while self._changes:
            try:
                change = self._changes.popleft()
            except IndexError:  # another thread took the last one
                return
            change.set()


TERMINATED: Final = "The pool was terminated before this was done."
