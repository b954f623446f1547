"""Any sequence of put, get, pass, nest, drop and kill, held against a simple model of reference counts.

The model says, after each step, what each process must know and no more: the refs in its slots, what is inside the
values that it has, and what it owns and another process holds.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import signal
from collections.abc import Callable
from typing import Any

import gates
import numpy as np
import pytest
import stored
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import klieg
from klieg import engine
from klieg.exceptions import ActorDiedError, ObjectStoreFullError, OwnerDiedError

SIZE = 128 * 1024
"""Bytes of each value's array: enough for shared memory."""

LOST = -1
"""What reading a value gives whose owner is dead."""

MOST_KILLS = 2
"""Actors that one run of the machine may kill: to start another takes longer than everything else."""

EXAMPLES = int(os.environ.get("KLIEG_MODEL_EXAMPLES", "5"))
"""Runs of the machine for each size of the store; more of them are for those who change the counting."""


class Process:
    """What takes part: the driver has one as it is, each actor is one."""

    def __init__(self) -> None:
        gc.freeze()  # what was there before is no object of the test's: looking for those is then quick
        self.slots: dict[int, klieg.ObjectRef] = {}
        self.views: list[tuple[int, np.ndarray]] = []

    def make(self, number: int, inner: list[int]) -> tuple[int, np.ndarray, list[klieg.ObjectRef]]:
        return number, np.full(SIZE, number % 251, dtype=np.uint8), [self.slots[slot] for slot in inner]

    def put(self, slot: int, number: int, inner: list[int]) -> str:
        ref = self.slots[slot] = klieg.put(self.make(number, inner))
        return ref.hex()

    def receive(self, slot: int, held: list[klieg.ObjectRef]) -> None:
        (self.slots[slot],) = held

    def give(self, slot: int) -> list[klieg.ObjectRef]:
        return [self.slots[slot]]

    def send(self, slot: int, other: Any, other_slot: int) -> None:
        klieg.get(other.receive.remote(other_slot, [self.slots[slot]]))

    def open(self, slot: int, inner: int) -> str:
        """Replace a ref by one that is inside its value."""
        self.slots[slot] = klieg.get(self.slots[slot])[2][inner]
        return self.slots[slot].hex()

    def read(self, slot: int) -> int:
        try:
            return klieg.get(self.slots[slot])[0]
        except OwnerDiedError:
            return LOST

    def look(self, slot: int) -> None:
        """Keep a view of the value's array."""
        number, array, _ = klieg.get(self.slots[slot])
        self.views.append((number, array))

    def blink(self) -> list[int]:
        """Drop all views; the numbers of those that are not as they were."""
        spoiled = [number for number, array in self.views if not (array == number % 251).all()]
        self.views.clear()
        return spoiled

    def drop(self, slot: int) -> None:
        del self.slots[slot]

    def drop_all(self) -> None:
        self.slots.clear()

    def known(self) -> list[str]:
        gc.collect()
        return [entry["id"] for entry in engine.current().objects()]

    def pid(self) -> int:
        return os.getpid()


Actor = klieg.remote(Process)


@dataclasses.dataclass
class Made:
    number: int
    owner: int
    inner: list[str]


DRIVER = 0


class Model:
    """Who holds what, by the rules that the documents give."""

    def __init__(self) -> None:
        self.objects: dict[str, Made] = {}
        self.alive: set[int] = {DRIVER}
        self.slots: dict[tuple[int, int], str] = {}
        self.fetched: set[tuple[int, str]] = set()
        self.views = 0

    def has_value(self, process: int, name: str) -> bool:
        return self.objects[name].owner == process or (process, name) in self.fetched

    def known(self) -> dict[int, set[str]]:
        """For each process the objects that it knows, in the end."""
        known = {process: {n for (p, _), n in self.slots.items() if p == process} for process in self.alive}
        changed = True
        while changed:
            changed = False
            for process, names in known.items():
                more = {inner for n in names if self.has_value(process, n) for inner in self.objects[n].inner}
                for other in self.alive - {process}:
                    more |= {name for name in known[other] if self.objects[name].owner == process}
                changed = changed or not more <= names
                names |= more
        self.fetched = {(p, name) for p, name in self.fetched if p in known and name in known[p]}
        return known

    def kill(self, process: int) -> None:
        self.alive.discard(process)
        self.slots = {place: name for place, name in self.slots.items() if place[0] != process}

    def pinned(self) -> int:
        """Bytes that cannot be moved to disk: another process than the owner has the value, or somebody looks."""
        return SIZE * (len(self.fetched) + self.views)


SLOTS = 4
slots = st.integers(0, SLOTS - 1)
picks = st.integers(0, 1000)


