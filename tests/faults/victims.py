"""Actors and tasks that can be made to die, in each way and of each kind. Workers import this file by name."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import numpy

import klieg
from klieg.engines.local.failpoints import ACTIONS

SAYS = {
    "kill": "SIGKILL",
    "segv": "SIGSEGV",
    "abort": "SIGABRT",
    "bus": "SIGBUS",
    "term": "SIGTERM",
    "exit0": "exit code 0",
    "exit7": "exit code 7",
    "sysexit": "exit code",
    "overflow": "SIGSEGV",
}
"""The ways to die, and what the error must say of each."""

LARGE = 1 << 20
"""Bytes of a value that goes to shared memory."""


class Plain:
    """A plain actor; its methods are what the other kinds do, too."""

    def __init__(self, way: str = "") -> None:
        self.kept: Any = None
        self.count = 0
        if way:
            ACTIONS[way]()

    def ping(self) -> int:
        return os.getpid()

    def echo(self, value: Any) -> Any:
        return value

    def add(self) -> int:
        self.count += 1
        return self.count

    def die(self, way: str) -> None:
        ACTIONS[way]()

    def die_at(self, gate: Any, way: str) -> int:
        """Return at once, and die later, idle, when the gate opens."""
        threading.Thread(target=_pass_and_die, args=(gate, way), daemon=True).start()
        return os.getpid()

    def wait_at(self, gate: Any) -> int:
        gate.wait()
        return os.getpid()

    def keep(self, value: Any) -> None:
        self.kept = value

    def fail(self, error: BaseException) -> None:
        raise error

    def stream(self, count: int) -> Any:
        yield from range(count)

    def put_large(self) -> Any:
        return klieg.put(numpy.zeros(LARGE, dtype=numpy.uint8))


class Async(Plain):
    """The same on an event loop."""

    async def ping(self) -> int:
        return os.getpid()

    async def echo(self, value: Any) -> Any:
        return value

    async def die(self, way: str) -> None:
        await asyncio.sleep(0)
        ACTIONS[way]()

    async def wait_at(self, gate: Any) -> int:
        await asyncio.to_thread(gate.wait)
        return os.getpid()

    async def fail(self, error: BaseException) -> None:
        await asyncio.sleep(0)
        raise error


def _pass_and_die(gate: Any, way: str) -> None:
    gate.wait()
    ACTIONS[way]()


KINDS = ("plain", "async", "threaded")


def actor_class(kind: str, **options: Any) -> Any:
    """The actor class of a kind, with the options that make it one."""
    if kind == "threaded":
        options.setdefault("max_concurrency", 4)
    cls = klieg.remote(Async if kind == "async" else Plain)
    return cls.options(**options) if options else cls


def ping() -> int:
    return os.getpid()


def echo(value: Any) -> Any:
    return value


def die(way: str) -> None:
    ACTIONS[way]()


def die_once(way: str, note: str) -> str:
    """Die at the first attempt; the file says that there was one."""
    try:
        os.close(os.open(note, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "alive"
    ACTIONS[way]()
    raise AssertionError("still alive")


def put_large() -> Any:
    return klieg.put(numpy.zeros(LARGE, dtype=numpy.uint8))


def wait_at(gate: Any) -> int:
    gate.wait()
    return os.getpid()
