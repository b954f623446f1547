"""What it brings to look at the sockets before sleeping on them, with few and with many busy processes.

    python -m benchmarks.polling [--rounds 3] [--seconds 0.5]

Pairs of actors, the one calling the other one call at a time, run side by side: one pair for each two processes. Shown
are the calls a second of all pairs together and the processor time of one call, both of its processes together, while
processes look first (as they do) and while they sleep at once (KLIEG_POLL_SECONDS=0), and the ratio of the rates.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import klieg
from benchmarks.contestant import say

PAIRS = (1, 2, 4, 8)
WAYS = {"looking": None, "sleeping": "0"}
"""What KLIEG_POLL_SECONDS says; None: nothing."""


class Callee:
    def ping(self) -> int:
        return 1

    def processor(self) -> float:
        return time.process_time()


class Caller:
    def __init__(self, callee: Any) -> None:
        self.callee = callee

    def call_for(self, seconds: float) -> int:
        """Calls made one at a time in so many seconds."""
        calls, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            klieg.get(self.callee.ping.remote())
            calls += 1
        return calls

    def processor(self) -> float:
        return time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # the measuring process
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.seconds)
        return
    rounds = [{way: run(value, arguments.seconds) for way, value in WAYS.items()} for _ in range(arguments.rounds)]
    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds: median (least-most)")
    print(f"{'pairs':>5}  {'looking /s':>28}  {'sleeping /s':>28}  {'ratio':>6}  {'µs of processor, a call':>24}")
    for pairs in PAIRS:
        rates = {way: [one[way][str(pairs)]["rate"] for one in rounds] for way in WAYS}
        costs = {way: statistics.median(one[way][str(pairs)]["cost"] for one in rounds) for way in WAYS}
        ratio = statistics.median(a / b for a, b in zip(rates["looking"], rates["sleeping"], strict=True))
        print(
            f"{pairs:5}  {spread(rates['looking']):>28}  {spread(rates['sleeping']):>28}  {ratio:6.2f}"
            f"  {costs['looking']:>10.0f}  {costs['sleeping']:>12.0f}"
        )


def run(value: str | None, seconds: float) -> dict[str, dict[str, float]]:
    """One round of one way, in a process of its own: {pairs: {rate, cost}}."""
    environment = os.environ | ({} if value is None else {"KLIEG_POLL_SECONDS": value})
    command = [sys.executable, "-m", "benchmarks.polling", "--measure", "--seconds", str(seconds)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
    found: dict[str, dict[str, float]] = json.loads(output)
    return found


def measure(seconds: float) -> None:
    klieg.init(num_cpus=1)
    found = {}
    for pairs in PAIRS:
        callees = [klieg.remote(Callee).options(num_cpus=0).remote() for _ in range(pairs)]
        callers = [klieg.remote(Caller).options(num_cpus=0).remote(callee) for callee in callees]
        klieg.get([caller.call_for.remote(0.05) for caller in callers])
        before = processor(callers + callees)
        calls = sum(klieg.get([caller.call_for.remote(seconds) for caller in callers]))
        cost = (processor(callers + callees) - before) / calls
        found[pairs] = {"rate": calls / seconds, "cost": cost * 1e6}
        for one in callers + callees:
            klieg.kill(one)
    klieg.shutdown()
    say(**{str(pairs): figures for pairs, figures in found.items()})


def processor(actors: list[Any]) -> float:
    return sum(klieg.get([one.processor.remote() for one in actors]))


def spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"


if __name__ == "__main__":
    main()
