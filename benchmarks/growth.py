"""How the cost grows: calls in flight, actors, the size of a payload, callers. klieg beside Ray, as a table and a plot.

    python -m benchmarks.growth [--rounds 3] [--series in_flight,actors] [--quick] [--no-ray]
                                [--engine local|inline|ray] [--ray-python PATH] [--json FILE] [--plot FILE]

Each runtime runs in a process of its own, once a round and series, and the rounds alternate.
"""

import argparse
import contextlib
import importlib
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import contestant, processes
from benchmarks.workloads import Async, Bench, Parent, Plain, actor, rate

KIB, MIB = 1 << 10, 1 << 20
SERIES_LIMIT = 180
"""Seconds that one series may take in one runtime before it counts as hung."""


class Series(NamedTuple):
    title: str
    axis: str
    points: tuple[int, ...]
    measure: Callable[[Bench, int], float]
    """Calls a second at one point."""


def plain_in_flight(bench: Bench, count: int) -> float:
    with actor(bench, Plain) as handle:
        return _burst_rate(bench, [handle], count)


def async_in_flight(bench: Bench, count: int) -> float:
    with actor(bench, Async) as handle:
        return _burst_rate(bench, [handle], count)


def over_actors(bench: Bench, count: int) -> float:
    """A thousand calls in flight, spread evenly over so many plain actors."""
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(actor(bench, Plain, num_cpus=0)) for _ in range(count)]
        return _burst_rate(bench, handles, 1000)


def _burst_rate(bench: Bench, handles: list[Any], calls: int) -> float:
    def step() -> None:
        bench.api.get([handles[i % len(handles)].ping.remote() for i in range(calls)])

    return rate(bench, step, calls)


class Sizer:
    def ping(self) -> int:
        return 1

    def size(self, value: bytes) -> int:
        return len(value)


def with_payload(bench: Bench, size: int) -> float:
    """One call at a time, whose argument is so many bytes."""
    value = bytes(size)
    with actor(bench, Sizer) as handle:
        return rate(bench, lambda: bench.api.get(handle.size.remote(value)))


