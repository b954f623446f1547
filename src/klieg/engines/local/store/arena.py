"""A segment of this process's own, from which it hands out blocks; the only one that may write into it.

    free and cold ──allocate──► block ──dropped──► free and warm ──► block again, or ──punch──► free and cold

Cold parts have no memory; warm ones keep theirs for a while, since copying into pages that are there is four times as
fast. A block is written before anybody else hears of it and never again, so a reader sees all of it or nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Final

from klieg.engines.local.store import memory
from klieg.engines.local.store.segment import Block, Segment
from klieg.engines.local.store.space import FreeSpace


class OwnBlock(Block):
    """A block of this process's own segment: its part of the segment is free again when nothing refers to it."""

    __slots__ = ("_arena", "has_memory", "reserved")

    def __init__(self, number: int, arena: Arena, start: int, size: int, reserved: int, *, warm: bool) -> None:
        super().__init__(number, arena.segment, start, size)
        self._arena = arena
        self.reserved: Final = reserved
        """Its bytes in the segment: the size, rounded up to whole pages."""
        self.has_memory = warm

    def allocate(self) -> None:
        """Give a block from the cold its memory; OSError if there is none."""
        self._arena.allocate(self.start, self.reserved)
        self.has_memory = True

    def write(self, data: memoryview, *, warm: bool) -> None:
        """Fill it; before anybody else knows of it."""
        self._arena.write(self.start, data, warm=warm)

    def __del__(self) -> None:
        # From the garbage collector, perhaps, and in the middle of anything: no lock, only a note.
        self._arena.note_free(self.start, self.reserved, self.has_memory)


class Arena:
    """One segment and what is free in it. The caller holds a lock over `take_*`, `collect` and `cool`."""

    def __init__(self, segment: Segment, fd: int, on_free: Callable[[], None]) -> None:
        """`fd` is the descriptor to write with; it is taken over."""
        self.segment = segment
        self._fd = fd
        self._on_free = on_free
        self._cold = FreeSpace()
        self._cold.give(0, segment.size)
        self._warm = FreeSpace()
        self._freed: deque[tuple[int, int, bool]] = deque()
        self._can_punch = True

    def take_warm(self, size: int) -> int | None:
        return self._warm.take(size)

    def take_cold(self, size: int) -> int | None:
        return self._cold.take(size)

    def allocate(self, start: int, size: int) -> None:
        try:
            memory.allocate(self._fd, start, size)
        except BaseException:
            memory.punch(self._fd, start, size)
            raise

    def write(self, start: int, data: memoryview, *, warm: bool) -> None:
        if warm and not self.segment.on_disk:
            memory.copy(self.segment.address + start, data)
        else:
            memory.write(self._fd, start, data)

    def note_free(self, start: int, size: int, has_memory: bool) -> None:
        """Nothing refers to the part any more. Called by finalizers."""
        self._freed.append((start, size, has_memory))
        self._on_free()

    def collect(self) -> int:
        """Take in what has been noted; returns how many bytes of memory became free."""
        freed = 0
        while self._freed:
            start, size, has_memory = self._freed.popleft()
            (self._warm if has_memory else self._cold).give(start, size)
            freed += size if has_memory else 0
        return freed

    @property
    def warm(self) -> int:
        """Bytes that are free and still have their memory."""
        return self._warm.total

    def cool(self) -> int:
        """Give the memory of everything that is free back to the machine; returns how many bytes that were."""
        if not self._can_punch:
            return 0
        cooled = 0
        for start, size in self._warm.take_all():
            if self._can_punch and memory.punch(self._fd, start, size):
                self._cold.give(start, size)
                cooled += size
            else:
                self._can_punch = False
                self._warm.give(start, size)
        return cooled

    def close(self) -> None:
        """Nothing more will be put into it; what is in it stays as long as it is used."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self.segment.close_descriptor()
