"""T7, T8, T16, T19: how fast a death, a restart and a cancellation are told; and that nothing grows in the long run.

The bounds in a cut are wide, since other things may run on the machine; `make chaos` holds the goals, and prints.
"""

import os
import signal
import statistics
import time

import gates
import leaks
import numpy
import processes
import pytest
import victims
from sizes import NIGHTLY, size

import klieg
from klieg.exceptions import ActorDiedError, ActorUnavailableError, KliegError, TaskCancelledError

pytestmark = pytest.mark.chaos

SLACK = 1 if NIGHTLY else 10
"""By how much the cut may miss a goal."""


def percentile(seconds, share):
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def tell(capsys, name, seconds):
    p50, p99, most = statistics.median(seconds), percentile(seconds, 0.99), max(seconds)
    with capsys.disabled():
        print(
            f"\n    {name}: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, max {most * 1e3:.1f} ms, n={len(seconds)}"
        )
    return p50, p99, most


def test_t7_a_death_is_told_within_milliseconds(runtime, gate, capsys):
    seconds = []
    for turn in range(size(100, 9)):
        actor = victims.actor_class(victims.KINDS[turn % 3]).remote()
        pid = klieg.get(actor.ping.remote(), timeout=20)
        ref = actor.wait_at.remote(gate)
        started = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=20)
        seconds.append(time.perf_counter() - started)
    p50, p99, most = tell(capsys, "T7 death", seconds)
    assert (p50 < 0.005 * SLACK, p99 < 0.05 * SLACK, most < 0.2 * SLACK) == (True, True, True)


def test_t8_a_restarted_actor_answers_within_a_third_of_a_second(runtime, capsys):
    seconds = []
    for turn in range(size(50, 6)):
        actor = victims.actor_class(victims.KINDS[turn % 3], max_restarts=1, max_task_retries=1).remote()
        pid = klieg.get(actor.ping.remote(), timeout=20)
        started = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        assert klieg.get(actor.ping.remote(), timeout=20) != pid
        seconds.append(time.perf_counter() - started)
    tell(capsys, "T8 restart", seconds)
    assert percentile(seconds, 0.95) < 0.3 * SLACK


def test_t16_a_cancellation_is_told_at_once(runtime, gate, journal, capsys):
    @klieg.remote
    class Waiter:
        async def wait(self, journal):
            import asyncio

            journal.note("in")
            await asyncio.Event().wait()

    @klieg.remote
    def sleeper(journal):
        journal.note("in")
        time.sleep(20)

    actor = Waiter.remote()
    seconds = {"async": [], "asleep": []}
    for _ in range(size(50, 5)):
        for name, call in (("async", actor.wait.remote), ("asleep", sleeper.remote)):
            ref = call(journal)
            journal.next()
            started = time.perf_counter()
            klieg.cancel(ref)
            with pytest.raises(TaskCancelledError):
                klieg.get(ref, timeout=20)
            seconds[name].append(time.perf_counter() - started)
    for name, goal in (("async", 0.1), ("asleep", 0.5)):
        assert tell(capsys, f"T16 cancel, {name}", seconds[name])[2] < goal * SLACK


def test_t19_in_the_long_run_nothing_grows_and_nothing_slows_down(runtime, chance, capsys):
    duration = size(60, 3)
    crew = [victims.actor_class(victims.KINDS[at % 3], max_restarts=-1).remote() for at in range(4)]
    values, done, resident = [], [0, 0, 0], []
    before, started = leaks.Snapshot.take().descriptors, time.monotonic()
    next_kill = 2.0
    while (now := time.monotonic() - started) < duration:
        values = [klieg.put(numpy.zeros(victims.LARGE, dtype=numpy.uint8)) for _ in range(2)]
        refs = [actor.echo.remote(chance.choice([1, values[0]])) for actor in crew for _ in range(50)]
        klieg.cancel(chance.choice(refs))
        for ref in refs:
            try:
                klieg.get(ref, timeout=30)
                done[min(2, int(3 * now / duration))] += 1
            except (ActorUnavailableError, TaskCancelledError):
                continue
        if now > next_kill:
            next_kill += 2.0
            kill_one(chance.choice(crew))
        resident.append(processes.resident())
    tell_soak(capsys, done, resident, duration)
    del values, refs, ref
    assert gates.soon(lambda: sum((leaks.Snapshot.take().descriptors - before).values()) <= 3 * len(crew))
    if NIGHTLY:
        # The goals, 90 % and 1 MiB a minute, can be read only where nothing else runs: these bounds catch a collapse.
        assert done[2] >= 0.7 * done[0]
        assert resident[-1] - resident[len(resident) // 3] < 16 << 20


def kill_one(actor):
    try:
        os.kill(klieg.get(actor.ping.remote(), timeout=30), signal.SIGKILL)
    except (KliegError, ProcessLookupError):
        return


def tell_soak(capsys, done, resident, duration):
    third = len(resident) // 3
    with capsys.disabled():
        print(
            f"\n    T19 soak: {duration} s, calls by thirds {done}, memory {(resident[-1] - resident[third]) >> 10} KiB"
        )
