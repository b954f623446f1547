"""A runtime can be started and ended any number of times in one process: nothing of it stays."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from programs import environment

CYCLES, WARM_UP = 110, 10

MOST_GROWTH = 20 * 1024
"""Bytes of memory that a cycle may leave behind, in the mean."""

PROGRAM = """
import asyncio, gc, json, os, sys
import leaks
import klieg

@klieg.remote
def echo(value):
    return value

@klieg.remote
class Async:
    async def call(self, value):
        return await echo.remote(value)
    async def count(self):
        yield 1
        yield 2

@klieg.remote(max_concurrency=2)
class Threaded:
    def call(self, value):
        return value

def use_everything():
    async_actor, threaded = Async.remote(), Threaded.options(name="threaded").remote()
    assert klieg.get([async_actor.call.remote(1), threaded.call.remote(2), echo.remote(3)]) == [1, 2, 3]
    assert [klieg.get(ref) for ref in async_actor.count.remote()] == [1, 2]
    large = klieg.put(bytearray(1 << 20))
    assert len(klieg.get(echo.remote(large))) == 1 << 20
    assert asyncio.run(asyncio.wait_for(threaded.call.remote(4), 30)) == 4
    assert klieg.get_actor("threaded").call.remote(5).future().result() == 5
    klieg.kill(threaded)

def cycle(engine, number):
    klieg.init(engine=engine, num_cpus=2)
    if number % 10 == 0:
        use_everything()
    klieg.shutdown()

def memory():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects())

engine, cycles, warm_up = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(cycles):
    if number == warm_up:
        before, (bytes_before, objects_before) = leaks.Snapshot.take(), memory()
    cycle(engine, number)
bytes_after, objects_after = memory()
print(json.dumps({
    "left": leaks.leaks_after(before),
    "bytes": bytes_after - bytes_before,
    "objects": objects_after - objects_before,
}))
"""


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks):
    """The runtimes are those of the program."""


@pytest.mark.not_on_ray("how a driver starts and ends there is Ray's affair, and takes seconds")
def test_a_hundred_runtimes_leave_nothing(engine):
    # One arena: what the allocator keeps for threads that come and go would hide what a cycle leaves.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine, str(CYCLES), str(WARM_UP)],
        env=environment(MALLOC_ARENA_MAX="1"),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["left"] == []
    assert found["bytes"] <= MOST_GROWTH * (CYCLES - WARM_UP)
    assert found["objects"] < CYCLES - WARM_UP
