"""What one call may cost, in counts that no load on the machine changes: calls, bytes, processor time.

Seconds are measured by `benchmarks`, side by side with Ray and a bare loop; they would be a lottery in a test.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest

import klieg

CALLS = 200

SUBMISSION = 22
"""Calls of klieg's Python functions for one `handle.method.remote()` without arguments; 17 when this was written."""

QUEUED = 1024
"""Bytes that one queued call may hold in its caller, arguments aside (the design's figure)."""

TICK = os.sysconf("SC_CLK_TCK")


def plain():
    """A plain actor class that travels by value: a worker need not import this module, and pytest with it."""

    class Plain:
        def ping(self):
            return 1

        def wait_at(self, gate):
            gate.wait()

    return klieg.remote(Plain)


@pytest.fixture
def runtime() -> Iterator[None]:
    klieg.init(engine="local", num_cpus=2)
    yield
    klieg.shutdown()


def calls_into_klieg(step) -> int:
    """How many Python functions of klieg's own `step` calls on this thread."""
    count = 0
    own = os.path.dirname(klieg.__file__) + os.sep

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(own)

    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(None)
    return count


def test_a_submission_calls_few_functions(runtime):
    actor = plain().remote()
    klieg.get(actor.ping.remote())
    refs = []
    count = calls_into_klieg(lambda: refs.extend(actor.ping.remote() for _ in range(CALLS)))
    klieg.get(refs)
    assert count / CALLS <= SUBMISSION


def test_a_queued_call_holds_less_than_a_kibibyte(runtime, gate):
    actor = plain().remote()
    klieg.get(actor.ping.remote())
    refs = [actor.wait_at.remote(gate)]
    count = 5000
    gc.collect()
    tracemalloc.start()
    refs += [actor.ping.remote() for _ in range(count)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    gate.open()
    klieg.get(refs)
    assert held / count < QUEUED


def test_an_idle_runtime_uses_no_processor(runtime):
    actors = [plain().options(max_concurrency=n).remote() for n in (1, 2)]
    klieg.get([actor.ping.remote() for actor in actors])
    time.sleep(0.5)  # idle workers are given back, and what is left of the start is done
    pids = [os.getpid(), *leaks.runtime_processes()]
    before = [ticks(pid) for pid in pids]
    time.sleep(2)
    used = [after - start for after, start in zip([ticks(pid) for pid in pids], before, strict=True)]
    assert sum(used) <= 2, f"ticks of {1000 / TICK:g} ms in 2 s: {dict(zip(pids, used, strict=True))}"


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_two_hundred_idle_actors_fit_in_a_gibibyte(runtime):
    actor_class = plain()
    actors = [actor_class.remote() for _ in range(200)]
    klieg.get([actor.ping.remote() for actor in actors])
    assert sum(private_kib(pid) for pid in leaks.runtime_processes()) < 1 << 20  # without this one, which holds pytest


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
