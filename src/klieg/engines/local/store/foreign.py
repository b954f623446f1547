"""What other processes keep in shared memory for us, and how we read it.

A segment comes to us by its descriptor, once on each connection; from then on the sender names it by number only, until
it says that it will not do so again. What is in use here stays mapped whatever the sender says or becomes of it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from klieg.engines.local.store import memory
from klieg.engines.local.store.segment import Block, Segment, StoredBuffer
from klieg.exceptions import ObjectLostError

Drop = Callable[[int, int], None]


class ForeignSegment(Segment):
    """Another process's segment. It is unmapped here when nothing refers to it any more."""

    __slots__ = ("_on_unused",)

    def __init__(self, number: int, fd: int, size: int, on_unused: Callable[[int], None]) -> None:
        self._on_unused = on_unused
        super().__init__(number, fd, size)

    def __del__(self, unmap: Callable[[int, int], None] = memory.unmap) -> None:
        super().__del__(unmap)
        self._on_unused(self.id)


class BorrowedBlock(Block):
    """A part of another process's segment, which its owner uses for nothing else before we give it back."""

    __slots__ = ("_drop", "loans")

    def __init__(self, number: int, segment: Segment, start: int, size: int, drop: Drop) -> None:
        super().__init__(number, segment, start, size)
        self._drop = drop
        self.loans = 0
        """How often this process was lent the block and has not given it back."""

    def __del__(self) -> None:
        # From the garbage collector, perhaps: no lock, no message, only a note.
        self._drop(self.id, self.loans)


class LostBuffer:
    """Stands for a buffer that could not be had: whoever opens its value gets the reason."""

    __slots__ = ("_why",)

    def __init__(self, why: str) -> None:
        self._why = why

    def view(self) -> memoryview:
        raise ObjectLostError(self._why)

    def __len__(self) -> int:
        return 0


class Foreign:
    """The segments and blocks of other processes that are known here."""

    def __init__(self, drop: Drop, on_segment_unused: Callable[[int], None]) -> None:
        """`drop(block, loans)` and `on_segment_unused(segment)` are called by finalizers."""
        self._drop = drop
        self._on_segment_unused = on_segment_unused
        self._lock = threading.Lock()
        self._segments: weakref.WeakValueDictionary[int, Segment] = weakref.WeakValueDictionary()
        self._blocks: weakref.WeakValueDictionary[int, BorrowedBlock] = weakref.WeakValueDictionary()

    def meet(self, number: int, fd: int) -> Segment:
        """The segment behind a descriptor that came in a message. The file says its own size, not the message.

        Takes the descriptor over. Raises OSError.
        """
        with self._lock:
            known = self._segments.get(number)
            if known is not None:
                os.close(fd)
                return known
            segment = ForeignSegment(number, fd, os.fstat(fd).st_size, self._on_segment_unused)
            self._segments[number] = segment
        return segment

    def open(self, described: dict[str, Any], segments: dict[int, Segment]) -> StoredBuffer | LostBuffer:
        """The buffer that a message describes, lent to us once more; `segments` are those of its connection."""
        number, start, size = described["block"], described["start"], described["size"]
        segment = segments.get(described["segment"])
        if segment is None:
            self._drop(number, 1)
            return LostBuffer(NO_DESCRIPTOR)
        if not 0 <= start <= start + size <= segment.size:
            self._drop(number, 1)
            return LostBuffer("A value in shared memory is not where its sender says.")
        with self._lock:
            block = self._blocks.get(number)
            if block is None:
                block = self._blocks[number] = BorrowedBlock(number, segment, start, size, self._drop)
            block.loans += 1
        return StoredBuffer(block)


NO_DESCRIPTOR: Final = (
    "The descriptor of a value in shared memory did not arrive: this process has as many files open as its limit "
    "(RLIMIT_NOFILE, `ulimit -n`) allows. Close some, or raise the limit."
)
