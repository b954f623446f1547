"""Measure how fast klieg is on this machine: some seconds of calls, plain and async, one at a time and many at once."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import klieg
from klieg.cli import show

SHORT = 0.5
"""Seconds for which each row is measured at least."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=SHORT, help=f"for each row at least (default {SHORT})")
    show.add_format(parser)


def run(given: argparse.Namespace) -> int:
    with klieg.init(num_cpus=2):
        measured = [
            {"what": what, "per second": round(_rate(work, count, given.seconds))} for what, work, count in _workloads()
        ]
    show.rows(measured, ["what", "per second"], given.format)
    return 0


def _rate(work: Callable[[], Any], count: int, seconds: float) -> float:
    work()  # once for those who are not warm
    begin, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        work()
        done += count
    return done / passed


def _workloads() -> Iterator[tuple[str, Callable[[], Any], int]]:
    task = klieg.remote(_nothing)
    plain, coroutines = klieg.remote(_Plain).remote(), klieg.remote(_Async).remote()
    yield "tasks, one at a time", lambda: klieg.get(task.remote()), 1
    yield "tasks, 1,000 at once", lambda: klieg.get([task.remote() for _ in range(1000)]), 1000
    yield "plain actor, one call at a time", lambda: klieg.get(plain.nothing.remote()), 1
    yield "plain actor, 1,000 calls at once", lambda: klieg.get([plain.nothing.remote() for _ in range(1000)]), 1000
    yield "async actor, one call at a time", lambda: klieg.get(coroutines.nothing.remote()), 1
    yield (
        "async actor, 1,000 calls at once",
        lambda: klieg.get([coroutines.nothing.remote() for _ in range(1000)]),
        1000,
    )
    yield "put and get of a small value", lambda: klieg.get(klieg.put(1)), 1
    yield "actors created, called and killed", _create_and_kill, 1
    yield "async driver, gather of 1,000", lambda: asyncio.run(_gather(coroutines)), 1000


def _create_and_kill() -> None:
    actor = klieg.remote(_Plain).remote()
    klieg.get(actor.nothing.remote())
    klieg.kill(actor)


async def _gather(actor: Any) -> None:
    await asyncio.gather(*(actor.nothing.remote() for _ in range(1000)))


def _nothing() -> None:
    return


class _Plain:
    def nothing(self) -> None:
        return


class _Async:
    async def nothing(self) -> None:
        return
