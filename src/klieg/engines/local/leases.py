"""Tasks on their way to workers: ask the head once for a worker of that shape, push many tasks, give it back when idle.

A worker that answers fast gets several tasks at a time; one that is slow, or that waits for something itself, gives
back what it has not started, and it goes to another. So pipelining never makes a task wait for a slow neighbour.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from klieg.engines.calls import Channel, OutgoingCall
from klieg.engines.local.peer import Peer
from klieg.exceptions import TaskPlacementGroupRemoved, TaskUnschedulableError, WorkerCrashedError
from klieg.placement import Placement
from klieg.task import FunctionSpec

if TYPE_CHECKING:
    from klieg.engines.local.engine import LocalEngine

DEEPEST: Final = 128
"""Tasks that may be in one fast worker at a time: enough to hide the round trip, little to take back."""

FAST: Final = 0.001
"""Seconds between two answers of a worker that is worth pipelining to."""

IDLE: Final = 0.25
"""Seconds a worker is kept without work before it is given back."""

TURN: Final = 0.05
"""Seconds a worker may be kept busy while somebody else waits for one: many round trips, and little to wait."""

NO_LIMIT: Final = 1 << 62

MOST_REQUESTS: Final = 64
"""Requests for workers that may stand open at the head from one process for one shape."""


class Leased:
    """A worker that this process may send tasks to."""

    __slots__ = ("answered", "depth", "idle_since", "inflight", "left", "peer", "since", "wanted")

    def __init__(self, peer: Peer, left: int) -> None:
        self.peer = peer
        self.left = left
        """Calls it may still be sent."""
        self.since = time.monotonic()
        self.wanted = False
        """True once somebody waits for a worker."""
        self.inflight: dict[OutgoingCall, None] = {}
        """Tasks it has, oldest first: the first is the one that runs."""
        self.depth = 1
        self.answered = 0.0
        self.idle_since = self.since

    @property
    def is_worn(self) -> bool:
        return self.left == 0

    def has_room(self) -> bool:
        """True if it may be sent another task now: it has room, is not worn out, and no other waits for it too long."""
        if len(self.inflight) >= self.depth or self.left <= 0:
            return False
        return not (self.wanted and time.monotonic() - self.since > TURN)


class TaskChannel(Channel):
    """The tasks of this process that need the same resources."""

    target = "a worker"

    def __init__(self, engine: LocalEngine, function: FunctionSpec, placement: Placement) -> None:
        super().__init__(strict=False)
        self.engine = engine
        self._placement = placement
        self._max_calls = function.max_calls
        """How many calls a worker may run before it ends; 0: no limit. Then all calls are of one function."""
        self._width = function.max_concurrency
        """Tasks that share a worker by design: async ones."""
        self._queue: deque[OutgoingCall] = deque()
        self._workers: dict[Peer, Leased] = {}
        self._requests: set[int] = set()

    def unsent(self) -> list[tuple[OutgoingCall, str]]:
        with self._lock:
            waiting = [(call, "waits for a worker") for call in self._queue]
        return [*super().unsent(), *waiting]

    def send(self, call: OutgoingCall) -> None:
        with self._lock:
            self._queue.append(call)
            self._push()

    def _push(self) -> None:
        """Give waiting tasks to workers with room, the emptiest first; ask for more workers if tasks are left."""
        queue = self._queue
        for leased in sorted(self._workers.values(), key=_load):
            while queue and leased.has_room():
                call = queue[0]
                if leased.inflight and self._width == 1 and not _may_share(call):
                    break
                queue.popleft()
                leased.inflight[call] = None
                leased.left -= 1
                leased.peer.send_call(call)
            if not queue:
                return
        wanted = min(len(queue), MOST_REQUESTS) - len(self._requests)
        for _ in range(wanted):
            self._request()

    def _request(self) -> None:
        cell: list[int] = []
        number = self.engine.head.request(
            "lease",
            lambda answer, fds: self._granted(answer, fds, cell),
            placement=self._placement.dump(),
            width=self._width,
        )
        cell.append(number)
        self._requests.add(number)

    def _granted(self, answer: dict[str, Any], fds: list[int], cell: list[int]) -> None:
        with self._lock:
            self._requests.difference_update(cell)
            if "process" in answer:
                self._employ(answer["process"], fds)
                return
            refused = list(self._queue) if "impossible" in answer or "lost" in answer else []
            if refused:
                self._queue.clear()
            elif self._queue:  # withdrawn, and tasks have come meanwhile that counted on the request: ask again
                self._push()
        for call in refused:
            if "lost" in answer:
                call.fail(self.engine.gone())
            elif answer.get("group_removed"):
                call.fail(TaskPlacementGroupRemoved(f"The task {call.spec.name} cannot run: {answer['impossible']}"))
            else:
                call.fail(TaskUnschedulableError(f"The task {call.spec.name} can never run: {answer['impossible']}"))

    def _employ(self, process: int, fds: list[int]) -> None:
        """Take the worker that was granted, unless it is one that we know and that has died meanwhile."""
        peer = self.engine.peer_of(process, fds)
        if peer is None:
            self.engine.head.tell("end_worker", process=process)
            self._push()
            return
        peer.users.add(self)
        leased = self._workers[peer] = Leased(peer, self._max_calls or NO_LIMIT)
        leased.depth = self._width
        self.engine.watch_leases()
        self._push()
        if not leased.inflight:
            self._give_back(leased)

    def ended(self, call: OutgoingCall) -> None:
        self.came_back(call)

    def came_back(self, call: OutgoingCall) -> None:
        peer = call.peer
        if peer is None:
            return
        with self._lock:
            leased = self._workers.get(peer)
            if leased is None or call not in leased.inflight:
                return
            del leased.inflight[call]
            now = time.monotonic()
            if self._width == 1:
                leased.depth = min(2 * leased.depth, DEEPEST) if now - leased.answered < FAST else 1
            leased.answered = leased.idle_since = now
            if not leased.inflight and (leased.is_worn or (leased.wanted and now - leased.since > TURN)):
                self._give_back(leased)
            if self._queue:
                self._push()

    def returned(self, call: OutgoingCall, peer: Peer) -> None:
        """The worker has not started the task and is busy: it goes to the front of the line again."""
        with self._lock:
            leased = self._workers.get(peer)
            if leased is not None:
                leased.inflight.pop(call, None)
                leased.left += 1
                leased.depth = 1
            if call.expired:
                return
            call.peer = None
            call.exclusive = True
            self._queue.appendleft(call)
            self.engine.push_soon(self)

    def push(self) -> None:
        with self._lock:
            self._push()

    def peer_lost(self, peer: Peer, unfinished: list[OutgoingCall]) -> None:
        with self._lock:
            self._workers.pop(peer, None)
        if unfinished:
            self.engine.head.request("why", lambda answer, _: self._explained(answer, unfinished), process=peer.process)

    def _explained(self, answer: dict[str, Any], unfinished: list[OutgoingCall]) -> None:
        """Each of them may have run: answers are written together, so those before the one that was running may be
        among the lost ones. A task that only stood behind others counts as tried once; from then on it stands alone."""
        again = []
        for call in unfinished:
            if call.retries:
                call.retries -= call.retries > 0
                call.peer = None
                call.exclusive = True
                again.append(call)
            elif "lost" in answer:
                call.fail(self.engine.gone())
            else:
                call.fail(WorkerCrashedError(f"The worker that ran {call.spec.name}() died: {answer['dead']}"))
        if again:
            with self._lock:
                self._queue.extendleft(reversed(again))
                self._push()

    def cancel_held(self, call: OutgoingCall, error: BaseException) -> bool:
        if super().cancel_held(call, error):
            return True
        with self._lock:
            if call not in self._queue:
                return False
            self._queue.remove(call)
        call.fail(error)
        return True

    def give_back_idle(self, at_once: bool = False) -> bool:
        """Give back the workers that have had nothing to do for a while; True if some are still held."""
        now = time.monotonic()
        with self._lock:
            surplus = len(self._requests) - len(self._queue)
            for number in list(self._requests)[: max(0, surplus)]:
                self.engine.head.tell("withdraw", lease=number)
            for leased in list(self._workers.values()):
                if not leased.inflight and (at_once or now - leased.idle_since > IDLE):
                    self._give_back(leased)
            return bool(self._workers or self._requests)

    def _give_back(self, leased: Leased) -> None:
        self._workers.pop(leased.peer, None)
        leased.peer.users.discard(self)
        self.engine.head.tell("give_back", process=leased.peer.process, worn=self._max_calls > 0)

    def somebody_waits(self) -> None:
        """Others want workers: give back what is idle now, and the rest when its turn is over."""
        with self._lock:
            for leased in list(self._workers.values()):
                leased.wanted = True
        self.give_back_idle(at_once=True)

    def drain(self) -> list[OutgoingCall]:
        with self._lock:
            calls = list(self._queue)
            self._queue.clear()
        return calls


def _load(leased: Leased) -> int:
    return len(leased.inflight)


def _may_share(call: OutgoingCall) -> bool:
    """A task that was given back, or must not run twice, goes to a worker of its own."""
    return not call.exclusive and call.retries != 0
