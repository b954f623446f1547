"""Placement groups as an engine keeps them: who made them, who waits for them, what becomes of those inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from klieg.engines import failures
from klieg.engines.scheduler import Grant, PlacementGroup, Scheduler
from klieg.exceptions import SystemError_, TaskPlacementGroupRemoved, TaskUnschedulableError
from klieg.outcome import Error, Outcome, Serialized, Value
from klieg.placement import Place

REMOVED: Final = "its placement group was removed."

REMOVED_KEPT: Final = 1000
"""Removed groups that the table still shows."""

Answer = Mapping[str, Any]
"""{"removed": True}, or {"impossible": why it can never be placed, "" if it is placed}."""


def made(answer: Answer, name: str) -> str:
    """Why the new group can never be placed, empty if it can; SystemError_ if its name is taken."""
    if "taken" in answer:
        raise SystemError_(f"The name {name!r} is taken by another placement group.")
    impossible: str = answer["impossible"]
    return impossible


def ready_outcome(answer: Answer, payload: Serialized) -> Outcome:
    """What becomes of the ref that waits for a group: the payload, or why there will be no such group."""
    if "removed" in answer:
        return Error(failures.dumps(TaskPlacementGroupRemoved("The placement group was removed."), ""))
    if answer["impossible"]:
        error = TaskUnschedulableError(f"The placement group can never be placed: {answer['impossible']}")
        return Error(failures.dumps(error, ""))
    return Value(payload)


class Home(Protocol):
    """What an engine does for its groups."""

    def fail_waiting(self, item: Any, reason: str) -> None:
        """What the item waits for will never come."""

    def end_all_in(self, group: int, reason: str) -> None:
        """End what runs in the group."""

    def settle(self, granted: list[tuple[Any, Grant | None]]) -> None:
        """Serve those who have what they waited for."""


class PlacementGroups:
    def __init__(self, home: Home, scheduler: Scheduler[Any]) -> None:
        self._home = home
        self._scheduler = scheduler
        self._owners: dict[int, Any] = {}
        """Who made a group and ends it by ending; not for detached ones."""
        self._waiting: dict[int, list[Callable[[Answer], None]]] = {}

    def create(self, number: int, facts: Mapping[str, Any], owner: Any) -> Answer:
        """Reserve the bundles, now or when they are free; {"taken": True} if the name is another group's."""
        name, known = facts["name"], self._scheduler.groups
        if name and any(group.name == name and not group.removed for group in known.values()):
            return {"taken": True}
        group = PlacementGroup(number, name, facts["bundles"], facts["strategy"])
        if not facts["detached"]:
            self._owners[number] = owner
        self._scheduler.reserve(group)
        return self._answer(number)

    def when_ready(self, number: int, then: Callable[[Answer], None]) -> None:
        """Call `then(answer)` once it is decided what becomes of the group, perhaps at once."""
        group = self._scheduler.groups.get(number)
        if group is None or group.removed or group.pools or self._scheduler.why_never_group(group):
            then(self._answer(number))
        else:
            self._waiting.setdefault(number, []).append(then)

    def placed(self, group: PlacementGroup) -> None:
        """It is decided: tell those who wait for that."""
        for then in self._waiting.pop(group.number, []):
            then(self._answer(group.number))

    def remove(self, number: int) -> None:
        """Dissolve the group and end what runs or waits in it. Does nothing if that was done."""
        group = self._scheduler.groups.get(number)
        if group is None or group.removed:
            return
        self._owners.pop(number, None)
        lost, granted = self._scheduler.remove(group)
        for item in lost:
            self._home.fail_waiting(item, REMOVED)
        self._home.end_all_in(number, REMOVED)
        self.placed(group)
        self._forget_oldest()
        self._home.settle(granted)

    def forget_owner(self, owner: Any) -> None:
        """The owner is dead, and its groups end with it."""
        for number in [number for number, one in self._owners.items() if one == owner]:
            self.remove(number)

    def is_gone(self, place: Place | None) -> bool:
        """True for a place in a group that was removed."""
        return place is not None and self._is_removed(place[0])

    def table(self) -> list[dict[str, Any]]:
        """The facts of every group."""
        return [
            {
                "group": group.number,
                "name": group.name,
                "bundles": group.bundles,
                "strategy": group.strategy,
                "state": group.state,
                "impossible": "" if group.removed else self._scheduler.why_never_group(group),
            }
            for group in self._scheduler.groups.values()
        ]

    def _is_removed(self, number: int) -> bool:
        group = self._scheduler.groups.get(number)
        return group is None or group.removed

    def _answer(self, number: int) -> Answer:
        if self._is_removed(number):
            return {"removed": True}
        return {"impossible": self._scheduler.why_never_group(self._scheduler.groups[number])}

    def _forget_oldest(self) -> None:
        removed = [number for number, group in self._scheduler.groups.items() if group.removed]
        for number in removed[:-REMOVED_KEPT]:
            del self._scheduler.groups[number]
