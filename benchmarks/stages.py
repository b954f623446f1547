"""Where the time of one call goes: processor time of the caller's process and of the actor's, for each way of calling.

    python -m benchmarks.stages

Processor time, not seconds on the clock, so that other work on the machine changes it little. The best of several
turns is shown: what disturbs a turn can only make it longer.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import klieg

CALLS = 3000
TURNS = 9


class Plain:
    def ping(self) -> int:
        return 1

    def processor(self) -> float:
        return time.process_time()


class Async:
    async def ping(self) -> int:
        return 1

    async def processor(self) -> float:
        return time.process_time()


def one_by_one(actor: Any) -> None:
    for _ in range(CALLS):
        klieg.get(actor.ping.remote())


def all_in_flight(actor: Any) -> None:
    for _ in range(CALLS // 1000):
        klieg.get([actor.ping.remote() for _ in range(1000)])


def gathered(actor: Any) -> None:
    async def gather() -> None:
        for _ in range(CALLS // 1000):
            await asyncio.gather(*[actor.ping.remote() for _ in range(1000)])

    asyncio.run(gather())


def measure(actor: Any, step: Callable[[Any], None]) -> tuple[list[float], list[float]]:
    """Microseconds a call, here and in the actor, of each turn."""
    here, there = [], []
    step(actor)
    for _ in range(TURNS):
        there_before, here_before = klieg.get(actor.processor.remote()), time.process_time()
        step(actor)
        here.append((time.process_time() - here_before) / CALLS * 1e6)
        there.append((klieg.get(actor.processor.remote()) - there_before) / CALLS * 1e6)
    return here, there


def main() -> None:
    ways = [
        ("plain, one at a time", Plain, one_by_one),
        ("plain, 1,000 in flight", Plain, all_in_flight),
        ("async, one at a time", Async, one_by_one),
        ("async, 1,000 in flight", Async, all_in_flight),
        ("async, gather of 1,000", Async, gathered),
    ]
    print("processor time of one call, µs: best (median)")
    with klieg.init():
        for name, cls, step in ways:
            actor = klieg.remote(cls).remote()
            klieg.get(actor.ping.remote())
            figures = [f"{min(times):5.1f} ({statistics.median(times):5.1f})" for times in measure(actor, step)]
            print(f"  {name:24} caller {figures[0]}   actor {figures[1]}")
            klieg.kill(actor)


if __name__ == "__main__":
    main()
