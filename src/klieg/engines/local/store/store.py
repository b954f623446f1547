"""Large values of this process: written once into shared memory, read in place by whoever gets them.

    keep ──► room in the ledger? ──► block of an arena ──► written ──► StoredBuffer
                └─ no: give back what is warm, move to disk what nobody looks at, ask the others to do the same

Parts that have become free are taken in when the next block is needed, and by the engine's chores.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import pickle
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from klieg.engines.local.failpoints import failpoint
from klieg.engines.local.store import memory
from klieg.engines.local.store.arena import Arena, OwnBlock
from klieg.engines.local.store.ledger import Account
from klieg.engines.local.store.segment import INHERITED, Block, Segment, StoredBuffer
from klieg.exceptions import ObjectStoreFullError
from klieg.outcome import Payload, Serialized
from klieg.settings import Settings

if TYPE_CHECKING:
    from klieg.engines.local.engine import LocalEngine

INLINE_LIMIT: Final = 64 * 1024
"""Bytes up to which a buffer travels inside its message."""

FIRST_ARENA: Final = 1 << 30
"""Bytes of address space of the first arena; each further one is twice as large, so that descriptors stay few. Address
space is not memory: that is taken block by block."""

LARGEST_ARENA: Final = 1 << 36

WARM_SHARE: Final = 8
"""One in so many bytes of the limit may be kept warm by each process, while it keeps storing values."""

IDLE: Final = 1.0
"""Seconds without a new value after which warm memory goes back to the machine."""

TIGHT: Final = 0.75
"""Share of the limit in use from which nothing is kept warm."""

SETTLE: Final = 0.5
"""Seconds to wait for memory that other processes have said they give back."""

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT})

logger = logging.getLogger("klieg")


class Writers:
    """The copies into shared memory that are under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: set[int] = set()
        """The threads that copy."""

    def __enter__(self) -> None:
        with self._changed:
            self._active.add(threading.get_ident())

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._active.discard(threading.get_ident())
            self._changed.notify_all()

    @property
    def active(self) -> bool:
        return bool(self._active)

    def wait(self) -> None:
        """Return when those that are under way now have ended."""
        with self._changed:
            active = set(self._active)
            while active & self._active:
                self._changed.wait()


