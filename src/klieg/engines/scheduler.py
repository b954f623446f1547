"""Who may run where there is not enough for all: resources, and the line of those who wait for them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

Item = TypeVar("Item")

GRAIN = 10_000
"""Resources are counted in ten-thousandths, as Ray does, so that fractions add up exactly."""


class Scheduler(Generic[Item]):
    """Grants demands in the order in which they came; one that does not fit now lets later, smaller ones pass."""

    def __init__(self, total: Mapping[str, float]) -> None:
        self._total = {key: round(amount * GRAIN) for key, amount in total.items()}
        self._free = dict(self._total)
        self.waiting: deque[tuple[Mapping[str, float], Item]] = deque()

    def fits_ever(self, demand: Mapping[str, float]) -> bool:
        return all(round(amount * GRAIN) <= self._total.get(key, 0) for key, amount in demand.items())

    def request(self, demand: Mapping[str, float], item: Item) -> bool:
        """Take the resources now and return True, or join the line."""
        if self._fits(demand) and not any(other == demand for other, _ in self.waiting):
            self.take(demand)
            return True
        self.waiting.append((demand, item))
        return False

    def take(self, demand: Mapping[str, float]) -> None:
        """Take resources whether they are free or not: what a worker that was blocked does when it goes on."""
        for key, amount in demand.items():
            self._free[key] -= round(amount * GRAIN)

    def release(self, demand: Mapping[str, float]) -> list[Item]:
        """Give resources back; returns those in the line who may go now, their resources taken."""
        for key, amount in demand.items():
            self._free[key] += round(amount * GRAIN)
        return self._grant()

    def withdraw(self, item: Item) -> bool:
        """Leave the line; False if `item` does not stand in it."""
        for entry in self.waiting:
            if entry[1] is item:
                self.waiting.remove(entry)
                return True
        return False

    def total(self) -> dict[str, float]:
        return {key: amount / GRAIN for key, amount in self._total.items()}

    def free(self) -> dict[str, float]:
        return {key: max(0, amount) / GRAIN for key, amount in self._free.items()}

    def _fits(self, demand: Mapping[str, float]) -> bool:
        return all(round(amount * GRAIN) <= self._free.get(key, 0) for key, amount in demand.items())

    def _grant(self) -> list[Item]:
        granted: list[Item] = []
        for entry in list(self.waiting):
            demand, item = entry
            if self._fits(demand):
                self.take(demand)
                self.waiting.remove(entry)
                granted.append(item)
        return granted


def unmet(demand: Mapping[str, float], total: Mapping[str, float]) -> str:
    """The sentence that tells a user why a demand can never be met."""
    asked = ", ".join(f"{key}: {amount:g}" for key, amount in demand.items())
    there = ", ".join(f"{key}: {amount:g}" for key, amount in total.items())
    return (
        f"it asks for {{{asked}}}, and this runtime has {{{there}}} in all. Lower the demand or raise it in `init()`."
    )
