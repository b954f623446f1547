"""Measure klieg, the installed Ray and a bare loop side by side, and print one table.

    python -m benchmarks [--rounds 3] [--rows plain_one,async_1000] [--quick] [--no-ray]
                         [--engine local|inline] [--ray-python PATH] [--json FILE]

Every runtime runs in a process of its own, once a round. The rounds alternate, and each begins with
another runtime, so that a slow minute of the machine falls on all of them alike.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from benchmarks import memory, report, rows
from benchmarks.report import Results

ROOT = Path(__file__).resolve().parent.parent
SECONDS, QUICK_SECONDS = 1.0, 0.2
START_LIMIT, ROW_LIMIT = 60, 20
"""Seconds that a runtime may take to start and stop, and for each row, before it counts as hung."""


def main() -> None:
    arguments = parse_arguments()
    pythons = {"klieg": sys.executable, "bare": sys.executable, "ray": arguments.ray_python}
    runtimes = ["klieg", "bare"]
    if not arguments.no_ray and can_import("ray", arguments.ray_python):
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
    parser.add_argument("--engine", choices=["local", "inline"], default="local")
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


def can_import(module: str, python: str) -> bool:
    check = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", check], check=False).returncode == 0


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
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        end = run_limited(command, START_LIMIT + ROW_LIMIT * len(arguments.rows), said, complaints)
        said.seek(0)
        done = take_results(runtime, said, results)
        if end:
            complaints.seek(0)
            last = complaints.read().strip().splitlines()[-1:]
            first_missing = next((row.key for row in arguments.rows if row.key not in done), "end")
            results.errors[runtime, first_missing] = " ".join([end, *last])


def run_limited(command: list[str], limit: float, said: TextIO, complaints: TextIO) -> str:
    """Run to the end or the limit. Says what went wrong, or nothing."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=complaints,
        start_new_session=True,
    )
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"hung: ended after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"exit status {status}:" if status else ""


def environment() -> dict[str, str]:
    """Workers find the benchmarks by PYTHONPATH; Ray reports to nobody and stays on loopback."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        memory.MARK: secrets.token_hex(8),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the switch that keeps every port on 127.0.0.1
    }


def take_results(runtime: str, said: TextIO, results: Results) -> set[str]:
    """Add every line that is a contestant's, and return the keys of the rows among them."""
    done = set()
    for line in said:
        try:
            fact = json.loads(line)
        except ValueError:  # a print of somebody else
            continue
        results.add(runtime, fact)
        done.add(fact.get("row"))
    return done


if __name__ == "__main__":
    main()
