"""One runtime in one round: start it, run the rows, stop it.

    python -m benchmarks.contestant klieg|ray|bare --rows a,b --seconds 1 [--engine local]

prints one JSON object a line: first the versions, then each row as it is done, so that a row that
hangs costs the rows after it and no others.
"""

import argparse
import importlib
import json
import platform
import time
from collections.abc import Callable
from typing import Any

from benchmarks import bare, rows, workloads
from benchmarks.workloads import Bench

CPUS = 2


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def say_row(key: str, measure: Callable[[], float]) -> None:
    try:
        say(row=key, value=measure())
    except Exception as error:
        say(row=key, error=f"{type(error).__name__}: {error}")


def seconds_of(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run_bare(chosen: tuple[rows.Row, ...], seconds: float) -> None:
    say(runtime="bare", version="", python=platform.python_version())
    bench = Bench(api=None, seconds=seconds)
    for row in chosen:
        if row.bare:
            say_row(row.key, lambda key=row.key: getattr(bare, key)(bench))


def run_runtime(name: str, engine: str, chosen: tuple[rows.Row, ...], seconds: float) -> None:
    api = importlib.import_module(name)
    version = getattr(api, "__version__", "")
    say(runtime=name, version=version, python=platform.python_version())

    started = seconds_of(lambda: start(api, engine))
    keys = [row.key for row in chosen]
    if rows.INIT in keys:
        say(row=rows.INIT, value=started)
    for key in keys:
        if key not in {rows.INIT, rows.SHUTDOWN}:
            say_row(key, lambda key=key: getattr(workloads, key)(Bench(api, seconds)))
    stopped = seconds_of(api.shutdown)
    if rows.SHUTDOWN in keys:
        say(row=rows.SHUTDOWN, value=stopped)


def start(api: Any, engine: str) -> None:
    if api.__name__ == "ray":
        api.init(include_dashboard=False, configure_logging=False, log_to_driver=False, num_cpus=CPUS)
    elif engine == "ray":
        api.init(engine="ray", address="local", log_to_driver=False, num_cpus=CPUS)
    else:
        api.init(engine=engine, num_cpus=CPUS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runtime", choices=["klieg", "ray", "bare"])
    parser.add_argument("--rows")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--engine", choices=["local", "inline", "ray"], default="local")
    arguments = parser.parse_args()

    chosen = rows.rows_named(arguments.rows)
    if arguments.runtime == "bare":
        run_bare(chosen, arguments.seconds)
    else:
        run_runtime(arguments.runtime, arguments.engine, chosen, arguments.seconds)


if __name__ == "__main__":
    main()