class Store:
    """This process's part of the object store. May be used from any thread."""

    def __init__(self, engine: LocalEngine, account: Account, settings: Settings) -> None:
        self._engine = engine
        self._account = account
        self._directory = settings.store_directory
        self._spill_directory = settings.spill_directory or tempfile.gettempdir()
        self._lock = threading.Lock()
        self._spilling = threading.Lock()
        self._writers = Writers()
        self._arenas: list[Arena] = []
        self._disk: list[Arena] = []
        self._movable: weakref.WeakValueDictionary[int, StoredBuffer] = weakref.WeakValueDictionary()
        """Buffers that may be moved to disk, oldest first."""
        self._puts = 0
        self._sweeping = False
        self._freed = False
        """True when something has become free that nobody has looked at."""

    # Putting

    def keep(self, buffer: pickle.PickleBuffer) -> bytes | StoredBuffer:
        """Our own copy of a buffer: small ones as bytes, large ones in shared memory, written once.

        Raises ObjectStoreFullError if there is no room, and none can be made."""
        with buffer.raw() as raw:
            return bytes(raw) if raw.nbytes <= INLINE_LIMIT else self._write(raw)

    def _write(self, raw: memoryview) -> StoredBuffer:
        block = self._warm_block(raw.nbytes)
        warm = block is not None
        block = block or self._new_block(raw.nbytes)
        with self._writers:
            block.write(raw, warm=warm)
            failpoint("store.unsealed")
            buffer = StoredBuffer(block)
            self._movable[id(buffer)] = buffer
        return buffer

    def owns(self, payloads: Sequence[Serialized]) -> None:
        """These values, whose memory is another process's, belong to refs of this one, which may move them to disk."""
        for payload in payloads:
            if isinstance(payload, Payload):
                buffers = [b for b in (payload.data, *payload.buffers) if isinstance(b, StoredBuffer)]
                self._movable.update((id(buffer), buffer) for buffer in buffers)

    def _warm_block(self, size: int) -> OwnBlock | None:
        """A block whose memory is there already."""
        self._puts += 1
        with self._lock:
            self._collect()
            return self._take(self._arenas, size, warm=True)

    def _new_block(self, size: int) -> OwnBlock:
        """A block with fresh memory, for which room is made if need be."""
        reserved = _whole_pages(size)
        if reserved > self._account.ledger.limit:
            raise self._full(size, "It is larger than the whole store.")
        while True:
            block, why = self._try_new_block(size, reserved)
            if block is not None:
                return block
            # What one of these gives back may be taken by another process first: only when none can, there is no room.
            if not (self._cool(reserved) or self._spill(reserved) or self._ask_others(reserved)):
                raise self._full(size, why)

    def _try_new_block(self, size: int, reserved: int) -> tuple[OwnBlock | None, str]:
        """A block if there is room for it now, else why there is none."""
        if not self._account.take(reserved):
            return None, "The store is full."
        try:
            return self._allocate(self._arenas, size), ""
        except BaseException as error:
            self._account.give(reserved)
            if not isinstance(error, OSError) or error.errno not in NO_ROOM:
                raise
            return None, f"The machine has no memory for it ({error.strerror})."

    def _allocate(self, arenas: list[Arena], size: int) -> OwnBlock:
        with self._lock:
            block = self._take(arenas, size, warm=False)
            if block is None:
                self._add_arena(arenas, _whole_pages(size))
                block = self._take(arenas, size, warm=False)
        assert block is not None
        block.allocate()
        return block

    def _take(self, arenas: list[Arena], size: int, *, warm: bool) -> OwnBlock | None:
        reserved = _whole_pages(size)
        for arena in arenas:
            start = arena.take_warm(reserved) if warm else arena.take_cold(reserved)
            if start is not None:
                return OwnBlock(self._engine.next_id(), arena, start, size, reserved, warm=warm)
        return None

    def _add_arena(self, arenas: list[Arena], needed: int) -> None:
        """One more arena, and a small one if this process may not have a large one. Raises OSError."""
        wanted = max(needed, min(FIRST_ARENA << len(arenas), LARGEST_ARENA, _whole_pages(memory.largest_file() // 4)))
        try:
            arenas.append(self._new_arena(wanted, on_disk=arenas is self._disk))
        except OSError as error:
            if error.errno not in NO_ROOM or wanted == needed:
                raise
            arenas.append(self._new_arena(needed, on_disk=arenas is self._disk))

    def _new_arena(self, size: int, *, on_disk: bool) -> Arena:
        fd = memory.new_file(size, self._spill_directory if on_disk else self._directory)
        try:
            address = memory.map_file(fd, size, writable=not on_disk)
            segment = Segment(self._engine.next_id(), memory.reopen_to_read(fd), size, address, on_disk=on_disk)
        except OSError:
            os.close(fd)
            raise
        return Arena(segment, fd, self._note_free)

    # Giving back

    def _note_free(self) -> None:
        """A part of an arena has become free. Called by finalizers, in the middle of anything."""
        self._freed = True
        if not self._sweeping:
            self._sweeping = True
            self._engine.note(self._sweep_later)

    def settle(self) -> None:
        """Take in what has become free. Called after each round of messages."""
        if self._freed:
            with self._lock:
                self._collect()

    def _collect(self) -> None:
        if not self._freed:
            return
        self._freed = False
        for arena in self._arenas:
            arena.collect()
        for arena in self._disk:
            if arena.collect():
                self._account.change_disk(-arena.cool())
        ledger = self._account.ledger
        warm = sum(arena.warm for arena in self._arenas)
        if warm and (warm > ledger.limit // WARM_SHARE or ledger.total > TIGHT * ledger.limit):
            self._cool_all()

    def _cool(self, wanted: int) -> int:
        """Give warm memory back to the machine; returns how many bytes that were."""
        with self._lock:
            self._collect()
            return self._cool_all()

    def _cool_all(self) -> int:
        cooled = sum(arena.cool() for arena in self._arenas)
        self._account.give(cooled)
        return cooled

    def _sweep_later(self) -> None:
        self._engine.reactor.call_at(time.monotonic() + IDLE, functools.partial(self._sweep, self._puts))

    def _sweep(self, puts: int) -> None:
        """Give warm memory back to the machine if nothing was put meanwhile; else look again later."""
        if self._puts != puts:
            self._sweep_later()
            return
        self._sweeping = False
        self._cool(0)

    # Making room

    def give_room(self, wanted: int) -> int:
        """Another process needs room: give back what can be; returns how many bytes of memory that were."""
        self._writers.wait()  # what is being stored at this moment can be moved in the next
        return self._cool(wanted) + self._spill(wanted)

    @property
    def may_take_long(self) -> bool:
        """True if giving room means to wait, for the disk or for others."""
        lends = any(isinstance(named, Block) for named in self._engine.loans.all())
        return lends or bool(self._movable) or self._writers.active

    def _idle_groups(self) -> list[list[StoredBuffer]]:
        """Buffers that may be moved to disk, oldest first; those that share a block are moved together."""
        groups: dict[int, list[StoredBuffer]] = {}
        for buffer in list(self._movable.values()):
            groups.setdefault(buffer.block.id, []).append(buffer)
        return [group for group in groups.values() if self._is_idle(group[0].block)]

    def _is_idle(self, block: Block) -> bool:
        """Nobody reads the block, and it takes memory."""
        return not block.segment.on_disk and not block.viewed and not self._engine.loans.find(block.id)

    def _spill(self, wanted: int) -> int:
        """Move to disk what nobody looks at, the oldest first; returns how many bytes of memory are free for it."""
        released = 0
        with self._spilling:
            for group in self._idle_groups():
                if released >= wanted:
                    break
                try:
                    released += self._move_to_disk(group)
                except OSError as error:
                    logger.warning("A value could not be moved to disk (%s): %s", self._spill_directory, str(error))
                    break
        self._cool(wanted)
        return released

    def _move_to_disk(self, group: list[StoredBuffer]) -> int:
        block = group[0].block
        moved = self._allocate(self._disk, block.size)
        self._account.change_disk(moved.reserved)
        moved.write(block.view(), warm=False)
        for buffer in group:
            buffer.block = moved
        return block.size

    def _ask_others(self, wanted: int) -> int:
        """Have the other processes give back what they can; returns how many bytes they say that were."""
        released = self._engine.ask_for_room(wanted)
        ledger, until = self._account.ledger, time.monotonic() + SETTLE
        while released and ledger.total + wanted > ledger.limit and time.monotonic() < until:
            # Some of it is memory of other processes still, which they give back when they have read our message.
            self._engine.reactor.block(lambda: ledger.total + wanted <= ledger.limit, time.monotonic() + 0.001)
            self.settle()
        return released

    # Telling

    def usage(self) -> dict[str, Any]:
        """What all processes together hold; see `klieg.engine.Engine.store_usage`."""
        return self._account.ledger.usage()

    def _full(self, size: int, why: str) -> ObjectStoreFullError:
        ledger = self._account.ledger
        holders = sorted(ledger.holdings(), key=lambda holding: -holding.memory)
        lines = [f"  {_name(h.pid)}: {h.memory:,} bytes in memory, {h.disk:,} on disk" for h in holders if h.memory]
        viewed, lent = self._in_use()
        return ObjectStoreFullError(
            f"No room for a value of {size:,} bytes in the object store. {why} All processes together may hold "
            f"{ledger.limit:,} bytes in memory and hold {ledger.total:,}:\n"
            + "\n".join(lines or ["  none holds any"])
            + f"\nIn this process {viewed:,} bytes are in use by arrays and other views that are alive, and {lent:,} "
            "are held by other processes; such values cannot be moved to disk. Drop arrays and refs that are no longer "
            "needed, put smaller values, or raise the limit with init(object_store_memory=...)."
        )

    def _in_use(self) -> tuple[int, int]:
        """Bytes of memory that views here keep in use, and those that only other processes do."""
        mine = {buffer.block for buffer in list(self._movable.values())}
        lent = {named for named in self._engine.loans.all() if isinstance(named, Block)}
        viewed = {block for block in mine | lent if block.viewed and not block.segment.on_disk}
        held = {block for block in lent if not block.segment.on_disk} - viewed
        return sum(block.size for block in viewed), sum(block.size for block in held)

    def close(self) -> None:
        """Values still in use keep their memory until they are dropped."""
        self._sweeping = True  # nobody is left to sweep
        for arena in [*self._arenas, *self._disk]:
            arena.close()
        self._arenas.clear()
        self._disk.clear()
        INHERITED.clear()


def _whole_pages(size: int) -> int:
    return -(-size // memory.PAGE) * memory.PAGE


def _name(pid: int) -> str:
    """What the process calls itself."""
    if pid == os.getpid():
        return f"this process (pid {pid})"
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"
