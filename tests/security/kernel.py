"""A runtime's processes as the kernel shows them to anybody: their sockets, files, mappings and arguments."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import gates
import leaks
import numpy
import processes
import victims

import klieg
from klieg.engines import visit

INTERNET = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")
LISTENS = 0x10000
"""A flag in /proc/net/unix, __SO_ACCEPTCON."""


class Work:
    """Actors and tasks that have done something, and the processes in which they did."""

    def __init__(self) -> None:
        self.actors = [victims.actor_class(kind).remote() for kind in victims.KINDS]
        self.value = klieg.put(numpy.zeros(victims.LARGE, dtype=numpy.uint8))
        klieg.get([actor.keep.remote(self.value) for actor in self.actors])
        self.workers = klieg.get([actor.ping.remote() for actor in self.actors])
        klieg.get(klieg.remote(victims.ping).remote())
        self.head = processes.head()
        assert gates.soon(lambda: run_folder(os.getpid()))

    @property
    def pids(self) -> list[int]:
        return [os.getpid(), *leaks.runtime_processes()]


def open_files(pid: int) -> dict[int, str]:
    """Each descriptor of a process, and what it leads to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:  # closed meanwhile
            continue
    return found


def sockets(pids: list[int]) -> set[str]:
    """The inodes of all their sockets."""
    targets = [target for pid in pids for target in open_files(pid).values()]
    return {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}


def internet_sockets() -> set[str]:
    """The inodes of all sockets of this machine that have to do with a network."""
    inodes = set()
    for protocol in INTERNET:
        table = Path(f"/proc/net/{protocol}")
        if table.exists():
            inodes |= {line.split()[9] for line in table.read_text().splitlines()[1:]}
    return inodes


def unix_sockets() -> dict[str, tuple[int, str]]:
    """Flags and name of each Unix socket of this machine, by inode; most have no name."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {f[6]: (int(f[3], 16), f[7] if len(f) > 7 else "") for f in map(str.split, lines)}


def shared_mappings(pid: int) -> list[tuple[str, int]]:
    """Permissions and size of each mapping of the store."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "/memfd:klieg " in line:
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            found.append((line.split()[1], end - start))
    return found


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection; the first is the stranger's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def runtime_of(driver: int) -> list[int]:
    """The head and the workers of another driver, which has no other children."""
    head = processes.head_of(driver)
    return [head, *processes.children(head)]


def run_folder(driver: int) -> str:
    """The private folder of that driver's runtime; empty while there is none."""
    return next((path for path, about in visit.running() if about["pid"] == driver), "")
