"""Order and limits over random programs: calls of several callers, to every kind of actor, some of them cancelled.

What each must show, however calls and their ends fall: no group runs more calls at once than its limit; a call starts
only when all calls before it, of its caller and its group, have started; each ref has its value, or the cancellation.
"""

import asyncio
import dataclasses
import threading
import time

import gates
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import klieg


@dataclasses.dataclass(frozen=True)
class Step:
    """One call."""

    group: str
    turns: int
    """How often it lets others run before it ends."""
    kind: str
    cancels: int
    """How many calls before it the caller cancels once it is made; 0: none."""


@dataclasses.dataclass(frozen=True)
class Program:
    limits: dict[str, int]
    callers: list[list[Step]]


def sync_class():
    """Made here, so that it travels by value: a worker need not import this module, and hypothesis with it."""

    class Sync:
        def __init__(self):
            self.lock = threading.Lock()
            self.events = []

        def note(self, *event):
            with self.lock:
                self.events.append(event)

        def work(self, caller, index, turns):
            self.note("start", caller, index)
            for _ in range(turns):
                time.sleep(0)
            self.note("end", caller, index)
            return caller, index

        work_here = work

        def read(self):
            return self.events

    return Sync


def async_class():
    class Async:
        def __init__(self):
            self.events = []

        async def work(self, caller, index, turns):
            self.events.append(("start", caller, index))
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                self.events.append(("end", caller, index))
            return caller, index

        def work_here(self, caller, index, turns):
            self.events += [("start", caller, index), ("end", caller, index)]
            return caller, index

        async def read(self):
            return self.events

    return Async


def programs(groups, most):
    limits = st.fixed_dictionaries({name: st.integers(1, most) for name in groups})
    step = st.builds(
        Step, st.sampled_from(groups), st.integers(0, 3), st.sampled_from(["work", "work_here"]), st.integers(0, 3)
    )
    return st.builds(Program, limits, st.lists(st.lists(step, min_size=1, max_size=8), min_size=1, max_size=3))


KINDS = {
    "plain": (sync_class, programs(["default"], 1)),
    "threaded": (sync_class, programs(["default"], 3)),
    "threaded groups": (sync_class, programs(["default", "io"], 3)),
    "async": (async_class, programs(["default"], 4)),
    "async groups": (async_class, programs(["default", "io"], 3)),
}


def make(cls, limits):
    groups = {name: limit for name, limit in limits.items() if name != "default"}
    cls = klieg.remote(concurrency_groups=groups)(cls()) if groups else klieg.remote(cls())
    return cls.options(max_concurrency=limits["default"]).remote()


def run(actor, program):
    """Each caller is a thread that makes its calls and collects what comes of them: values, or "cancelled"."""
    results = [[] for _ in program.callers]

    def call(caller, steps):
        refs = []
        for index, step in enumerate(steps):
            method = getattr(actor, step.kind).options(concurrency_group=step.group)
            refs.append(method.remote(caller, index, step.turns))
            if 0 < step.cancels <= index:
                klieg.cancel(refs[index - step.cancels])
        results[caller] = [outcome(ref) for ref in refs]

    threads = [threading.Thread(target=call, args=each) for each in enumerate(program.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def outcome(ref):
    try:
        return klieg.get(ref, timeout=gates.PATIENCE)
    except klieg.exceptions.TaskCancelledError:
        return "cancelled"


def check(program, results, events):
    for caller, steps in enumerate(program.callers):
        cancelled = {i - step.cancels for i, step in enumerate(steps) if 0 < step.cancels <= i}
        for index in range(len(steps)):
            assert results[caller][index] in (
                [(caller, index), "cancelled"] if index in cancelled else [(caller, index)]
            )
    inside = {name: set() for name in program.limits}
    ended = set()
    for what, *call in events:
        caller, index = call
        step = program.callers[caller][index]
        if what == "end":
            inside[step.group].discard((caller, index))
            ended.add((caller, index))
            continue
        inside[step.group].add((caller, index))
        limit = program.limits[step.group]
        assert len(inside[step.group]) <= limit
        # Whatever was called before it has started: it has ended, or holds one of the other places.
        before = [(caller, i) for i in range(index) if program.callers[caller][i].group == step.group]
        unfinished = [c for c in before if c not in ended and results[caller][c[1]] != "cancelled"]
        assert len(unfinished) < limit
    assert not any(inside.values())


def check_starts(program, events):
    """Where the actor itself sees the starts one by one: they come in the order of the calls."""
    for caller, steps in enumerate(program.callers):
        for group in program.limits:
            starts = [i for what, c, i in events if (what, c) == ("start", caller) and steps[i].group == group]
            assert starts == sorted(starts)


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_limits_hold_in_any_program(kind):
    cls, some_programs = KINDS[kind]

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(some_programs)
    def holds(program):
        actor = make(cls, program.limits)
        results = run(actor, program)
        assert gates.soon(lambda: idle(actor))
        events = klieg.get(actor.read.remote())
        check(program, results, events)
        if "threaded" not in kind:
            check_starts(program, events)

    holds()


def idle(actor):
    return all(group["queued"] == group["running"] == 0 for group in actor.stats().values())
