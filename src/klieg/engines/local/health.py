"""Whether this machine has what the local engine needs, and what killed runs have left: one function a check."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from klieg import environment, machine
from klieg._version import __version__
from klieg.engines import rundir, visit

MIB: Final = 1 << 20

FEW_FILES: Final = 1024
"""Open files below which a warning is due: an actor takes about six of its caller and its head."""
NO_FILES: Final = 64
"""Open files below which no runtime can be expected to start."""

FEW_PROCESSES: Final = 100
"""Processes that may still be started; each worker is one, with some threads."""

LITTLE_MEMORY: Final = 512 * MIB
LITTLE_ROOM: Final = 1024 * MIB
"""Of disk, for values that are moved there when memory is short."""
SMALL_STORE: Final = 64 * MIB
"""Where shared memory is files: what Docker gives /dev/shm if nothing is said."""

STARTING: Final = 2.0
"""Seconds within which a runtime that starts lets visitors in."""

State = Literal["ok", "look", "bad"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    check: str
    state: State
    found: str
    remedy: str = ""


# The machine


def system() -> Finding:
    found = f"Python {platform.python_version()}, {platform.system()} {platform.release()}, klieg {__version__}"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        return Finding(
            "system", "bad", f"{found}; pidfd_open: {error}", "klieg needs Linux 5.3, and a sandbox that lets it"
        )
    return Finding("system", "ok", found)


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    state: State = "bad" if soft < NO_FILES else "look" if soft < FEW_FILES else "ok"
    remedy = f"allow more: `ulimit -n {hard if hard != resource.RLIM_INFINITY else 65536}`"
    return Finding("open files", state, f"{soft} a process (RLIMIT_NOFILE)", "" if state == "ok" else remedy)


def processes() -> Finding:
    left = min(_processes_left(), default=None)
    if left is None:
        return Finding("processes", "ok", "no limit")
    state: State = "bad" if left < 3 else "look" if left < FEW_PROCESSES else "ok"
    remedy = "" if state == "ok" else "raise `ulimit -u`, or pids.max of the control group (docker: --pids-limit)"
    return Finding("processes", state, f"{left} more may be started", remedy)


def _processes_left() -> Iterator[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        own = sum(Path(f"/proc/{pid}").stat().st_uid == os.geteuid() for pid in _pids())
        yield soft - own
    for folder in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids")):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            yield int((folder / "pids.max").read_text()) - int((folder / "pids.current").read_text())


def memory() -> Finding:
    total = machine.memory()
    state: State = "look" if total < LITTLE_MEMORY else "ok"
    remedy = "" if state == "ok" else "a worker takes 1 MiB and what your code imports; start few"
    return Finding("memory", state, f"{_size(total)}, {len(os.sched_getaffinity(0))} CPUs", remedy)


def shared_memory() -> Finding:
    directory = environment.text("STORE_DIR")
    if directory is None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(os.memfd_create("klieg"))
            return Finding("shared memory", "ok", "files in memory that have no name (memfd)")
        directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    if not os.access(directory, os.W_OK):
        return Finding("shared memory", "bad", f"{directory} cannot be written", "set KLIEG_STORE_DIR to a tmpfs")
    room = shutil.disk_usage(directory).free
    state: State = "look" if room < SMALL_STORE else "ok"
    remedy = "" if state == "ok" else "give it more (docker: --shm-size=1g), or set KLIEG_STORE_DIR"
    return Finding("shared memory", state, f"files in {directory}, {_size(room)} free", remedy)


def spill_room() -> Finding:
    directory = tempfile.gettempdir()
    room = shutil.disk_usage(directory).free
    state: State = "look" if room < LITTLE_ROOM else "ok"
    remedy = "" if state == "ok" else "values that no longer fit into memory go there: init(spill_directory=...)"
    return Finding("disk", state, f"{_size(room)} free in {directory}", remedy)


# Runs


def run_folder() -> Finding:
    parents = rundir.parents()
    try:
        path = rundir.make(rundir.places())
    except OSError as error:
        remedy = "the runtime works, but no command can look into it: set KLIEG_TMPDIR to a folder of yours"
        return Finding("run folder", "look", f"none can be made in {', '.join(parents)}: {error}", remedy)
    rundir.remove(path)
    return Finding("run folder", "ok", f"in {os.path.dirname(path)}")


def left_folders() -> Finding:
    dead = [path for path in rundir.found() if rundir.is_dead(path)]
    if not dead:
        return Finding("left folders", "ok", "none")
    return Finding("left folders", "look", ", ".join(dead), "killed runs have left them: `klieg doctor --clean`")


def left_processes() -> Finding:
    left = _unanswered()
    if left:
        time.sleep(STARTING)  # one that has just started is no leftover
        left &= _unanswered()
    if not left:
        return Finding("left processes", "ok", "none")
    pids = " ".join(map(str, sorted(left)))
    remedy = f"they belong to no runtime that answers; if no program of yours uses klieg now: `kill -9 {pids}`"
    return Finding("left processes", "look", pids, remedy)


def _unanswered() -> set[int]:
    """Processes of runs in which no head answers at a door."""
    answering = {about["head_pid"] for _, about in visit.running()}
    runs = defaultdict(set)
    for pid in _pids():
        if name := _run_of(pid):
            runs[name].add(pid)
    return {pid for pids in runs.values() if not answering & pids and not _has_driver(pids) for pid in pids}


def _has_driver(pids: set[int]) -> bool:
    """True if the program that has started these still lives: it may keep its door where we do not look.

    Without it, whoever adopts orphans is their parent, and that is no Python program."""
    return any(_is_python(parent) for parent in {_parent_of(pid) for pid in pids} - pids)


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # gone meanwhile
        return 0


def _is_python(pid: int) -> bool:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python")
    except OSError:
        return False


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _run_of(pid: int) -> str:
    """The mark of the runtime that a process of this user's belongs to; empty if it belongs to none."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return ""
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile
        return ""
    return next((entry.decode() for entry in entries if entry.startswith(b"KLIEG_RUN_ID=")), "")


CHECKS: Final[tuple[Callable[[], Finding], ...]] = (
    system, open_files, processes, memory, shared_memory, spill_room, run_folder, left_folders, left_processes,
)  # fmt: skip
"""All of them, in the order in which they are told."""


def _size(count: float) -> str:
    return f"{count / MIB:,.0f} MiB"
