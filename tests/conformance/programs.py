"""Drivers in processes of their own: for what one driver can do or suffer only once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import leaks

PATIENCE = 15.0
"""Seconds that a program may take; it needs less than one."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment and import path, for a program, and some variables more."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}


def start(program: str, *options: str, **settings: object) -> subprocess.Popen[str]:
    """Start `python -c program` with its output in pipes."""
    return subprocess.Popen(
        [sys.executable, *options, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"env": environment(), **settings},
    )


@contextlib.contextmanager
def running(program: str, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """A running program; it is killed and its pipes are closed at the end."""
    process = start(program, **settings)
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def run(program: str, *options: str, patience: float = PATIENCE, **settings: object) -> tuple[str, str, int]:
    """Run a program to its end: what it wrote to stdout and stderr, and its exit code."""
    with start(program, *options, **settings) as process:
        return finish(process, patience)


def finish(process: subprocess.Popen[str], patience: float = PATIENCE) -> tuple[str, str, int]:
    try:
        output, errors = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        output, errors = process.communicate()
        raise AssertionError(f"the program has hung. It wrote:\n{output}{errors}") from None
    return output, errors, process.returncode


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line of a program's stdout; fails the test if none comes.

    Read byte by byte from the descriptor: what a buffer takes beyond the line, `select` and `communicate` never see.
    """
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise AssertionError(f"the program has written no line, only {line!r}")
        if not (byte := os.read(process.stdout.fileno(), 1)):
            raise AssertionError(f"the program's output has ended: {process.stderr and process.stderr.read()}")
        line += byte
    return line.decode().rstrip("\n")


def left_after(seconds: float) -> list[int]:
    """The processes of any runtime that are still there so many seconds from now, at the latest."""
    deadline = time.monotonic() + seconds
    while (left := leaks.runtime_processes()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
