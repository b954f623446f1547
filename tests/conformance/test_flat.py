"""Calls leave nothing behind, however one waits for them; and many may be under way at once.

`make chaos` makes 100,000 calls for each way of waiting; `make test` a part of that.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Sized

import pytest
from faults.sizes import size

import klieg
from klieg import engine as engines
from klieg import session
from klieg.concurrency.call import CURRENT

CALLS = size(100_000, 12_000)
WARM_UP = 2_000
AT_ONCE = 500

FEW = 200
"""Blocks of memory, and entries of tables, that may be more by chance, whatever the number of calls."""

RESIDENT = 8 << 20
"""Bytes by which the resident memory of a process may differ: the allocator keeps what it has got."""


def measure():
    """What this process holds now."""
    gc.collect()
    engine, call = engines.current(), CURRENT.get()
    host = session.worker_host if call is None else call.host
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "blocks": sys.getallocatedblocks(),
        "resident": resident,
        "tables": sum(len(table) for table in vars(engine).values() if isinstance(table, Sized)),
        "calls": 0 if host is None else len(host.calls),
    }


@klieg.remote
class Server:
    async def echo(self, number):
        return number

    async def suspend(self, number):
        await asyncio.sleep(0)
        return number

    async def count(self, number):
        for item in range(number):
            yield item

    def measure(self):
        return {**measure(), "tasks": len(asyncio.all_tasks())}


def chunks(count):
    return (range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE))


def by_get(server, count):
    for numbers in chunks(count):
        assert klieg.get([server.echo.remote(i) for i in numbers]) == list(numbers)


def by_await(server, count):
    async def main():
        for numbers in chunks(count):
            assert await asyncio.gather(*(server.suspend.remote(i) for i in numbers)) == list(numbers)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def by_wait(server, count):
    for numbers in chunks(count):
        left = [server.echo.remote(i) for i in numbers]
        while left:
            _, left = klieg.wait(left)


def by_wait_for(server, count):
    async def main():
        for numbers in chunks(count):
            await asyncio.wait([asyncio.ensure_future(server.suspend.remote(i)) for i in numbers])
            await asyncio.wait_for(server.echo.remote(1), 60)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def by_future(server, count):
    for numbers in chunks(count):
        assert [f.result(60) for f in [server.echo.remote(i).future() for i in numbers]] == list(numbers)


def by_as_completed(server, count):
    for numbers in chunks(count):
        refs = [server.suspend.remote(i) for i in numbers]
        assert sorted(klieg.util.as_completed(refs)) == list(numbers)


def by_generator(server, count):
    for numbers in chunks(count):
        assert [klieg.get(ref) for ref in server.count.remote(len(numbers))] == list(range(len(numbers)))


def by_async_generator(server, count):
    async def main():
        for numbers in chunks(count):
            assert [await ref async for ref in server.count.remote(len(numbers))] == list(range(len(numbers)))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def by_nobody(server, count):
    for numbers in chunks(count):
        for i in numbers:
            server.echo.remote(i)
        klieg.get(server.echo.remote(0))


WAYS = [
    by_get, by_await, by_wait, by_wait_for, by_future, by_as_completed, by_generator, by_async_generator, by_nobody,
]  # fmt: skip


@pytest.mark.not_on_ray("Ray keeps books of its own on what has been called")
@pytest.mark.parametrize("way", WAYS)
def test_calls_leave_nothing_behind_in_either_process(way):
    server = Server.remote()
    klieg.get(server.measure.remote()), measure()  # what only the first one brings is no leak either
    way(server, WARM_UP)
    before = klieg.get(server.measure.remote()), measure()
    way(server, CALLS)
    after = klieg.get(server.measure.remote()), measure()
    for there, here in zip(before, after, strict=True):
        assert here["blocks"] - there["blocks"] < FEW
        assert here["tables"] - there["tables"] < FEW
        assert here["resident"] - there["resident"] < RESIDENT
        assert here["calls"] == there["calls"]
    assert after[0]["tasks"] == before[0]["tasks"]


def test_ten_thousand_calls_await_at_once_on_one_actor():
    @klieg.remote(max_concurrency=10_001)
    class Door:
        def __init__(self):
            self.opened, self.inside = asyncio.Event(), 0

        async def enter(self, number):
            self.inside += 1
            if self.inside == 10_000:
                self.opened.set()
            await self.opened.wait()
            return number

        async def tasks(self):
            return len(asyncio.all_tasks())

    door = Door.remote()
    assert klieg.get([door.enter.remote(i) for i in range(10_000)]) == list(range(10_000))
    assert klieg.get(door.tasks.remote()) == 1
