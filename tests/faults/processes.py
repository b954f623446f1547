"""Processes as the kernel shows them: which one is the head, whether one has ended, what it costs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gates
import leaks

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def head() -> int:
    """The pid of this driver's head."""
    return head_of(os.getpid())


def head_of(driver: int) -> int:
    """The pid of the head of another driver."""
    (pid,) = (pid for pid in children(driver) if pid in leaks.runtime_processes())
    return pid


def children(pid: int) -> list[int]:
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def ended(pid: int) -> bool:
    """True if the process is gone, or only waits for whoever inherited it to take notice."""
    return state(pid) in ("", "Z", "X")


def state(pid: int) -> str:
    """One letter, as in /proc; empty if there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def name(pid: int) -> str:
    """What it is called, as `ps` shows it; empty if it is gone or only waits to be reaped."""
    try:
        return "" if ended(pid) else Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_seconds(pid: int) -> float:
    """Processor time it has used so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int | str = "self") -> int:
    """Bytes of memory it has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def wait_until_ended(pid: int) -> None:
    assert gates.soon(lambda: ended(pid)), f"process {pid} is still there, state {state(pid)}"


def wait_until_stopped(pid: int) -> None:
    assert gates.soon(lambda: state(pid) == "T")


def load(seconds: float, pid: int) -> float:
    """The share of one CPU that a process uses over the next seconds."""
    before = cpu_seconds(pid)
    time.sleep(seconds)  # what is measured is an amount per time
    return (cpu_seconds(pid) - before) / seconds


def command(pid: int) -> str:
    """The command line, for messages."""
    try:
        return f"{pid} ({state(pid)}): " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
    except OSError:
        return f"{pid}: gone"
