"""One end of a connection, on a real socket pair whose other end is read by hand."""

from __future__ import annotations

import socket
import threading
import tracemalloc

import pytest

from klieg.engines.local.connection import Link
from klieg.engines.local.reactor import Reactor

MIB = 1 << 20


@pytest.fixture
def reactor():
    reactor = Reactor(monitored=False)
    yield reactor
    reactor.close()


def test_a_large_frame_is_written_without_being_copied_and_what_follows_it_stays_behind_it(reactor):
    ours, theirs = socket.socketpair()
    closed = threading.Event()
    link = Link(reactor, ours, lambda frames: None, lambda why: closed.set())
    big = b"x" * (32 * MIB)
    came = []

    def read() -> None:
        left, buffer = len(big), bytearray(MIB)
        while left:
            left -= theirs.recv_into(buffer, min(left, MIB))
        came.append(theirs.recv(100))

    reader = threading.Thread(target=read)
    reader.start()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    link.send(big)
    link.send(b"behind ")
    link.send(b"it", now=True)
    reactor.block(lambda: not link.unwritten)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.join()
    assert came == [b"behind it"]
    assert peak - before < 4 * MIB
    link.close()
    theirs.close()
    assert closed.is_set()
