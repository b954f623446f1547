"""Who may run where there is not enough for all: resources, and the lines of those who wait for them. Pure.

Those who want the same, for the same caller, stand in one line; the lines take turns. A demand that does not fit now
lets others pass, but not for ever: once passed too often it keeps what it needs from being taken by others, if what
it needs is about to come back, and for a bounded time.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from klieg.engines.pool import Amounts, Pool, amounts, carve, grains
from klieg.placement import Place

Item = TypeVar("Item")

PASSES: Final = 16
"""How often others may take what one in front of them waits for before it is their turn to wait."""

HOLD: Final = 2.0
"""Seconds for which one that was passed too often may keep others from what it needs."""

LENT: Final = frozenset({"CPU"})
"""What a call that waits gives to others meanwhile. Not GPUs or memory, which its process goes on using."""


class Grant:
    """Resources that somebody holds."""

    __slots__ = ("lent", "need", "place", "pool", "shares", "short")

    def __init__(self, need: Amounts, pool: Pool, shares: Amounts, place: Place | None, short: bool) -> None:
        self.need = need
        self.pool = pool
        self.shares = shares
        self.place = place
        self.short = short
        """True for what comes back by itself soon: a task's; an actor keeps what it has."""
        self.lent = False

    @property
    def demand(self) -> dict[str, float]:
        return amounts(self.need)

    @property
    def gpus(self) -> list[str]:
        """The names of the GPUs that belong to it."""
        return list(self.shares)


class PlacementGroup:
    """Bundles of resources that are reserved all together, for calls and actors that ask to run in them."""

    def __init__(self, number: int, name: str, bundles: Sequence[Mapping[str, float]], strategy: str) -> None:
        self.number = number
        self.name = name
        self.bundles = [dict(bundle) for bundle in bundles]
        self.strategy = strategy
        self.pools: list[Pool] = []
        """One for each bundle, once it is placed."""
        self.removed = False

    def bundles_at(self, index: int) -> list[dict[str, float]]:
        return self.bundles if index < 0 else self.bundles[index : index + 1]

    @property
    def state(self) -> str:
        return "REMOVED" if self.removed else "CREATED" if self.pools else "PENDING"


class Entry(Generic[Item]):
    """One that waits in a line."""

    __slots__ = ("bundles", "item", "key", "number", "passed", "place", "short", "until")

    def __init__(
        self, item: Item, bundles: list[Amounts], place: Place | None, key: Hashable, short: bool, number: int
    ) -> None:
        self.item = item
        self.bundles = bundles
        """What it needs: one bundle, or all those of a placement group."""
        self.place = place
        self.key = key
        self.short = short
        self.number = number
        self.passed = 0
        self.until: float | None = None
        """Until when it keeps others from what it needs, once it does."""


