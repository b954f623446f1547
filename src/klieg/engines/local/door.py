"""The door: a private socket through which this user's commands look into a running program.

    klieg status ──(one line of JSON)──► Door ──► Head.visited ──► Visitor ──(one line of JSON)──► klieg status

Only JSON passes, one question a visit, and nothing is unpickled. The folder is 0700, the socket 0600, and a process of
another user is sent away by what the kernel says of it before a byte is read. The numbers below bound what visitors
can cost the runtime.
"""

from __future__ import annotations

import errno
import json
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from klieg.engines import rundir
from klieg.engines.local.reactor import Reactor

MOST_VISITORS: Final = 16
LONGEST_QUESTION: Final = 1 << 16
"""Bytes."""
HESITATION: Final = 2.0
"""Seconds within which a visitor has to say what it wants."""
PATIENCE: Final = 60.0
"""Seconds that a visit may take in all."""
BREATHER: Final = 1.0
"""Seconds before another visitor is let in when the process has run out of descriptors."""

Answer = Callable[[dict[str, Any]], None]
Ask = Callable[[dict[str, Any], Answer], None]

logger = logging.getLogger("klieg")


class Door:
    """Listens in a folder of its own, which goes when it is closed."""

    def __init__(self, reactor: Reactor, places: list[str], ask: Ask) -> None:
        """`ask(question, answer)` answers a question, perhaps later. Raises OSError if no place can become a folder."""
        self.reactor = reactor
        self.ask = ask
        self.visitors: set[Visitor] = set()
        self._path = rundir.make(places)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            rundir.bind(self._sock, self._path)
        except OSError:
            self._sock.close()
            rundir.remove(self._path)
            raise
        self._sock.setblocking(False)
        self._fd = self._sock.fileno()
        reactor.add(self._fd, self)

    def on_events(self, mask: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._rest()
            return
        if len(self.visitors) >= MOST_VISITORS or not rundir.peer_is_this_user(sock):
            sock.close()
        else:
            self.visitors.add(Visitor(self, sock))

    def let_go(self) -> None:
        """This process is a fork of the one that listens."""
        self._sock.close()

    def _rest(self) -> None:
        """No descriptor is left: look away for a while, instead of at the same visitor again and again."""
        self.reactor.modify(self._fd, 0)
        self.reactor.call_at(time.monotonic() + BREATHER, lambda: self.reactor.modify(self._fd, select.EPOLLIN))

    def close(self) -> None:
        self._sock.close()
        rundir.remove(self._path)


class Visitor:
    """One connection: reads a question, waits for the answer, writes it, and is gone."""

    def __init__(self, door: Door, sock: socket.socket) -> None:
        self._door = door
        self._sock = sock
        self._fd = sock.fileno()
        self._question = b""
        self._answer: memoryview | None = None
        self._asked = False
        sock.setblocking(False)
        door.reactor.add(self._fd, self)
        door.reactor.call_at(time.monotonic() + HESITATION, self._leave_unasked)

    def on_events(self, mask: int) -> None:
        if self._answer is not None:
            self._write()
        elif self._asked:
            self._leave()  # it has hung up, or says more than it should
        else:
            self._read()

    def let_go(self) -> None:
        """This process is a fork of the one that was visited."""
        self._sock.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(LONGEST_QUESTION)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._question += data
        if not data or len(self._question) > LONGEST_QUESTION:
            self._leave()
        elif self._question.endswith(b"\n"):
            self._asked = True
            self._ask()

    def _ask(self) -> None:
        try:
            question = json.loads(self._question)
            if not isinstance(question, dict):
                raise ValueError("a question is a JSON object")
            self._door.ask(question, self._reply)
        except Exception as error:  # whatever a visitor says, the head goes on
            logger.debug("A visitor's question failed", exc_info=True)
            self._reply({"error": f"{type(error).__name__}: {error}"})

    def _reply(self, answer: dict[str, Any]) -> None:
        if self._fd < 0 or self._answer is not None:
            return
        self._answer = memoryview(json.dumps(answer).encode() + b"\n")
        self._door.reactor.modify(self._fd, select.EPOLLOUT)
        self._write()

    def _write(self) -> None:
        assert self._answer is not None
        try:
            while self._answer:
                self._answer = self._answer[self._sock.send(self._answer) :]
        except BlockingIOError:
            return
        except OSError:
            pass
        self._leave()

    def _leave_unasked(self) -> None:
        if self._asked:
            self._door.reactor.call_at(time.monotonic() + PATIENCE - HESITATION, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        if self._fd < 0:
            return
        self._door.reactor.remove(self._fd)
        self._fd = -1
        self._sock.close()
        self._door.visitors.discard(self)
