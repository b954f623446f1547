"""What the operating system and pickle alone allow: the loop that klieg's figures are held against.

    caller  ── length + pickle((id, method, args)) ──►  peer: getattr, call
            ◄── length + pickle((id, result)) ────────

Two processes, one Unix socket pair, and no more than a call needs: no errors, options, refs or
limits. Whoever waits looks at the socket for up to `POLL_SECONDS` before it sleeps, since waking a
sleeper on another core costs more than the whole call. It yields between two looks: if the kernel
has put both processes on one core, looking alone would keep the other from answering (measured: 420
µs a call instead of 17).
"""

import asyncio
import contextlib
import os
import pickle
import select
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import workloads
from benchmarks.workloads import IN_FLIGHT, MIB, Bench, rate

POLL_SECONDS = 200e-6
"""How long a waiter looks before it sleeps; two wake-ups across cores cost 50 to 100 µs."""
CHUNK = 1 << 16
"""Bytes asked for at once. Above malloc's 128 KiB every read maps fresh pages, 5 times slower."""
LENGTH = struct.Struct("<I")


# --- The rows ---


def plain_one(bench: Bench) -> float:
    with peer(serve_plain) as channel:
        return rate(bench, lambda: call(channel))


def plain_1000(bench: Bench) -> float:
    with peer(serve_plain) as channel:
        return rate(bench, lambda: call_many(channel, IN_FLIGHT), IN_FLIGHT)


def async_one(bench: Bench) -> float:
    with peer(serve_async) as channel:
        return rate(bench, lambda: call(channel))


def async_1000(bench: Bench) -> float:
    with peer(serve_async) as channel:
        return rate(bench, lambda: call_many(channel, IN_FLIGHT), IN_FLIGHT)


def put_100mib(bench: Bench) -> float:
    """GiB/s of one thread that copies into memory that is already mapped."""
    import numpy  # late: it may start threads, and the rows above fork

    source = numpy.ones(100 * MIB, dtype=numpy.uint8)
    target = numpy.ones_like(source)
    return rate(bench, lambda: numpy.copyto(target, source)) * source.nbytes / (1 << 30)


# --- The caller ---


def call(channel: "Channel") -> None:
    channel.send([(0, "ping", ())])
    channel.receive()


def call_many(channel: "Channel", calls: int) -> None:
    channel.send([(index, "ping", ()) for index in range(calls)])
    results: dict[int, Any] = {}
    while len(results) < calls:
        results.update(channel.receive())


@contextlib.contextmanager
def peer(serve: Callable[["Channel"], None]) -> Iterator["Channel"]:
    """A channel to a forked process that serves it; the process ends with the block."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            serve(Channel(theirs))
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield Channel(ours)
    finally:
        ours.close()
        os.waitpid(pid, 0)


class Channel:
    """Whole messages over a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unread = b""

    def send(self, messages: list[tuple]) -> None:
        """Send all messages with one write."""
        frames = bytearray()
        for message in messages:
            body = pickle.dumps(message, protocol=5)
            frames += LENGTH.pack(len(body))
            frames += body
        self.sock.sendall(frames)

    def receive(self) -> list[tuple]:
        """At least one message. Raises EOFError once the other side is gone."""
        messages: list[tuple] = []
        while not messages:
            self._wait_readable()
            messages = self.receive_nowait()
        return messages

    def receive_nowait(self) -> list[tuple]:
        """The whole messages that have arrived; the socket must be readable."""
        data = self.sock.recv(CHUNK)
        if not data:
            raise EOFError
        view = memoryview(self.unread + data if self.unread else data)
        messages, at = [], 0
        while len(view) - at >= LENGTH.size:
            end = at + LENGTH.size + LENGTH.unpack_from(view, at)[0]
            if end > len(view):
                break
            messages.append(pickle.loads(view[at + LENGTH.size : end]))
            at = end
        self.unread = bytes(view[at:])
        return messages

    def _wait_readable(self) -> None:
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        stop_looking = time.perf_counter() + POLL_SECONDS
        while not poller.poll(0):
            if time.perf_counter() > stop_looking:
                poller.poll()
                return
            os.sched_yield()


# --- The peer ---


def serve_plain(channel: Channel) -> None:
    served = workloads.Plain()
    with contextlib.suppress(EOFError):
        while True:
            channel.send([(index, getattr(served, name)(*args)) for index, name, args in channel.receive()])


def serve_async(channel: Channel) -> None:
    loop = asyncio.SelectorEventLoop(PollingSelector())
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    loop.run_until_complete(AsyncPeer(channel, loop).served_to_the_end)


class AsyncPeer:
    """Starts a task for each call that arrives, and writes the replies of one turn together."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = channel
        self.loop = loop
        self.served = workloads.Async()
        self.replies: list[tuple] = []
        self.tasks: set[asyncio.Task] = set()
        self.served_to_the_end = loop.create_future()
        loop.add_reader(channel.sock, self.read)

    def read(self) -> None:
        try:
            requests = self.channel.receive_nowait()
        except EOFError:
            self.loop.remove_reader(self.channel.sock)
            self.served_to_the_end.set_result(None)
            return
        for request in requests:
            task = self.loop.create_task(self.run(*request))
            if not task.done():
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        self.flush()

    async def run(self, index: int, name: str, args: tuple) -> None:
        result = await getattr(self.served, name)(*args)
        if not self.replies:
            self.loop.call_soon(self.flush)
        self.replies.append((index, result))

    def flush(self) -> None:
        if self.replies:
            self.channel.send(self.replies)
            self.replies = []


class PollingSelector(selectors.DefaultSelector):
    """Looks for `POLL_SECONDS` before it sleeps."""

    def select(self, timeout: float | None = None) -> list:
        look = POLL_SECONDS if timeout is None else min(timeout, POLL_SECONDS)
        stop_looking = time.perf_counter() + look
        while not (ready := super().select(0)):
            if time.perf_counter() >= stop_looking:
                return [] if timeout is not None and timeout <= look else super().select(timeout)
            os.sched_yield()
        return ready