class Scheduler(Generic[Item]):
    """Grants demands; whoever does not get a grant at once gets it from a later call, with its item."""

    def __init__(self, total: Mapping[str, float], gpus: Sequence[str], clock: Callable[[], float]) -> None:
        """
        Args:
            total: what this machine has, by resource name.
            gpus: the names of its GPUs, as many as `total["GPU"]` says.
            clock: seconds, never going back.
        """
        self._machine = Pool(grains(total), dict.fromkeys(gpus, grains({"GPU": 1})["GPU"]))
        self._total = dict(total)
        self._clock = clock
        self._lines: OrderedDict[Hashable, deque[Entry[Any]]] = OrderedDict()
        self._numbers = itertools.count().__next__
        self._held: set[Grant] = set()
        self.groups: dict[int, PlacementGroup] = {}

    # Asking

    def why_never(self, demand: Mapping[str, float], place: Place | None = None) -> str:
        """Why the demand can never be met, as a sentence; empty if it can."""
        need = grains(demand)
        if place is None:
            return "" if self._machine.holds_ever(need) else unmet(demand, self._total)
        group = self.groups.get(place[0])
        if group is None or group.removed:
            return "its placement group was removed."
        if not any(_holds(bundle, need) for bundle in group.bundles_at(place[1])):
            return f"it asks for {_told(demand)}, and no bundle of its placement group, {group.bundles}, holds as much."
        return self.why_never_group(group)

    def why_never_group(self, group: PlacementGroup) -> str:
        """Why the group can never be placed; empty if it can."""
        if group.strategy == "STRICT_SPREAD" and len(group.bundles) > 1:
            return f"STRICT_SPREAD wants its {len(group.bundles)} bundles on as many machines, and there is one."
        whole = Pool(self._machine.total, self._machine.gpus)
        if carve(whole, [grains(bundle) for bundle in group.bundles]) is None:
            return unmet(_sum(group.bundles), self._total)
        return ""

    def request(
        self,
        demand: Mapping[str, float],
        item: Item,
        place: Place | None = None,
        caller: Hashable = None,
        short: bool = False,
    ) -> Grant | None:
        """What is demanded, taken; or None, and `item` waits in a line."""
        need = grains(demand)
        key = (caller, place, tuple(sorted(need.items())))
        return self._enter(Entry(item, [need], place, key, short, self._numbers()))

    def reserve(self, group: PlacementGroup) -> bool:
        """Place the group, or have it wait in a line; True if it is placed."""
        self.groups[group.number] = group
        if self.why_never_group(group):
            return False
        bundles = [grains(bundle) for bundle in group.bundles]
        self._enter(Entry(group, bundles, None, ("group", group.number), False, self._numbers()))
        return bool(group.pools)

    def _enter(self, entry: Entry[Any]) -> Grant | None:
        grant = self._try(entry) if entry.key not in self._lines else None
        if grant is None and not _is_placed(entry.item):
            self._lines.setdefault(entry.key, deque()).append(entry)
        return grant

    def withdraw(self, item: object) -> bool:
        """Leave the line; False if `item` does not stand in one."""
        for key, line in self._lines.items():
            for entry in line:
                if entry.item is item:
                    line.remove(entry)
                    if not line:
                        del self._lines[key]
                    return True
        return False

    # Giving back

    def release(self, grant: Grant) -> list[tuple[Item, Grant | None]]:
        """Give resources back; returns those in the lines who have theirs now. A group's grant is in the group."""
        self._held.discard(grant)
        need = {k: c for k, c in grant.need.items() if k not in LENT} if grant.lent else grant.need
        grant.pool.give(need, grant.shares)
        return self.look()

    def lend(self, grant: Grant) -> list[tuple[Item, Grant | None]]:
        """Who holds the grant waits: let others have its CPUs meanwhile."""
        if grant.lent:
            return []
        grant.lent = True
        grant.pool.give({k: c for k, c in grant.need.items() if k in LENT}, {})
        return self.look()

    def reclaim(self, grant: Grant) -> None:
        """Who had lent its CPUs goes on, whether they are free or not."""
        if grant.lent:
            grant.lent = False
            grant.pool.draw({k: c for k, c in grant.need.items() if k in LENT})

    def remove(self, group: PlacementGroup) -> tuple[list[Item], list[tuple[Item, Grant | None]]]:
        """Dissolve the group: those who waited to run in it, and those who have got what they waited for."""
        group.removed = True
        self.withdraw(group)
        pools, group.pools = group.pools, []
        for pool in pools:
            pool.close(self._machine)
        lost = [
            entry.item
            for line in self._lines.values()
            for entry in line
            if entry.place and entry.place[0] == group.number
        ]
        for item in lost:
            self.withdraw(item)
        return lost, self.look()

    # Granting

    def look(self) -> list[tuple[Item, Grant | None]]:
        """Grant what can be granted, one line after the other, as long as something can."""
        granted: list[tuple[Item, Grant | None]] = []
        while True:
            before = len(granted)
            for key in list(self._lines):
                entry = self._lines[key][0]
                grant = self._try(entry)
                if grant is not None or _is_placed(entry.item):
                    self._leave_front(key)
                    granted.append((entry.item, grant))
            if len(granted) == before:
                return granted

    def _leave_front(self, key: Hashable) -> None:
        line = self._lines.pop(key)
        line.popleft()
        if line:
            self._lines[key] = line  # behind the others

    def _try(self, entry: Entry[Any]) -> Grant | None:
        if self._is_held_back(entry):
            return None
        if isinstance(entry.item, PlacementGroup):
            entry.item.pools = carve(self._machine, entry.bundles) or []
            if entry.item.pools:
                self._count_passes(entry)
            return None
        for bundle, pool in self._pools(entry.place):
            shares = pool.take(entry.bundles[0])
            if shares is not None:
                place = None if entry.place is None else (entry.place[0], bundle)
                grant = Grant(entry.bundles[0], pool, shares, place, entry.short)
                self._held.add(grant)
                self._count_passes(entry)
                return grant
        return None

    def _pools(self, place: Place | None) -> Iterator[tuple[int, Pool]]:
        if place is None:
            yield -1, self._machine
            return
        pools = self.groups[place[0]].pools
        yield from (one for one in enumerate(pools) if place[1] in (-1, one[0]))

    # Those who are passed

    def _count_passes(self, winner: Entry[Any]) -> None:
        for line in self._lines.values():
            if line[0].number < winner.number and _overlap(line[0], winner):
                line[0].passed += 1

    def _is_held_back(self, entry: Entry[Any]) -> bool:
        barrier = self._barrier()
        return barrier is not None and barrier is not entry and _overlap(barrier, entry)

    def _barrier(self) -> Entry[Any] | None:
        """The first of those who were passed too often, if what it needs is about to come back."""
        starving = [line[0] for line in self._lines.values() if line[0].passed >= PASSES]
        for entry in sorted(starving, key=lambda entry: entry.number):
            if not self._comes_back(entry):
                continue
            if entry.until is None:
                entry.until = self._clock() + HOLD
            if self._clock() < entry.until:
                return entry
            entry.passed, entry.until = 0, None
        return None

    def _comes_back(self, entry: Entry[Any]) -> bool:
        if entry.place is not None:
            return False
        soon = dict(self._machine.free)
        for grant in self._held:
            if grant.short and not grant.lent and grant.pool is self._machine:
                for key, count in grant.need.items():
                    soon[key] += count
        return all(
            count <= soon.get(key, 0) for key, count in grains(_sum([amounts(b) for b in entry.bundles])).items()
        )

    def next_look(self) -> float | None:
        """When, by the clock, `look` should be called though nothing was given back; None if there is no need."""
        return min((line[0].until for line in self._lines.values() if line[0].until is not None), default=None)

    # Telling

    def total(self) -> dict[str, float]:
        return dict(self._total)

    def free(self) -> dict[str, float]:
        return amounts(self._machine.free)

    def waiting(self) -> list[tuple[dict[str, float], int]]:
        """What is waited for, and by how many."""
        return [(_sum([amounts(b) for b in line[0].bundles]), len(line)) for line in self._lines.values()]


def _is_placed(item: object) -> bool:
    return isinstance(item, PlacementGroup) and bool(item.pools)


def _overlap(one: Entry[Any], other: Entry[Any]) -> bool:
    if (one.place or (0, 0))[0] != (other.place or (0, 0))[0]:
        return False
    return not set().union(*one.bundles).isdisjoint(set().union(*other.bundles))


def _sum(bundles: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(bundle.get(key, 0) for bundle in bundles) for key in dict.fromkeys(k for b in bundles for k in b)}


def _holds(bundle: Mapping[str, float], need: Mapping[str, int]) -> bool:
    there = grains(bundle)
    return all(count <= there.get(key, 0) for key, count in need.items())


def _told(resources: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{key}: {amount:g}" for key, amount in resources.items()) + "}"


def unmet(demand: Mapping[str, float], total: Mapping[str, float]) -> str:
    """The sentence that tells a user why a demand can never be met."""
    there = {key: total.get(key, 0) for key in demand}
    return (
        f"it asks for {_told(demand)}, and this runtime has {_told(there)} in all. Lower it, or raise that in `init()`."
    )
