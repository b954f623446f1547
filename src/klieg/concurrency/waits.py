"""Who waits for whom: what each process knows of it, and the waits that, all told, cannot end. Pure, but for the facts.

    running call ──blocks in `get` for──► call ──queued behind──► the calls that hold the places of its group
                                           └──held back for──► the calls that are its arguments

A call is stuck if everything that could end its wait is stuck. Only waits without a timeout count, of calls without a
deadline; whatever is not known counts as something that may still end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from klieg.concurrency import stacks
from klieg.concurrency.call import CURRENT, RUNNING, Call
from klieg.concurrency.executors import run_sync
from klieg.ids import COUNTER_MASK

if TYPE_CHECKING:
    from klieg.concurrency.host import Host

BLOCKED: Final[dict[int, Sequence[Any]]] = {}
"""For each thread that waits in a call, without a timeout, for futures: those."""

MOST: Final = 1_000
"""Queued calls of one group that are listed; the others count as calls that may still start."""

Facts = Mapping[str, Any]
"""What one process knows, as JSON can carry it: {pid, hosts: [{title, groups, blocked}], late}.

groups: [{name, limit, running: [number], queued: [[number, label]]}]; blocked: [[number, label, [awaited number]]];
late: [[number, label, [awaited number]]], the calls that this process has not sent since their arguments are not there.
"""

Circle = tuple[int, ...]
"""Numbers of calls, each of which waits for the next, and the last for the first."""

Evidence = frozenset[tuple[int, tuple[int, ...]]]
"""Each call that a circle rests on, and all that could end its wait."""

BEGINNING: Final = "These calls wait for one another, and none of them can go on:"
CURE: Final = (
    "Only a cancellation, or the end of an actor, can end this. Let one of these actors run another call meanwhile "
    "(`max_concurrency`, or methods that `await`), or let the one that waits return first; `get(timeout=...)` and the "
    "option `timeout` bound a wait."
)


def waits_of(host: Host) -> dict[str, Any]:
    """What one actor, or worker of tasks, knows of who waits for whom."""
    name = "a worker of tasks" if host.runs_tasks else host.name
    return {
        "title": f"{name} named {host.actor_name!r}" if host.actor_name else name,
        "groups": [
            {
                "name": group.name,
                "limit": group.limit,
                "running": [call.number for call in host.running_in(group.name)],
                "queued": [[c.number, c.label] for c in list(group.waiting)[:MOST] if c.deadline is None],
            }
            for group in host.mailbox.groups.values()
        ],
        "blocked": [
            [call.number, call.label, numbers]
            for call, numbers in _blocked_calls().items()
            if call.host is host and call.deadline is None and call.state is RUNNING
        ],
    }


def late(calls: Iterable[tuple[Any, str]]) -> list[list[Any]]:
    """Of the calls that have not been sent, and what holds each back: those that wait for their arguments."""
    waiting = ((call, _numbers(f for _, f in call.dependencies or ())) for call, _ in calls if call.deadline is None)
    return [[call.id, f"{call.spec.name} #{call.id & COUNTER_MASK}", numbers] for call, numbers in waiting if numbers]


def all_blocked(host: Host, group: str) -> bool:
    """True if every call that holds a place of the group waits for others without a timeout."""
    blocked = _blocked_calls()
    return all(call in blocked for call in host.running_in(group))


def _blocked_calls() -> dict[Call, list[int]]:
    """The calls whose own thread waits, and the numbers of the unfinished calls that it waits for."""
    found: dict[Call, list[int]] = {}
    for ident, futures in list(BLOCKED.items()):
        for frame in reversed(stacks.thread_frames(ident)):
            if frame.f_code is run_sync.__code__ and (call := frame.f_locals.get("call")) is not None:
                found[call] = _numbers(futures)
                break
    return found


def _numbers(futures: Iterable[Any]) -> list[int]:
    """The calls behind the futures that have no outcome."""
    return [future.id if (call := future.call) is None else call.id for future in futures if future.outcome is None]


class Waits:
    """The facts of all processes together."""

    def __init__(self, processes: Iterable[Facts]) -> None:
        self._awaits: dict[int, list[int]] = {}
        """What each blocked or late call waits for."""
        self._holders: dict[int, list[int]] = {}
        """For each queued call, those that hold the places of its group."""
        self._late: set[int] = set()
        self._words: dict[int, str] = {}
        for facts in processes:
            self._add(facts)

    def _add(self, facts: Facts) -> None:
        for number, label, awaited in facts["late"]:
            self._awaits[number] = awaited
            self._late.add(number)
            self._words[number] = f"{label} is held back in pid {facts['pid']} until its arguments are there, from"
        for host in facts["hosts"]:
            where = f"{host['title']}, pid {facts['pid']}"
            for number, label, awaited in host["blocked"]:
                self._awaits[number] = awaited
                self._words[number] = f"{label} runs in {where}, and waits for"
            for group in host["groups"]:
                if len(group["running"]) >= group["limit"]:
                    self._add_full(group, where)

    def _add_full(self, group: Mapping[str, Any], where: str) -> None:
        of_group = "" if group["name"] == "default" else f" of group {group['name']!r}"
        for number, label in group["queued"]:
            self._holders[number] = group["running"]
            self._words[number] = f"{label} is queued in {where}, behind what holds the limit{of_group}"

    def stuck(self) -> set[int]:
        """The calls that nothing among those known can end: what is left when all that may end is taken out."""
        left = {*self._awaits, *self._holders}
        while may_end := {number for number in left if not self._is_held(number, left)}:
            left -= may_end
        return left

    def _is_held(self, number: int, stuck: set[int]) -> bool:
        if number in self._late:  # it needs every one of them
            return any(awaited in stuck for awaited in self._awaits[number])
        reasons = self._reasons(number)
        return bool(reasons) and all(reason in stuck for reason in reasons)

    def circles(self) -> dict[Circle, Evidence]:
        """The circles among the stuck calls, each from its smallest number on, and what shows it."""
        stuck, found = self.stuck(), dict[Circle, Evidence]()
        for start in sorted(stuck):
            path = [start]
            while (following := self._next(path[-1], stuck)) not in path:
                path.append(following)
            circle = path[path.index(following) :]
            first = circle.index(min(circle))
            found[(*circle[first:], *circle[:first])] = self._evidence(min(circle), stuck)
        return found

    def _evidence(self, start: int, stuck: set[int]) -> Evidence:
        """The reasons of the call, and of all that these lead to."""
        found: dict[int, tuple[int, ...]] = {}
        ahead = [start]
        while ahead:
            number = ahead.pop()
            if number in stuck and number not in found:
                found[number] = tuple(self._reasons(number))
                ahead += found[number]
        return frozenset(found.items())

    def _reasons(self, number: int) -> Sequence[int]:
        return self._awaits.get(number) or self._holders.get(number) or ()

    def _next(self, number: int, stuck: set[int]) -> int:
        return next(reason for reason in self._reasons(number) if reason in stuck)

    def first_queued(self, circle: Circle) -> int:
        """The call whose actor is to tell of the circle; 0 if none is queued in an actor."""
        return next((number for number in circle if number in self._holders), 0)

    def describe(self, circle: Circle) -> str:
        """What is wrong, a line for each call of the circle, and what can be done."""
        lines = [f"  {self._words[number]}" for number in (*circle, circle[0])]
        return "\n".join([BEGINNING, *lines[:-1], f"{lines[-1].partition(' is ')[0].partition(' runs ')[0]}.", CURE])


def confirmed(first: Waits, second: Waits) -> list[Circle]:
    """The circles that were there both times, for the same reasons.

    Processes are asked one after the other, so one look may see a circle that never was. What a call waits for, or is
    queued behind, on both sides of a moment, it waits for at that moment."""
    before = first.circles()
    return [circle for circle, evidence in second.circles().items() if before.get(circle) == evidence]


Wait = Callable[[Callable[[], bool], Sequence[Any], float | None], bool]


def block_noted(wait: Wait, ready: Callable[[], bool], futures: Sequence[Any], deadline: float | None) -> bool:
    """`wait(ready, futures, deadline)`. What a call waits for without end is noted meanwhile."""
    if deadline is not None or CURRENT.get() is None:
        return wait(ready, futures, deadline)
    ident = threading.get_ident()
    outer = BLOCKED.get(ident)
    BLOCKED[ident] = futures
    try:
        return wait(ready, futures, None)
    finally:
        if outer is None:
            BLOCKED.pop(ident, None)
        else:
            BLOCKED[ident] = outer
