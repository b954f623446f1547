"""The stacks of a process that does not answer: written by C code, without Python's leave, when a signal comes.

Each worker keeps a file in memory for them. Whoever has sent the signal reads it through /proc, as the same user may.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from typing import Final

SIGNAL: Final = signal.SIGRTMIN + 7
"""None that programs use, so that nobody's handler is in the way."""

FILE: Final = "klieg stacks"

MOST: Final = 1 << 16
"""Bytes of stacks that are read."""

_STATES: Final = {
    "R": "it is computing, and holds the GIL or is not given a CPU",
    "S": "it sleeps, and holds the GIL",
    "D": "it waits for a disk",
    "T": "it is stopped (SIGSTOP)",
    "t": "a debugger has stopped it",
    "Z": "it has ended",
}


def provide() -> None:
    """Have this process write its stacks when it is told to, whatever it does then."""
    faulthandler.register(SIGNAL, file=os.memfd_create(FILE), all_threads=True)


class Request:
    """Asks one process for its stacks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._path = _path(pid)
        self._before = _size(self._path)
        if self._path is not None:  # else it is not ready for the signal, and would die of it
            with contextlib.suppress(OSError):
                os.kill(pid, SIGNAL)

    def read(self) -> str:
        """What it has written since; empty if it could not."""
        if self._path is None:
            return ""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            return os.pread(fd, MOST, self._before).decode(errors="replace")
        finally:
            os.close(fd)


def state_of(pid: int) -> str:
    """Why a process may not answer, in words."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            letter = stat.read().rpartition(b") ")[2][:1].decode()
    except OSError:
        return "it is gone"
    return _STATES.get(letter, f"its state is {letter!r}")


def _path(pid: int) -> str | None:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}").startswith(f"/memfd:{FILE}"):
                    return f"{folder}/{name}"
    return None


def _size(path: str | None) -> int:
    try:
        return os.stat(path).st_size if path is not None else 0
    except OSError:
        return 0