def from_callers(bench: Bench, count: int) -> float:
    """So many async actors, each with a thousand calls in flight to one other."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(actor(bench, Async, num_cpus=0))
        callers = [stack.enter_context(actor(bench, Parent, [target], num_cpus=0)) for _ in range(count)]
        step = lambda: bench.api.get([caller.fan_out.remote(1000) for caller in callers])  # noqa: E731
        return rate(bench, step, 1000 * count)


SERIES = {
    "in_flight": Series(
        "plain actor", "calls in flight", (1, 10, 100, 1_000, 10_000, 100_000), plain_in_flight
    ),
    "in_flight_async": Series(
        "async actor", "calls in flight", (1, 10, 100, 1_000, 10_000, 100_000), async_in_flight
    ),
    "actors": Series("1,000 calls over plain actors", "actors", (1, 2, 5, 10, 50, 100, 200), over_actors),
    "payload": Series(
        "plain actor, one at a time", "bytes of the argument",
        (1, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 256 * MIB), with_payload,
    ),
    "callers": Series("one async actor, 1,000 from each caller", "callers", (1, 2, 4, 8, 16), from_callers),
}  # fmt: skip

Samples = dict[tuple[str, str, int], list[float]]
"""Calls a second, by series, runtime and point."""


def main() -> None:
    arguments = parse_arguments()
    if arguments.runtime:
        run_series(arguments.runtime, arguments.engine, arguments.series, arguments.seconds)
        return
    samples: Samples = defaultdict(list)
    ends: list[str] = []
    for number in range(arguments.rounds):
        for key in arguments.series:
            for runtime in arguments.runtimes if number % 2 == 0 else arguments.runtimes[::-1]:
                print(f"round {number + 1} of {arguments.rounds}: {key}, {runtime}", file=sys.stderr, flush=True)
                facts, end = processes.run(command(arguments, runtime, key), SERIES_LIMIT)
                for fact in facts:
                    samples[key, runtime, fact["point"]].append(fact["rate"])
                ends += [f"{key}, {runtime}: {end}"] * bool(end)
    print("\n\n".join(table(key, arguments.runtimes, samples) for key in arguments.series))
    print("\n".join(["", *ends]))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(samples), indent=2) + "\n")
    if arguments.plot:
        draw(arguments.plot, arguments.series, arguments.runtimes, samples)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--rounds", type=int, default=1, help="how often each runtime runs each series (1)")
    parser.add_argument("--series", default=",".join(SERIES), help=f"only these of {', '.join(SERIES)}")
    parser.add_argument("--quick", action="store_true", help="short and coarse")
    parser.add_argument("--engine", choices=["local", "inline", "ray"], default="local", help="klieg's (local)")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--ray-python", default=sys.executable, help="an interpreter that has Ray")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there (.svg or .png; needs matplotlib)")
    parser.add_argument("--runtime", choices=["klieg", "ray"], help=argparse.SUPPRESS)  # the measuring process
    arguments = parser.parse_args()
    arguments.series = arguments.series.split(",")
    if unknown := set(arguments.series) - set(SERIES):
        parser.error(f"no series is named {', '.join(sorted(unknown))}; there are: {', '.join(SERIES)}")
    if arguments.plot and not processes.can_import("matplotlib", sys.executable):
        parser.error("--plot needs matplotlib: pip install 'klieg[bench]'")
    arguments.seconds = 0.1 if arguments.quick else 0.5
    with_ray = not arguments.no_ray and processes.can_import("ray", arguments.ray_python)
    arguments.runtimes = ["klieg", "ray"] if with_ray else ["klieg"]
    return arguments


def command(arguments: argparse.Namespace, runtime: str, key: str) -> list[str]:
    needs_ray = runtime == "ray" or arguments.engine == "ray"
    python = arguments.ray_python if needs_ray else sys.executable
    chosen = ["--runtime", runtime, "--series", key, "--engine", arguments.engine]
    return [python, "-m", "benchmarks.growth", *chosen, *["--quick"] * arguments.quick]


def run_series(runtime: str, engine: str, keys: list[str], seconds: float) -> None:
    """In the measuring process: say the rate at each point as soon as it is known."""
    api = importlib.import_module(runtime)
    contestant.start(api, engine)
    for key in keys:
        for point in SERIES[key].points:
            began = time.perf_counter()
            contestant.say(point=point, rate=SERIES[key].measure(Bench(api, seconds), point))
            print(f"{key} {point}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    api.shutdown()


def table(key: str, runtimes: list[str], samples: Samples) -> str:
    """Medians of the calls a second at each point."""
    series = SERIES[key]
    lines = [f"{series.title}: calls/s by {series.axis}"]
    for runtime in runtimes:
        medians = {p: statistics.median(samples[key, runtime, p]) for p in series.points if samples[key, runtime, p]}
        lines += [f"  {runtime:6}" + "".join(f"{point:>12,}" for point in medians)]
        lines += [f"  {'/s':6}" + "".join(f"{median:>12,.{0 if median >= 10 else 2}f}" for median in medians.values())]
    return "\n".join(lines)


def as_json(samples: Samples) -> list[dict[str, Any]]:
    return [
        {"series": key, "runtime": who, "point": point, "rates": found} for (key, who, point), found in samples.items()
    ]


def draw(path: Path, keys: list[str], runtimes: list[str], samples: Samples) -> None:
    """One panel a series, both axes logarithmic: a level line is a cost that does not grow."""
    import matplotlib  # late: an extra, only wanted here

    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = min(3, len(keys))
    figure, panels = pyplot.subplots(-(-len(keys) // columns), columns, figsize=(15, 8), squeeze=False)
    for panel in panels.flat[len(keys) :]:
        panel.remove()
    for panel, key in zip(panels.flat, keys, strict=False):
        series = SERIES[key]
        for runtime in runtimes:
            points = [point for point in series.points if samples[key, runtime, point]]
            medians = [statistics.median(samples[key, runtime, point]) for point in points]
            panel.plot(points, medians, marker="o", label=runtime)
        panel.set(title=series.title, xlabel=series.axis, ylabel="calls/s", xscale="log", yscale="log")
        lowest, highest = panel.get_ylim()
        panel.set_ylim(10 ** math.floor(math.log10(lowest)), 10 ** math.ceil(math.log10(highest)))
        panel.grid(visible=True, which="major", alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
