"""How much of the store each process holds, on a page of memory that they all share.

Every process writes its own line and reads all of them, so that looking at the whole costs no message. To take room, a
process writes down what it is going to take, and then looks whether all of them together are within the limit; if not,
it takes the entry back. Two that do so at the same moment may both be refused, and try again; they never both get the
last room. The head clears the line of a process that has died.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any, Final, NamedTuple

from klieg import machine
from klieg.engines.local.store import memory

LINES: Final = 4096
"""Processes at one time of which the ledger knows; those beyond it are not counted."""

_COLUMNS: Final = 4
_PROCESS, _PID, _MEMORY, _DISK = range(_COLUMNS)
_WORDS: Final = _COLUMNS * (LINES + 1)
"""The head of the page, of the same size as a line: the limit, and how many lines were ever used."""
_LIMIT, _USED_LINES = 0, 1


class Holding(NamedTuple):
    process: int
    pid: int
    memory: int
    """Bytes of memory that it has taken for the store."""
    disk: int
    """Bytes that it has moved to disk."""


class Ledger:
    """The page, as this process sees it. Forked processes inherit the mapping."""

    def __init__(self, fd: int) -> None:
        """Maps the page behind the descriptor, which stays the caller's. Raises OSError."""
        self._address = memory.map_file(fd, 8 * _WORDS, writable=True)
        self._words = (ctypes.c_uint64 * _WORDS).from_address(self._address)

    def close(self) -> None:
        """Forget the page; what is still written goes nowhere."""
        address, self._address = self._address, 0
        if address:
            self._words = (ctypes.c_uint64 * _WORDS)()
            memory.unmap(address, 8 * _WORDS)

    @classmethod
    def new_file(cls) -> int:
        """The descriptor of an empty page."""
        return memory.new_file(8 * _WORDS)

    @property
    def limit(self) -> int:
        """Bytes that all processes together may hold in memory."""
        return int(self._words[_LIMIT])

    @limit.setter
    def limit(self, size: int) -> None:
        self._words[_LIMIT] = size

    @property
    def total(self) -> int:
        """Bytes that all processes together hold in memory."""
        used = self._words[_USED_LINES]
        return sum(self._words[_COLUMNS + _MEMORY : _COLUMNS * (used + 1) : _COLUMNS])

    def holdings(self) -> list[Holding]:
        """The lines of all living processes."""
        words = self._words
        starts = range(_COLUMNS, _COLUMNS * (words[_USED_LINES] + 1), _COLUMNS)
        return [Holding(*words[start : start + _COLUMNS]) for start in starts if words[start]]

    def usage(self) -> dict[str, Any]:
        """As `klieg.engine.Engine.store_usage` says it."""
        holders = [holding._asdict() for holding in self.holdings() if holding.memory or holding.disk]
        return {"limit": self.limit, "used": self.total, "processes": holders}

    def open_line(self, process: int) -> int:
        """A line for a process, if there is one left (0 else). The head's alone, so that no two get the same."""
        words = self._words
        for line in range(1, LINES + 1):
            start = _COLUMNS * line
            if not words[start]:
                words[start] = process
                words[_USED_LINES] = max(words[_USED_LINES], line)
                return line
        return 0

    def close_line(self, line: int) -> None:
        """The process has died: what it held in memory is gone, or in use by those who have it mapped."""
        if line:
            start = _COLUMNS * line
            self._words[start : start + _COLUMNS] = [0] * _COLUMNS


class Account:
    """This process's line. May be used from any thread."""

    def __init__(self, ledger: Ledger, line: int) -> None:
        self.ledger = ledger
        self._start = _COLUMNS * line
        """Of the line; 0 if there is none for this process."""
        self._lock = threading.Lock()
        self.memory = 0
        self.disk = 0
        if line:
            ledger._words[self._start + _PID] = os.getpid()

    def take(self, size: int) -> bool:
        """Count `size` more bytes of memory; False, and nothing is counted, if that would exceed the limit."""
        self._change(size)
        unwritten = 0 if self._start else self.memory
        if self.ledger.total + unwritten <= self.ledger.limit:
            return True
        self._change(-size)
        return False

    def give(self, size: int) -> None:
        self._change(-size)

    def change_disk(self, size: int) -> None:
        self._change(0, size)

    def _change(self, in_memory: int, on_disk: int = 0) -> None:
        with self._lock:
            self.memory += in_memory
            self.disk += on_disk
            if self._start:
                self.ledger._words[self._start + _MEMORY] = self.memory
                self.ledger._words[self._start + _DISK] = self.disk


SHARE_OF_MEMORY: Final = 0.3
"""Of the machine's memory (or the container's), what the store may take unless `init` says otherwise; Ray's share."""

SHARE_OF_FILE_SYSTEM: Final = 0.9
"""Of what is free where shared memory is files."""


def default_limit(directory: str | None) -> int:
    """Bytes that the store may hold in memory if nobody says: a share of what there is."""
    limit = int(SHARE_OF_MEMORY * machine.memory())
    if directory is not None or not memory.has_memfd():
        free = os.statvfs(directory or memory.fallback_directory())
        limit = min(limit, int(SHARE_OF_FILE_SYSTEM * free.f_bavail * free.f_frsize))
    return limit
