"""Amounts of resources that are taken and given back: the machine's, or those of one bundle of a placement group. Pure.

Amounts are counted in ten-thousandths, as Ray does, so that fractions add up exactly. GPUs have names besides, since a
call must know which ones are its own: a fraction lies on one GPU, a whole number is made of GPUs that nobody shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GRAIN: Final = 10_000

Amounts = dict[str, int]
"""Resource name, or name of a GPU, to grains."""


def grains(demand: Mapping[str, float]) -> Amounts:
    return {key: round(amount * GRAIN) for key, amount in demand.items() if amount}


def amounts(counted: Mapping[str, int]) -> dict[str, float]:
    return {key: max(0, count) / GRAIN for key, count in counted.items()}


class Pool:
    """What is there in all, and what of it is free. May be overdrawn by those who come back to what they had lent."""

    def __init__(self, total: Mapping[str, int], gpus: Mapping[str, int]) -> None:
        self.total = dict(total)
        self.free = dict(total)
        self.gpus = dict(gpus)
        """By name: what of each belongs to the pool."""
        self._free_gpus = dict(gpus)
        self.heir: Pool | None = None
        """Where what comes back belongs once this pool is closed."""

    def holds_ever(self, need: Mapping[str, int]) -> bool:
        """True if the need fits when nothing else is taken."""
        if any(count > self.total.get(key, 0) for key, count in need.items()):
            return False
        return _choose(self.gpus, need.get("GPU", 0)) is not None

    def take(self, need: Mapping[str, int]) -> Amounts | None:
        """Take what is needed and tell what of which GPU it is; None if there is not enough."""
        if any(count > self.free.get(key, 0) for key, count in need.items()):
            return None
        shares = _choose(self._free_gpus, need.get("GPU", 0))
        if shares is None:
            return None
        self._add(need, shares, -1)
        return shares

    def give(self, need: Mapping[str, int], shares: Mapping[str, int]) -> None:
        (self.heir or self)._add(need, shares, 1)

    def draw(self, need: Mapping[str, int]) -> None:
        """Take whether there is enough or not; no GPU is ever lent, so none is drawn."""
        (self.heir or self)._add(need, {}, -1)

    def close(self, heir: Pool) -> None:
        """The pool is dissolved: what is free goes to the heir now, what is taken when it is given back."""
        self.heir = heir
        heir._add(self.free, self._free_gpus, 1)

    def _add(self, need: Mapping[str, int], shares: Mapping[str, int], sign: int) -> None:
        for key, count in need.items():
            self.free[key] = self.free.get(key, 0) + sign * count
        for name, count in shares.items():
            self._free_gpus[name] = self._free_gpus.get(name, 0) + sign * count


def carve(pool: Pool, bundles: list[Amounts]) -> list[Pool] | None:
    """A pool for each bundle, its contents taken from `pool`; None, and nothing taken, if not all of them fit."""
    taken: list[tuple[Amounts, Amounts]] = []
    for bundle in bundles:
        shares = pool.take(bundle)
        if shares is None:
            for need, given in taken:
                pool.give(need, given)
            return None
        taken.append((bundle, shares))
    return [Pool(need, shares) for need, shares in taken]


def _choose(gpus: Mapping[str, int], count: int) -> Amounts | None:
    """Which GPUs, and how much of each; a fraction goes where least is left, so that whole ones stay whole."""
    if not count:
        return {}
    if count < GRAIN:
        fitting = [name for name, free in gpus.items() if free >= count]
        return {min(fitting, key=lambda name: gpus[name]): count} if fitting else None
    whole = [name for name, free in gpus.items() if free >= GRAIN]
    return dict.fromkeys(whole[: count // GRAIN], GRAIN) if len(whole) >= count // GRAIN else None
