"""Shared memory as the kernel gives it: files without a name, mappings of them, and copies that let other threads run.

Nothing here ever has a name in a file system for longer than a moment, so nothing can be left behind, guessed or
reaped: what no process has open or mapped is gone, whatever way the processes ended.

This is the one place that calls the C library by itself: Python's own `mmap` keeps a descriptor for each mapping, and
holds the interpreter lock while it copies.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import resource
import secrets
import tempfile
import threading
from collections import deque
from typing import Any, Final

PAGE: Final = mmap.PAGESIZE

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Nobody can change the size of the file, so no reader can be made to read beyond its end."""

FALLOCATE_STEP: Final = 1 << 20
"""Bytes allocated by one call: a signal makes the kernel undo the call it comes into, so calls must be short."""

SPLIT_AT: Final = 16 << 20
"""Bytes from which a copy is shared by two threads: 100 MiB into warm pages at 14 GiB/s instead of 11 on two cores,
while starting a thread costs what 1 MiB costs."""

PIECE: Final = 4 << 20
"""Bytes that one of two threads copies at a time: half a millisecond's work."""

_PUNCH_HOLE: Final = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of linux/falloc.h."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


def new_file(size: int, directory: str | None = None) -> int:
    """The descriptor of a new file of `size` bytes that takes no memory yet.

    In memory (a sealed memfd) if no directory is given and the kernel has such files, else an unnamed file in
    `directory`, /dev/shm or the directory for temporary files. Raises OSError.
    """
    fd = _memfd() if directory is None else None
    if fd is not None:
        return _sized(fd, size, SEALS)
    return _sized(_unnamed_file(directory or fallback_directory()), size, seals=0)


def _sized(fd: int, size: int, seals: int) -> int:
    try:
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd


def has_memfd() -> bool:
    """True where the kernel has files that are in memory and nowhere else."""
    fd = _memfd()
    if fd is not None:
        os.close(fd)
    return fd is not None


def _memfd() -> int | None:
    try:
        return os.memfd_create("klieg", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError) as error:  # a kernel, a sandbox or a C library without it
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None


def fallback_directory() -> str:
    """Where shared memory is files if there is nothing better."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else tempfile.gettempdir()


def _unnamed_file(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    path = os.path.join(directory, f"klieg-{secrets.token_hex(16)}")
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


def reopen_to_read(fd: int) -> int:
    """Another descriptor of the file, through which it can be read and mapped for reading but not written."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no /proc here
        return os.dup(fd)


def largest_file() -> int:
    """Bytes that this process's limits (RLIMIT_FSIZE, RLIMIT_AS) leave for one file and a mapping of it."""
    limits = (resource.getrlimit(which)[0] for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS))
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=1 << 62)


def map_file(fd: int, size: int, writable: bool) -> int:
    """The address of a mapping of the whole file, shared with all who map it. Raises OSError."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    address: int | None = _libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
    if address is None or address == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, f"{size:,} bytes could not be mapped: {os.strerror(code)}")
    return address


def unmap(address: int, size: int) -> None:
    _libc.munmap(address, size)


def allocate(fd: int, offset: int, size: int) -> None:
    """Give that part of the file its memory now: OSError if there is none, instead of SIGBUS at the first touch."""
    end = offset + size
    for start in range(offset, end, FALLOCATE_STEP):
        os.posix_fallocate(fd, start, min(FALLOCATE_STEP, end - start))


def punch(fd: int, offset: int, size: int) -> bool:
    """Give that part's memory back to the machine; False where the file system cannot."""
    return bool(_libc.fallocate(fd, _PUNCH_HOLE, offset, size) == 0)


def write(fd: int, offset: int, data: memoryview) -> None:
    """Write into pages never touched: the kernel then need not clear them first (2.6 GiB/s instead of 1.6)."""
    written = 0
    while written < data.nbytes:
        written += os.pwrite(fd, data[written:], offset + written)


def copy(address: int, data: memoryview) -> None:
    """Copy into pages that are there already, without the interpreter lock."""
    with _Pinned(data) as source:
        if data.nbytes < SPLIT_AT or not _two_cores():
            ctypes.memmove(address, source, data.nbytes)
        else:
            _Shared(address, source, data.nbytes).run()


class _Shared:
    """A copy that two threads share: each takes the next piece when it has done its last.

    So nobody waits for a helper that the machine has no core for: the other one does its pieces too."""

    def __init__(self, address: int, source: int, size: int) -> None:
        self._address = address
        self._source = source
        self._size = size
        self._left = deque(range(0, size, PIECE))
        self._helping = threading.Lock()
        """Held by the helper while it may be copying."""

    def run(self) -> None:
        with contextlib.suppress(RuntimeError):  # no thread to be had: from the machine, or as the interpreter ends
            _thread.start_new_thread(self._help, ())
        try:
            self._work()
        finally:
            self._left.clear()
            with self._helping:
                pass

    def _help(self) -> None:
        with self._helping:
            self._work()

    def _work(self) -> None:
        while True:
            try:
                at = self._left.popleft()
            except IndexError:
                return
            ctypes.memmove(self._address + at, self._source + at, min(PIECE, self._size - at))


def _two_cores() -> bool:
    return len(os.sched_getaffinity(0)) > 1


class _PyBuffer(ctypes.Structure):
    """`Py_buffer`, as the stable C interface of Python defines it."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer: Any = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_release_buffer: Any = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None


class _Pinned:
    """`with _Pinned(view) as address`: where the bytes are; they stay there meanwhile."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._buffer = _PyBuffer()

    def __enter__(self) -> int:
        _get_buffer(self._data, self._buffer, 0)  # PyBUF_SIMPLE; raises BufferError by itself
        return self._buffer.buf or 0

    def __exit__(self, *exc: object) -> None:
        _release_buffer(self._buffer)


class Window(ctypes.Array[ctypes.c_ubyte]):
    """Bytes at an address, of no particular length, with room for attributes: the buffer behind a view."""

    _type_ = ctypes.c_ubyte
    _length_ = 1 << 46
    """Far more than there can be. A view is cut to its size; so one type serves for all sizes, since every new type of
    ctypes costs more than a small copy."""


def window(address: int, keeper: object) -> Window:
    """The bytes from that address on. Lives as long as the last view of it, and so does `keeper`."""
    opened = Window.from_address(address)
    opened.keeper = keeper  # type: ignore[attr-defined]  # classes of ctypes take attributes, like any other
    return opened


def view(opened: Window, size: int) -> memoryview:
    """The first bytes of a window, read-only."""
    return pickle.PickleBuffer(opened).raw()[:size].toreadonly()
