"""One connection: frames out, frames in, on a non-blocking Unix socket pair. Descriptors may ride along."""

from __future__ import annotations

import array
import contextlib
import errno
import select
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final

from klieg.engines.local.process import no_descriptors_left
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.wire import MAX_FDS, Decoder, Frame, WireError

READ_SIZE: Final = 1 << 16
"""Bytes asked for at once: below malloc's limit for mapping fresh pages, above what a burst of small calls fills."""

BIG_READ: Final = 1 << 20
"""The same while a large frame is coming in."""

WRITE_AT: Final = 1 << 12
"""Bytes that may wait in a burst before they are written, so that the other side starts while we go on."""

_TRUNCATED: Final = int(socket.MSG_CTRUNC)  # an operation on the enumeration's member makes another one: 1-3 µs
_ANCILLARY: Final = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)

Piece = bytes | memoryview | tuple[bytes, list[int], object]
"""A frame; what the socket did not take of one; or a frame, the descriptors that go with it and who closes them:
None if this side does once they are sent, else their owner, which is kept alive until then."""


class Link:
    """Both ends look the same. `on_frames` gets what arrives; `on_close` is called once, when the other end is gone."""

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_frames: Callable[[list[Frame]], None],
        on_close: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._on_frames = on_frames
        self._on_close = on_close
        self._out: deque[Piece] = deque()
        self._waiting = 0
        self._queued = False
        """True while the reactor has been told that there is something to write."""
        self._polled = False
        """True while the epoll set watches for room to write."""
        self._writing = threading.Lock()
        self._decoder = Decoder()
        self.fds: deque[int] = deque()
        """Descriptors that have come and that no frame has claimed yet."""
        self.can_miss_fds = False
        """True if the frames say which descriptors belong to them, so that one that is lost can be told."""
        self.closed = False
        self.broken = ""
        """Why it was closed from this side, if it was."""
        sock.setblocking(False)
        self._fd = sock.fileno()
        reactor.add(self._fd, self)

    def send(self, frame: bytes, now: bool = False) -> None:
        """Queue a frame, to be written at once or with the next ones. Never blocks; after a close it is dropped."""
        self._out.append(frame)
        if now:
            self.flush()
            return
        self._waiting += len(frame)
        if self._waiting >= WRITE_AT:
            self.flush()
        elif not self._queued:
            self._queue()

    def send_with_fds(self, frame: bytes, fds: list[int], owner: object = None) -> None:
        """Queue a frame with descriptors. They are closed here once they are sent, unless they have an owner."""
        self._out.append((frame, fds, owner))
        self.flush()
        if self.closed:  # nothing is written any more: the descriptors are ours to close
            self._drop_queue()

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it; the rest follows when it can."""
        while self._out and not self.closed:
            if not self._writing.acquire(blocking=False):
                return  # the one who writes looks again after it has let go
            try:
                blocked = self._write()
            finally:
                self._writing.release()
            if blocked:
                return

    def break_off(self, frame: bytes) -> None:
        """Write half of a frame, and never anything again: what a process leaves that dies while it writes."""
        self._writing.acquire()  # for good: what other threads wrote now would be taken for the other half
        self._out.append(frame[: len(frame) // 2])
        self._write()

    def _write(self) -> bool:
        """True if the socket is full."""
        out = self._out
        while out:
            piece = self._next_piece()
            try:
                if isinstance(piece, tuple):
                    sent = self._send_fds(*piece)
                    piece = piece[0]
                else:
                    sent = self._sock.send(piece)
            except BlockingIOError:
                out.appendleft(piece)
                self._poll_for_room()
                return True
            except OSError:  # the other end is gone; the reading side will notice and tell
                out.appendleft(piece)  # its descriptors are to be closed with the others
                self._drop_queue()
                return True
            if sent < len(piece):
                out.appendleft(memoryview(piece)[sent:])  # a copy for each share that a socket takes would be quadratic
                self._poll_for_room()
                return True
        self._all_written()
        return False

    def _next_piece(self) -> Piece:
        out = self._out
        first = out.popleft()
        if not out or type(first) is not bytes:
            return first
        pieces = [first]
        for _ in range(len(out)):
            if type(out[0]) is not bytes:
                break
            pieces.append(out.popleft())  # type: ignore[arg-type]  # just looked
        return b"".join(pieces)

    def _send_fds(self, frame: bytes, fds: list[int], owner: object) -> int:
        sent = socket.send_fds(self._sock, [frame], fds)
        if owner is None:
            for fd in fds:
                _close(fd)
        return sent

    def _drop_queue(self) -> None:
        while self._out:
            piece = self._out.popleft()
            if isinstance(piece, tuple) and piece[2] is None:
                for fd in piece[1]:
                    _close(fd)

    def _queue(self) -> None:
        """Have it written by whoever leads next; if nobody is about to, by whoever the epoll set wakes."""
        self._queued = True
        self._reactor.dirty.append(self)
        reactor = self._reactor
        if not reactor.dispatching and threading.get_ident() != reactor.step_thread:
            self._poll_for_room()

    def _poll_for_room(self) -> None:
        if not self._polled:
            self._polled = True
            with contextlib.suppress(OSError):
                self._reactor.modify(self._fd, select.EPOLLIN | select.EPOLLOUT)

    def _all_written(self) -> None:
        self._waiting = 0
        self._queued = False
        if self._polled:
            self._polled = False
            with contextlib.suppress(OSError):
                self._reactor.modify(self._fd, select.EPOLLIN)

    @property
    def unwritten(self) -> bool:
        return bool(self._out)

    def on_events(self, mask: int) -> None:
        if mask & ~select.EPOLLOUT:
            self._read()
        if mask & select.EPOLLOUT:
            self.flush()
            if not self._out:
                self._all_written()

    def _read(self) -> None:
        size = BIG_READ if self._decoder.missing > READ_SIZE else READ_SIZE
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(size, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(str(error))
            return
        if ancillary:
            self._take_fds(ancillary)
        if not data:
            self.close("end of file")
            return
        try:
            if flags & _TRUNCATED and not self.can_miss_fds:
                raise WireError(no_descriptors_left("a descriptor was sent to a process"))
            self._on_frames(self._decoder.feed(data))
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        """What came cannot be understood, and so nothing that comes behind it: the connection ends here."""
        garbage = isinstance(error, WireError)
        self.broken = f"garbage: {error}" if garbage else "".join(traceback.format_exception(error))
        self.close(self.broken)

    def _take_fds(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self.fds.extend(fds)

    def let_go(self) -> None:
        """Close this process's copy of the descriptor and tell nobody: in a fork."""
        self.closed = True
        self._sock.close()

    def close(self, why: str = "closed here") -> None:
        if self.closed:
            return
        self.closed = True
        self._reactor.remove(self._fd)
        self._drop_queue()
        for fd in self.fds:
            _close(fd)
        self._sock.close()
        self._on_close(why)


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        socket.close(fd)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection. Raises OSError, which says what to do, if the process has no descriptors left."""
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise OSError(error.errno, no_descriptors_left("a connection was asked for in a process")) from None