class Machine(RuleBasedStateMachine):
    limit: int
    actors: dict[int, Any]
    """Two of them; those that live go from one run of the machine to the next."""
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.driver = Process()
        self.kills = 0
        while len(self.actors) < 2:
            self.actors[next(self.numbers)] = Actor.remote()
        self.model.alive |= self.actors.keys()

    def call(self, process: int, method: str, *arguments: Any) -> Any:
        if process == DRIVER:
            return getattr(self.driver, method)(*arguments)
        return klieg.get(getattr(self.actors[process], method).remote(*arguments))

    def process(self, pick: int) -> int:
        return sorted(self.model.alive)[pick % len(self.model.alive)]

    def held(self, pick: int) -> tuple[int, int]:
        """A process and a slot of it in which something is."""
        places = sorted(self.model.slots)
        return places[pick % len(places)]

    def actor(self, pick: int) -> int:
        return sorted(self.actors)[pick % len(self.actors)]

    def filled(self) -> bool:
        return bool(self.model.slots)

    @initialize(picked=st.lists(picks, min_size=3, max_size=6))
    def begin(self, picked: list[int]) -> None:
        for slot, pick in enumerate(picked):
            self.put(pick, slot % SLOTS, list(range(slot)))

    @rule(pick=picks, slot=slots, inner=st.lists(slots, max_size=3))
    def put(self, pick: int, slot: int, inner: list[int]) -> None:
        process = self.process(pick)
        inner = [one for one in inner if (process, one) in self.model.slots]
        number = next(self.numbers)
        try:
            name = self.call(process, "put", slot, number, inner)
        except ObjectStoreFullError:
            assert self.model.pinned() + 2 * SIZE > self.limit
            return
        self.made(name, number, process, process, slot, inner)

    @rule(pick=picks, slot=slots, inner=st.lists(slots, max_size=3))
    def result(self, pick: int, slot: int, inner: list[int]) -> None:
        process, number = self.actor(pick), next(self.numbers)
        inner = [one for one in inner if (process, one) in self.model.slots]
        ref = self.actors[process].make.remote(number, inner)
        klieg.wait([ref])
        if isinstance(ref.exception(), ObjectStoreFullError):
            assert self.model.pinned() + 2 * SIZE > self.limit
            return
        self.driver.slots[slot] = ref
        self.made(ref.hex(), number, DRIVER, process, slot, inner)

    def made(self, name: str, number: int, owner: int, maker: int, slot: int, inner: list[int]) -> None:
        inside = [self.model.slots[maker, one] for one in inner]
        self.model.objects[name] = Made(number, owner, inside)
        self.model.slots[owner, slot] = name

    @precondition(filled)
    @rule(pick=picks, to=picks, slot=slots)
    def hand_on(self, pick: int, to: int, slot: int) -> None:
        (process, place), other = self.held(pick), self.process(to)
        if process == other:
            return
        if other == DRIVER:
            self.driver.receive(slot, self.call(process, "give", place))
        else:
            self.call(process, "send", place, self.actors[other], slot)
        self.model.slots[other, slot] = self.model.slots[process, place]

    @precondition(filled)
    @rule(pick=picks)
    def read(self, pick: int) -> None:
        process, slot = self.held(pick)
        assert self.call(process, "read", slot) == self.expected(process, self.model.slots[process, slot])

    def expected(self, process: int, name: str) -> int:
        """What reading gives; notes that the process has the value now."""
        made = self.model.objects[name]
        if made.owner not in self.model.alive and (process, name) not in self.model.fetched:
            return LOST
        if made.owner != process:
            self.model.fetched.add((process, name))
        return made.number

    @precondition(filled)
    @rule(pick=picks, inner=picks)
    def open(self, pick: int, inner: int) -> None:
        process, slot = self.held(pick)
        name = self.model.slots[process, slot]
        inside = self.model.objects[name].inner
        if not inside or self.expected(process, name) == LOST:
            return
        found = inside[inner % len(inside)]
        assert self.call(process, "open", slot, inner % len(inside)) == found
        self.model.slots[process, slot] = found

    @precondition(filled)
    @rule(pick=picks)
    def look(self, pick: int) -> None:
        process, slot = self.held(pick)
        if self.expected(process, self.model.slots[process, slot]) != LOST:
            self.call(process, "look", slot)
            self.model.views += 1

    @precondition(lambda self: self.model.views)
    @rule()
    def blink(self) -> None:
        for process in self.model.alive:
            assert self.call(process, "blink") == []
        self.model.views = 0

    @precondition(filled)
    @rule(pick=picks)
    def drop(self, pick: int) -> None:
        process, slot = self.held(pick)
        self.call(process, "drop", slot)
        del self.model.slots[process, slot]

    @precondition(lambda self: self.kills < MOST_KILLS)
    @rule(pick=picks)
    def kill(self, pick: int) -> None:
        self.kills += 1
        process = self.actor(pick)
        actor = self.actors.pop(process)
        os.kill(klieg.get(actor.pid.remote()), signal.SIGKILL)
        gates.soon_raises(ActorDiedError, lambda: klieg.get(actor.pid.remote()))
        self.model.kill(process)
        number = next(self.numbers)
        self.actors[number] = Actor.remote()
        self.model.alive.add(number)

    @invariant()
    def every_process_knows_what_it_must_and_no_more(self) -> None:
        expected = self.model.known()
        for process, names in expected.items():
            assert gates.soon(lambda p=process, n=names: set(self.call(p, "known")) & self.model.objects.keys() == n)
        assert engine.current().store_usage()["used"] <= self.limit

    def teardown(self) -> None:
        self.blink()
        for process in self.model.alive:
            self.call(process, "drop_all")
        self.model.slots.clear()
        self.every_process_knows_what_it_must_and_no_more()


@pytest.mark.parametrize("values_that_fit", [1000, 10])
def test_processes_know_what_the_model_says(
    start: Callable[..., Any], request: pytest.FixtureRequest, values_that_fit: int
) -> None:
    class Limited(Machine):
        limit = values_that_fit * (SIZE + 4096)
        actors: dict[int, Any] = {}  # of this test alone

    request.addfinalizer(gc.unfreeze)
    start(object_store_memory=Limited.limit)
    one_run = settings(
        max_examples=EXAMPLES,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
        phases=[Phase.generate],  # a failing run waits for what does not come: too long to look for a shorter one
    )
    run_state_machine_as_test(Limited, settings=one_run)
    assert gates.soon(stored.nothing)
