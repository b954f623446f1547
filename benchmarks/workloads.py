"""The work of each row, written once: `Bench.api` is klieg or Ray, whose names are the same.

Each public function is one row and returns its figure in the row's unit. It leaves no actor behind.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import memory

IN_FLIGHT = 1000
MIB = 1 << 20


class Bench(NamedTuple):
    api: Any
    """The module under measurement."""
    seconds: float
    """How long a rate is measured, at least."""


# --- How a rate is measured ---


def rate(bench: Bench, step: Callable[[], Any], count: int = 1) -> float:
    """How often a second `step` does its `count` things, after one step to warm up."""
    step()
    steps = 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < bench.seconds:
        step()
        steps += 1
    return steps * count / took


async def async_rate(bench: Bench, step: Callable[[], Awaitable[Any]], count: int = 1) -> float:
    await step()
    steps = 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < bench.seconds:
        await step()
        steps += 1
    return steps * count / took


@contextlib.contextmanager
def actor(bench: Bench, cls: type, *args: Any, **options: Any) -> Iterator[Any]:
    """A handle of an actor that has answered once; the actor is killed when the block ends."""
    remote_class = bench.api.remote(cls)
    handle = (remote_class.options(**options) if options else remote_class).remote(*args)
    bench.api.get(handle.ping.remote())
    try:
        yield handle
    finally:
        bench.api.kill(handle)


# --- The actors ---


class Plain:
    def ping(self) -> int:
        return 1

    def size(self, array: Any) -> int:
        return array.nbytes


class Async:
    async def ping(self) -> int:
        return 1

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def items(self, count: int) -> AsyncIterator[int]:
        for item in range(count):
            yield item


class Parent:
    """An async actor that awaits calls to others."""

    def __init__(self, children: list) -> None:
        self.children = children

    async def ping(self) -> int:
        return 1

    async def fan_out(self, calls: int) -> int:
        share = calls // len(self.children)
        refs = [child.ping.remote() for _ in range(share) for child in self.children]
        return len(await asyncio.gather(*refs))


def one() -> int:
    return 1


def last_of(array: Any) -> int:
    return int(array[-1])


# --- Actors: their life and what they cost ---


def create_call_kill(bench: Bench) -> float:
    def step() -> None:
        with actor(bench, Plain):
            pass

    return rate(bench, step)


def memory_of_ten(bench: Bench) -> float:
    """MiB of private memory: this driver, the runtime and ten actors that have answered once."""
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(actor(bench, Plain))
        return memory.private_bytes() / MIB


# --- Calls ---


def plain_one(bench: Bench) -> float:
    return _one_at_a_time(bench, Plain)


def plain_1000(bench: Bench) -> float:
    return _in_flight(bench, Plain)


def threaded_1000(bench: Bench) -> float:
    return _in_flight(bench, Plain, max_concurrency=16)


def async_one(bench: Bench) -> float:
    return _one_at_a_time(bench, Async)


def async_1000(bench: Bench) -> float:
    return _in_flight(bench, Async)


def _one_at_a_time(bench: Bench, cls: type) -> float:
    with actor(bench, cls) as handle:
        return rate(bench, lambda: bench.api.get(handle.ping.remote()))


def _in_flight(bench: Bench, cls: type, **options: Any) -> float:
    with actor(bench, cls, **options) as handle:
        return rate(bench, lambda: _get_all(bench, handle.ping), IN_FLIGHT)


def _get_all(bench: Bench, function: Any) -> None:
    bench.api.get([function.remote() for _ in range(IN_FLIGHT)])


def call_1mib(bench: Bench) -> float:
    array = _array(MIB)
    with actor(bench, Plain) as handle:
        return rate(bench, lambda: bench.api.get(handle.size.remote(array)))


def sleep_1000(bench: Bench) -> float:
    """Seconds beyond the 50 ms that 1,000 calls at once would take if they cost nothing."""
    nap = 0.05
    with actor(bench, Async) as handle:
        sweeps = rate(bench, lambda: bench.api.get([handle.sleep.remote(nap) for _ in range(IN_FLIGHT)]))
    return 1 / sweeps - nap


def stream(bench: Bench) -> float:
    def step(handle: Any) -> None:
        for ref in handle.items.options(num_returns="streaming").remote(IN_FLIGHT):
            bench.api.get(ref)

    with actor(bench, Async) as handle:
        return rate(bench, lambda: step(handle), IN_FLIGHT)


# --- From asyncio ---


def await_one(bench: Bench) -> float:
    async def measure(handle: Any) -> float:
        async def step() -> None:
            await handle.ping.remote()

        return await async_rate(bench, step)

    with actor(bench, Async) as handle:
        return asyncio.run(measure(handle))


def gather_1000(bench: Bench) -> float:
    async def measure(handle: Any) -> float:
        async def step() -> None:
            await asyncio.gather(*[handle.ping.remote() for _ in range(IN_FLIGHT)])

        return await async_rate(bench, step, IN_FLIGHT)

    with actor(bench, Async) as handle:
        return asyncio.run(measure(handle))


def fan_out(bench: Bench) -> float:
    """Calls a second that an async actor makes to two others, a thousand at once."""
    with actor(bench, Async) as left, actor(bench, Async) as right:
        with actor(bench, Parent, [left, right]) as parent:
            step = lambda: bench.api.get(parent.fan_out.remote(IN_FLIGHT))  # noqa: E731
            return rate(bench, step, IN_FLIGHT)


# --- Tasks and refs ---


def task_one(bench: Bench) -> float:
    task = bench.api.remote(one)
    return rate(bench, lambda: bench.api.get(task.remote()))


def task_1000(bench: Bench) -> float:
    task = bench.api.remote(one)
    return rate(bench, lambda: _get_all(bench, task), IN_FLIGHT)


def wait_500(bench: Bench) -> float:
    """Refs a second: 500 calls are made, then waited for one by one until none is left."""
    count = 500

    def step(handle: Any) -> None:
        pending = [handle.ping.remote() for _ in range(count)]
        while pending:
            _, pending = bench.api.wait(pending)

    with actor(bench, Plain) as handle:
        return rate(bench, lambda: step(handle), count)


def put_small(bench: Bench) -> float:
    return rate(bench, lambda: bench.api.put(1))


def get_small(bench: Bench) -> float:
    ref = bench.api.put(1)
    return rate(bench, lambda: bench.api.get(ref))


# --- Large values ---


def put_100mib(bench: Bench) -> float:
    array = _array(100 * MIB)
    return rate(bench, lambda: bench.api.put(array)) * array.nbytes / (1 << 30)


def get_100mib(bench: Bench) -> float:
    """Gets a second; a runtime that copies the array fails the row."""
    ref = bench.api.put(_array(100 * MIB))
    first, second = bench.api.get([ref, ref])
    if first.ctypes.data != second.ctypes.data:
        raise RuntimeError("two gets of one array gave two copies")
    return rate(bench, lambda: bench.api.get(ref))


def fan_out_10mib(bench: Bench) -> float:
    """Tasks a second, a thousand at once, that all get the same array."""
    task, ref = bench.api.remote(last_of), bench.api.put(_array(10 * MIB))
    return rate(bench, lambda: bench.api.get([task.remote(ref) for _ in range(IN_FLIGHT)]), IN_FLIGHT)


def _array(size: int) -> Any:
    import numpy  # late: the memory of ten idle actors is measured without it

    return numpy.ones(size, dtype=numpy.uint8)
