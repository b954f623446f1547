"""Shared memory for large buffers: written once by the owner, mapped read-only by whoever reads.

A segment is a memfd: it has no name, so nothing can be left behind, guessed or reaped. Its pages are allocated before
they are written (a full machine is an error, not a SIGBUS) and the file is sealed before anybody else sees it, so a
reader can rely on its size and contents. Its descriptor travels with the message that names it, and a view keeps its
own mapping: it stays valid after the ref, the owner and the runtime are gone.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pickle
import weakref
from typing import TYPE_CHECKING, Any, Final

from klieg.engines.local.failpoints import failpoint
from klieg.exceptions import ObjectLostError, ObjectStoreFullError

if TYPE_CHECKING:
    from klieg.engines.local.engine import LocalEngine

INLINE_LIMIT: Final = 64 * 1024
"""Bytes up to which a buffer travels inside its message."""

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class StoredBuffer:
    """A large buffer in shared memory. Its descriptor is closed when nothing refers to it any more."""

    __slots__ = ("__weakref__", "_view", "fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._view: memoryview | None = None
        weakref.finalize(self, _close, fd, os.getpid()).atexit = False

    def view(self) -> memoryview:
        """The contents, read-only; the mapping lives as long as any view of it."""
        if self._view is None:
            mapped = mmap.mmap(self.fd, self.size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
            self._view = memoryview(mapped)
        return self._view

    def __len__(self) -> int:
        return self.size


class Store:
    """This process's part of the shared memory."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def keep(self, buffer: pickle.PickleBuffer) -> Any:
        """Our own copy of a buffer: small ones as bytes, large ones in shared memory, written once.

        Raises ObjectStoreFullError if the machine has no room."""
        with buffer.raw() as raw:
            return bytes(raw) if raw.nbytes <= INLINE_LIMIT else _write(raw)

    def open(self, fd: int, size: int) -> StoredBuffer:
        """The buffer behind a descriptor that came in a message. The file says its own size; the message may lie."""
        if os.fstat(fd).st_size != size:
            os.close(fd)
            raise ObjectLostError("A value in shared memory is not what its sender announced.")
        return StoredBuffer(fd, size)

    def close(self) -> None:
        """Values still in use keep their memory until they are dropped."""


def _write(raw: memoryview) -> StoredBuffer:
    fd = os.memfd_create("klieg", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, raw.nbytes)
        written = 0
        while written < raw.nbytes:
            written += os.write(fd, raw[written:])
        failpoint("store.unsealed")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise ObjectStoreFullError(
                f"No room for a value of {raw.nbytes:,} bytes in shared memory ({error.strerror}). Drop refs that are "
                "no longer needed, or give the machine (or container) more memory or a larger /dev/shm."
            ) from None
        raise
    return StoredBuffer(fd, raw.nbytes)


def _close(fd: int, pid: int) -> None:
    if os.getpid() == pid:
        os.close(fd)
