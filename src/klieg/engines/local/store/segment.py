"""Shared memory as any process sees it: a segment is a file and its mapping, a block a part that holds one buffer.

    payload ──► StoredBuffer ──► Block ──► Segment
    array ──► view ──► (window) ──┘
                                 └── in the owner: the table of what is lent to other processes

Everything is held by Python's own references, so there is nothing to forget: a block lives while a payload, a view or
a loan names it, and its part of the segment is used again only after that. In the process that owns the segment its
end gives the part back; in another, it tells the owner. A view holds its block, and the block its segment: a view
therefore outlives the ref, the owner and the runtime.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Final

from klieg.engines.local.store import memory


class Segment:
    """A file of shared memory in this process."""

    __slots__ = ("__weakref__", "_pid", "address", "fd", "id", "inode", "on_disk", "size")

    def __init__(self, number: int, fd: int, size: int, address: int = 0, *, on_disk: bool = False) -> None:
        """Takes the descriptor over; maps the file to read unless it is mapped already. Raises OSError."""
        self.fd = fd
        """The descriptor to send to other processes, which can then read."""
        self.id: Final = number
        """Its number in the whole runtime; the high bits are those of the process that made it."""
        self.inode: Final = os.fstat(fd).st_ino
        """By which the descriptor can be told from others."""
        self.size: Final = size
        self.on_disk: Final = on_disk
        self._pid = os.getpid()
        self.address: Final = address or memory.map_file(fd, size, writable=False)

    def close_descriptor(self) -> None:
        """It will not be passed on any more; what is mapped stays mapped."""
        fd, self.fd = self.fd, -1
        if fd >= 0 and self._pid == os.getpid():
            os.close(fd)

    def __del__(self, unmap: Callable[[int, int], None] = memory.unmap) -> None:
        self.close_descriptor()
        if hasattr(self, "address"):  # mapping it may have failed
            unmap(self.address, self.size)


class Block:
    """A part of a segment that holds one buffer and does not change as long as anything refers to it."""

    __slots__ = ("__weakref__", "_window", "id", "segment", "size", "start")

    def __init__(self, number: int, segment: Segment, start: int, size: int) -> None:
        self.id: Final = number
        self.segment: Final = segment
        self.start: Final = start
        self.size: Final = size
        self._window: weakref.ref[memory.Window] | None = None

    def view(self) -> memoryview:
        """The contents, read-only, without a copy; the block lives as long as any view of it."""
        if self._window is None:
            VIEWED[id(self)] = self
        window = self._window() if self._window is not None else None
        if window is None:
            window = memory.window(self.segment.address + self.start, keeper=self)
            self._window = weakref.ref(window)
        return memory.view(window, self.size)

    @property
    def viewed(self) -> bool:
        """True while a view of it is alive in this process."""
        return self._window is not None and self._window() is not None


VIEWED: Final[weakref.WeakValueDictionary[int, Block]] = weakref.WeakValueDictionary()
"""Blocks that a view was made of."""

INHERITED: Final[list[Block]] = []
"""Blocks of which a forked child has views. Nobody will know when it drops them: they are kept until the shutdown,
after which nothing is written into their segments any more."""


def _keep_what_a_child_sees() -> None:
    INHERITED.extend(block for block in list(VIEWED.values()) if block.viewed)


os.register_at_fork(before=_keep_what_a_child_sees)


class StoredBuffer:
    """A large buffer of a payload, wherever it lies now: its block is exchanged when it moves to disk."""

    __slots__ = ("__weakref__", "block")

    def __init__(self, block: Block) -> None:
        self.block = block

    def view(self) -> memoryview:
        return self.block.view()

    @property
    def where(self) -> str:
        """ "memory" or "disk"."""
        return "disk" if self.block.segment.on_disk else "memory"

    def __len__(self) -> int:
        return self.block.size
