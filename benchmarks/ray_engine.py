"""Calls a second of klieg's Ray engine beside plain Ray, on one cluster of this machine, in one process.

    python -m benchmarks.ray_engine [--rounds 5] [--quick]

Each row is measured by turns, klieg and Ray, and the ratio is the median of the rounds' own ratios, so that a slow
minute of the machine falls on both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

ROWS = {
    ("plain", 1): (500, 0.9),
    ("plain", 10): (2000, 2.0),
    ("plain", 100): (4000, None),
    ("plain", 1000): (6000, 15.0),
    ("async", 1): (500, 0.9),
    ("async", 10): (2000, 2.0),
    ("async", 100): (4000, None),
    ("async", 1000): (6000, 15.0),
}
"""(kind of actor, calls in flight): (calls of plain Ray that a round makes, the ratio that is wanted)."""

MORE_FOR_KLIEG = {1: 1, 10: 2, 100: 8, 1000: 10}
"""Times as many calls for klieg, so that both sides of a round take about as long."""


class Plain:
    def echo(self, value: Any) -> Any:
        return value


class Async:
    async def echo(self, value: Any) -> Any:
        return value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    arguments = parser.parse_args()
    rounds, share = (1, 0.2) if arguments.quick else (arguments.rounds, 1.0)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

    import klieg

    with klieg.init(engine="ray", address="local", num_cpus=2, log_to_driver=False):
        print(f"{'actor':6} {'in flight':>9} {'klieg /s':>20} {'Ray /s':>16} {'ratio':>6} {'wanted':>6}")
        for (kind, in_flight), (calls, wanted) in ROWS.items():
            measure(kind, in_flight, max(in_flight, int(calls * share)), rounds, wanted)


def measure(kind: str, in_flight: int, calls: int, rounds: int, wanted: float | None) -> None:
    import ray

    import klieg

    cls = {"plain": Plain, "async": Async}[kind]
    ours, theirs = klieg.remote(cls).remote(), ray.remote(num_cpus=0)(cls).remote()
    klieg.get(ours.echo.remote(0))
    ray.get(theirs.echo.remote(0))
    pairs = [
        (
            rate(ours.echo.remote, klieg.get, calls * MORE_FOR_KLIEG[in_flight], in_flight),
            rate(theirs.echo.remote, ray.get, calls, in_flight),
        )
        for _ in range(rounds)
    ]
    ratio = statistics.median(our / their for our, their in pairs)
    print(
        f"{kind:6} {in_flight:9} {spread([our for our, _ in pairs]):>20} {spread([their for _, their in pairs]):>16} "
        f"{ratio:6.2f} {wanted or '':>6}",
        flush=True,
    )
    klieg.kill(ours)
    ray.kill(theirs)


def rate(submit: Callable[[Any], Any], get: Callable[[Any], Any], calls: int, in_flight: int) -> float:
    start = time.perf_counter()
    for _ in range(calls // in_flight):
        if in_flight == 1:
            get(submit(0))
        else:
            get([submit(0) for _ in range(in_flight)])
    return calls / (time.perf_counter() - start)


def spread(rates: list[float]) -> str:
    return f"{min(rates):,.0f}-{max(rates):,.0f}"


if __name__ == "__main__":
    main()
