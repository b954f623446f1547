"""What a test may leave behind: nothing. Snapshots of all that can leak, and what came since.

Processes, descriptors and mapped memory are read from /proc; where there is none, only threads and files are seen.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from pathlib import Path

SESSION_VARIABLE = "KLIEG_TEST_SESSION"
"""Set in this process's environment, so that every descendant can be found, an orphan too."""

ATTEMPTS = 20
PAUSE = 0.05
"""A shut-down runtime may take this long, in all one second, to vanish."""

NAMED_SHARED_MEMORY = ("klieg", "psm_", "mp-")
"""How names in /dev/shm begin that this program could have made; klieg itself should make none."""


allowed: dict[str, str] = {}
"""Patterns of what may stay although klieg has made it come, each with the reason; an engine's fixture adds its own."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What exists now. Keys tell two things apart, values describe them."""

    processes: dict[object, str]
    descriptors: Counter[str]
    threads: dict[object, str]
    shared_memory: Counter[str]
    files: Counter[str]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(_processes(), _descriptors(), _threads(), _shared_memory(), _temporary_files())

    def leaks_since(self, before: Snapshot) -> list[str]:
        """One line for each thing that is in this snapshot and was not in the earlier one."""
        found = {
            "process": [text for key, text in self.processes.items() if key not in before.processes],
            "descriptor": list((self.descriptors - before.descriptors).elements()),
            "thread": [text for key, text in self.threads.items() if key not in before.threads],
            "shared memory": list((self.shared_memory - before.shared_memory).elements()),
            "file": list((self.files - before.files).elements()),
        }
        return [f"{kind} {text}" for kind, texts in found.items() for text in texts if not _is_allowed(text)]


def _is_allowed(text: str) -> bool:
    return any(re.search(pattern, text) for pattern in allowed)


def leaks_after(before: Snapshot) -> list[str]:
    """What is still there when it has had a second to go."""
    for _ in range(ATTEMPTS):
        leaks = Snapshot.take().leaks_since(before)
        if not leaks:
            return []
        del leaks
        gc.collect()
        time.sleep(PAUSE)
    return Snapshot.take().leaks_since(before)


def descendants() -> dict[int, str]:
    """All processes that this one started, orphans and zombies too: pid to description."""
    return {int(text.split()[0]): text for text in _processes().values()}


def marked_processes() -> list[int]:
    """Processes with this session's mark in their environment, without this one."""
    if SESSION_VARIABLE not in os.environ:
        return []
    wanted = f"{SESSION_VARIABLE}={os.environ[SESSION_VARIABLE]}".encode()
    found = []
    for pid in _all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if wanted in environment.split(b"\0") and pid != os.getpid():
            found.append(pid)
    return found


def runtime_processes() -> list[int]:
    """Processes of a klieg runtime of this session: the head and the workers."""
    return [pid for pid in marked_processes() if b"KLIEG_RUN_ID=" in _read(f"/proc/{pid}/environ")]


def mark() -> None:
    """Set the mark in this process's environment, and so in that of all that it starts."""
    os.environ[SESSION_VARIABLE] = uuid.uuid4().hex


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _all_pids() -> list[int]:
    return [int(name) for name in _names_in("/proc") if name.isdigit()]


def _processes() -> dict[object, str]:
    stats = {pid: stat for pid in _all_pids() if (stat := _stat(pid)) is not None}
    found = set(marked_processes())
    parents = {os.getpid(), *found}
    while parents:
        children = {pid for pid, (_, parent, _) in stats.items() if parent in parents} - found
        found |= children
        parents = children
    return {(pid, stats[pid][2]): _describe(pid, stats[pid][0]) for pid in found if pid in stats}


def _stat(pid: int) -> tuple[str, int, str] | None:
    """State, parent and start time of a process; the last tells two of one number apart."""
    text = _read(f"/proc/{pid}/stat").decode()
    fields = text.rpartition(")")[2].split()
    return (fields[0], int(fields[1]), fields[19]) if fields else None


def _describe(pid: int, state: str) -> str:
    command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    return f"{pid} ({'zombie' if state == 'Z' else 'state ' + state}): {command[:200]}"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _descriptors() -> Counter[str]:
    targets: Counter[str] = Counter()
    for name in _names_in("/proc/self/fd"):
        try:
            targets[os.readlink(f"/proc/self/fd/{name}")] += 1
        except OSError:  # the one that lists the directory
            continue
    return targets


def _threads() -> dict[object, str]:
    frames = sys._current_frames()
    found: dict[object, str] = {}
    for thread in threading.enumerate():
        stack = traceback.extract_stack(frames.get(thread.ident or 0))[-1:]
        where = f" in {stack[0].name}, {stack[0].filename}:{stack[0].lineno}" if stack else ""
        found[thread] = f"{thread.name!r}{where}"
    return found


def _shared_memory() -> Counter[str]:
    maps = _read("/proc/self/maps").decode(errors="replace").splitlines()
    mapped = Counter(line.split(maxsplit=5)[5] for line in maps if "/memfd:" in line)
    return mapped + Counter(name for name in _names_in("/dev/shm") if name.startswith(NAMED_SHARED_MEMORY))


def _temporary_files() -> Counter[str]:
    return Counter(os.listdir(tempfile.gettempdir()))
