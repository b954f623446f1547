"""Measure klieg, the installed Ray and a bare loop side by side, and print one table.

    python -m benchmarks [--rounds 3] [--rows plain_one,async_1000] [--quick] [--no-ray]
                         [--engine local|inline|ray] [--ray-python PATH] [--json FILE]

Every runtime runs in a process of its own, once a round. The rounds alternate, and each begins with
another runtime, so that a slow minute of the machine falls on all of them alike.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes, report, rows
from benchmarks.report import Results

SECONDS, QUICK_SECONDS = 1.0, 0.2
START_LIMIT, ROW_LIMIT = 60, 20
"""Seconds that a runtime may take to start and stop, and for each row, before it counts as hung."""


def main() -> None:
    arguments = parse_arguments()
    klieg_python = arguments.ray_python if arguments.engine == "ray" else sys.executable
    pythons = {"klieg": klieg_python, "bare": sys.executable, "ray": arguments.ray_python}
    runtimes = ["klieg", "bare"]
    if not arguments.no_ray and processes.can_import("ray", arguments.ray_python):
        runtimes.append("ray")

    results = Results()
    for number, runtime in turns(runtimes, arguments.rounds):
        print(f"round {number} of {arguments.rounds}: {runtime}", file=sys.stderr, flush=True)
        run_contestant(runtime, pythons[runtime], arguments, results)

    print(report.table(arguments.rows, results))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(arguments.rows, results), indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, help="how often each runtime runs (3; 1 with --quick)")
    parser.add_argument("--rows", help="only these rows, by key, separated by commas")
    parser.add_argument("--quick", action="store_true", help="short and coarse")
    parser.add_argument("--engine", choices=["local", "inline", "ray"], default="local", help="klieg's (local)")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--ray-python", default=sys.executable, help="an interpreter that has Ray")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    try:
        arguments.rows = rows.rows_named(arguments.rows)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def turns(runtimes: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    for number in range(rounds):
        first = number % len(runtimes)
        for runtime in runtimes[first:] + runtimes[:first]:
            yield number + 1, runtime


# --- One contestant ---


def run_contestant(runtime: str, python: str, arguments: argparse.Namespace, results: Results) -> None:
    command = [python, "-m", "benchmarks.contestant", runtime, "--engine", arguments.engine]
    command += ["--rows", ",".join(row.key for row in arguments.rows)]
    command += ["--seconds", str(QUICK_SECONDS if arguments.quick else SECONDS)]
    facts, end = processes.run(command, START_LIMIT + ROW_LIMIT * len(arguments.rows))
    for fact in facts:
        results.add(runtime, fact)
    if end:
        done = {fact.get("row") for fact in facts}
        first_missing = next((row.key for row in arguments.rows if row.key not in done), "end")
        results.errors[runtime, first_missing] = end


if __name__ == "__main__":
    main()
