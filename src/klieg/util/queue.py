"""A first-in, first-out queue between processes: an async actor, and a proxy that may be passed to anybody.

    put ──► group "put" ──┐                       ┌──► group "get" ──► get
                          └──► items and waiters ─┘
    everything else ──► group "default"

Rules kept here:
- each of the three groups has its own slots, so that those who wait to put never keep out those who would get, nor
  the other way round, and a question or a `put_nowait` is always answered.
- an item is handed from one hand to the next within one step of the actor's loop. One that was handed out and did not
  leave the process goes back to the head of the queue (`_Handed`); one that did leave, to a consumer that has given up
  waiting, is sent back by the consumer (`_GiveBack`). So a getter that is cancelled or interrupted loses nothing; one
  whose process dies loses at most what was on its way to it.
- time-outs are kept by the actor and answered by a sign, never by an error that has to travel.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from klieg import api
from klieg.actor import exit_actor, method
from klieg.engines.unwrap import mark_read
from klieg.exceptions import ActorDiedError
from klieg.object_ref import ObjectRef

T = TypeVar("T")

NO_LIMIT: Final = 1 << 30
"""Calls that may wait at each end; a waiting call costs some memory and nothing else."""


class Empty(Exception):
    """There was nothing to get, or not enough, or not in time."""


class Full(Exception):
    """There was no room, or not enough, or not in time."""


class Queue(Generic[T]):
    """A queue whose two ends may be in any processes. Pass it to tasks and actors; it ends with its last copy.

    In a coroutine use the methods that end in `_async`: the others wait, which an async actor's loop refuses.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        """Start the actor that holds the items.

        Args:
            maxsize: items it holds at most; 0 or less: no limit.
            actor_options: `.options()` of that actor, such as `{"name": "jobs", "num_cpus": 1}`.
        """
        self.maxsize = maxsize
        self.actor: Any = _ACTOR.options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Items in the queue now."""
        size: int = api.get(self.actor.size.remote())
        return size

    def qsize(self) -> int:
        """Items in the queue now."""
        return self.size()

    def empty(self) -> bool:
        """True if there is nothing in it."""
        return self.size() == 0

    def full(self) -> bool:
        """True if there is no room in it."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; waits for room, at most `timeout` seconds.

        Raises:
            Full: no room, and block is False or the time is up.
            ValueError: a negative timeout.
        """
        ref = self._put(item, block, timeout)
        _check_put(_get_or(ref, _stop))

    async def put_async(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """`put` for coroutines. If it is cancelled, the item may be in the queue or not."""
        ref = self._put(item, block, timeout)
        _check_put(await _await_or(ref, _stop))

    def put_nowait(self, item: T) -> None:
        """Add an item; Full if there is no room."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[T]) -> None:
        """Add all items, in order, or none: Full if there is not enough room. TypeError for what is not iterable."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        items = list(items)
        room = api.get(self.actor.put_batch.remote(items))
        if room is not None:
            raise Full(f"Cannot add {len(items)} items to queue with room for {room} of maxsize {self.maxsize}.")

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """The first item, taken out; waits for one, at most `timeout` seconds.

        Raises:
            Empty: no item, and block is False or the time is up.
            ValueError: a negative timeout.
        """
        ref = self._get(block, timeout)
        item: T = _check_got(_get_or(ref, self._give_up))
        return item

    async def get_async(self, block: bool = True, timeout: float | None = None) -> T:
        """`get` for coroutines. If it is cancelled, the item stays in the queue, or goes back to its head."""
        ref = self._get(block, timeout)
        item: T = _check_got(await _await_or(ref, self._give_up))
        return item

    def get_nowait(self) -> T:
        """The first item, taken out; Empty if there is none."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[T]:
        """That many items, in order, or none: Empty if there are fewer. TypeError, ValueError for what is no count."""
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        got = _get_or(self.actor.get_batch.remote(num_items), self._give_up)
        if isinstance(got, int):
            raise Empty(f"Cannot get {num_items} items from queue of size {got}.")
        items: list[T] = got.items
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue: whoever waits for it, and every later use, gets ActorDiedError; items in it are gone.

        Args:
            force: kill the actor at once, instead of asking it to leave.
            grace_period_s: seconds it gets to leave before it is killed.
        """
        if not force:
            left = self.actor.close.remote()
            left._future.add_callback(mark_read)  # that the actor is gone then is no news to be reported
            api.wait([left], timeout=grace_period_s)
        api.kill(self.actor)

    def __repr__(self) -> str:
        return f"Queue({self.actor!r}, maxsize={self.maxsize})"

    def _put(self, item: T, block: bool, timeout: float | None) -> ObjectRef[bool]:
        ref: ObjectRef[bool]
        ref = self.actor.put.remote(item, _checked(timeout)) if block else self.actor.put_nowait.remote(item)
        return ref

    def _get(self, block: bool, timeout: float | None) -> ObjectRef[_Handed | None]:
        ref: ObjectRef[_Handed | None]
        ref = self.actor.get.remote(_checked(timeout)) if block else self.actor.get_nowait.remote()
        return ref

    def _give_up(self, ref: ObjectRef[Any]) -> None:
        """Nobody waits for the answer to this any more: take what it still may bring back to the queue."""
        if ref.done() and ref.exception() is not None:
            return
        ref._on_completed(_GiveBack(self.actor))
        _stop(ref)


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


def _check_put(done: bool) -> None:
    if not done:
        raise Full


def _check_got(got: _Handed | None) -> Any:
    if got is None:
        raise Empty
    return got.items[0]


GiveUp = Callable[[ObjectRef[Any]], None]


def _stop(ref: ObjectRef[Any]) -> None:
    if not ref.done():
        api.cancel(ref)


def _get_or(ref: ObjectRef[Any], give_up: GiveUp) -> Any:
    try:
        return api.get(ref)
    except BaseException:  # the call's own error, or Ctrl-C: then nobody waits for the answer any more
        give_up(ref)
        raise


async def _await_or(ref: ObjectRef[Any], give_up: GiveUp) -> Any:
    try:
        return await ref
    except BaseException:
        give_up(ref)
        raise


class _GiveBack:
    """Called with what came to a getter that had given up: items, or an error that says that there were none."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self, got: Any) -> None:
        if isinstance(got, _Handed):
            self._actor.put_back.remote(got.items)


class _Handed:
    """Items on their way out of the actor. Once pickled they are out; dropped before that, they go back.

    The second happens to the value of a call that was cancelled in its very last step, and nobody else is told.
    """

    def __init__(self, items: list[Any], take_back: Callable[[list[Any]], None] | None = None) -> None:
        self.items = items
        self._take_back = take_back

    def hand_back(self) -> None:
        take_back, self._take_back = self._take_back, None
        if take_back is not None:
            take_back(self.items)

    def __reduce__(self) -> tuple[Any, ...]:
        self._take_back = None
        return _Handed, (self.items,)

    __del__ = hand_back


class QueueActor:
    """The items, those who wait for one, and those who wait for room, each with the item they bring.

    Somebody waits to get only while there are no items, and to put only while there is no room.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._items: deque[Any] = deque()
        self._getters: OrderedDict[asyncio.Future[_Handed | None], None] = OrderedDict()
        self._putters: OrderedDict[asyncio.Future[bool], Any] = OrderedDict()

    def size(self) -> int:
        return len(self._items)

    @method(concurrency_group="put")
    async def put(self, item: Any, timeout: float | None) -> bool:
        """True once the item is in, False when the time is up."""
        return self.put_nowait(item) or await _turn(self._putters, item, timeout, False)

    def put_nowait(self, item: Any) -> bool:
        room = self._room()
        if room:
            self._add(item)
        return room > 0

    def put_batch(self, items: list[Any]) -> int | None:
        """None once all items are in; else how many there would be room for."""
        room = self._room()
        if len(items) > room:
            return room
        for item in items:
            self._add(item)
        return None

    @method(concurrency_group="get")
    async def get(self, timeout: float | None) -> _Handed | None:
        """The first item, None when the time is up."""
        return self.get_nowait() or await _turn(self._getters, None, timeout, None)

    def get_nowait(self) -> _Handed | None:
        return self._take(1) if self._items else None

    def get_batch(self, count: int) -> _Handed | int:
        """So many items; if there are fewer, how many there are."""
        return self._take(count) if count <= len(self._items) else len(self._items)

    def put_back(self, items: list[Any]) -> None:
        """Items that were taken out and have reached nobody: they come first again, whether there is room or not."""
        self._items.extendleft(reversed(items))
        self._serve_getters()

    def close(self) -> None:
        """Tell everybody who waits, and leave."""
        waiting: list[asyncio.Future[Any]] = [*self._getters, *self._putters]
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(ActorDiedError("The queue was shut down."))
        exit_actor()

    def _room(self) -> int:
        return max(0, self._maxsize - len(self._items)) if self._maxsize > 0 else NO_LIMIT

    def _add(self, item: Any) -> None:
        self._items.append(item)
        self._serve_getters()

    def _take(self, count: int) -> _Handed:
        taken = [self._items.popleft() for _ in range(count)]
        self._serve_putters()
        return _Handed(taken, self.put_back)

    def _serve_getters(self) -> None:
        while self._items and self._getters:
            getter, _ = self._getters.popitem(last=False)
            if not getter.done():
                getter.set_result(self._take(1))

    def _serve_putters(self) -> None:
        while self._putters and self._room():
            putter, item = self._putters.popitem(last=False)
            if not putter.done():
                self._items.append(item)
                putter.set_result(True)


async def _turn(line: OrderedDict[asyncio.Future[T], Any], item: Any, timeout: float | None, timed_out: T) -> T:
    """Stand in line until served, or until the time is up."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[T] = loop.create_future()
    line[turn] = item
    timer = loop.call_later(timeout, _set, turn, timed_out) if timeout is not None else None
    try:
        return await turn
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled() and isinstance(served := turn.result(), _Handed):
            served.hand_back()  # served and cancelled in one step
        raise
    finally:
        line.pop(turn, None)
        if timer is not None:
            timer.cancel()


def _set(turn: asyncio.Future[T], value: T) -> None:
    if not turn.done():
        turn.set_result(value)


_ACTOR = api.remote(concurrency_groups={"put": NO_LIMIT, "get": NO_LIMIT})(QueueActor)
