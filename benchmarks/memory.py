"""Private memory of this process and of every process that it started, however far down."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

MARK = "KLIEG_BENCH_RUN"
"""An environment variable of the measured process. Its heirs carry it, orphans included."""

PROC = Path("/proc")


def private_bytes() -> int:
    """What would be freed if all these processes ended; memory that they share does not count."""
    return sum(_private_bytes_of(pid) for pid in _family())


def _family() -> set[int]:
    return {os.getpid(), *_descendants(os.getpid()), *_marked(os.environ.get(MARK, ""))}


def _descendants(root: int) -> Iterator[int]:
    children = defaultdict(list)
    for pid in _pids():
        children[_parent(pid)].append(pid)
    waiting = [root]
    while waiting:
        found = children[waiting.pop()]
        yield from found
        waiting += found


def _marked(run: str) -> Iterator[int]:
    """Processes that were started with the mark. One that rewrote its title may have lost it."""
    if run:
        entry = f"{MARK}={run}".encode()
        yield from (pid for pid in _pids() if entry in _read(pid, "environ").split(b"\0"))


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    """0 for a process that is gone. The name before the figures may hold blanks and brackets."""
    _, _, rest = _read(pid, "stat").rpartition(b")")
    return int(rest.split()[1]) if rest else 0


def _private_bytes_of(pid: int) -> int:
    lines = _read(pid, "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Private_"))


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return b""
