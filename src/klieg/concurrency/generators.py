"""The producing side of a streaming generator: items go out one by one, never more than the consumer's window.

The consumer says how many it has taken (`grant`) and when it has lost interest (`close`). A producer that is full
waits; one whose consumer is gone is closed, so that its `finally` runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

Block = Callable[[Callable[[], bool]], object]
"""Wait on this thread until the condition holds; an engine knows how to stay reachable meanwhile."""


class Stream:
    """Where one generator's items go."""

    def __init__(self, send: Callable[[int, Any], None], window: int, block: Block | None = None) -> None:
        self._send = send
        self._window = window if window > 0 else 1 << 62
        self._block = block or self._block_here
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.sent = 0
        self.taken = 0
        self.closed = False

    def emit(self, item: Any) -> None:
        self._send(self.sent, item)
        self.sent += 1

    def grant(self, taken: int) -> None:
        """The consumer has taken `taken` items in all; from any thread."""
        self.taken = max(self.taken, taken)
        self._ring()

    def close(self) -> None:
        """Nobody wants the rest; from any thread."""
        self.closed = True
        self._ring()

    def may_go_on(self) -> bool:
        return self.closed or self.sent - self.taken < self._window

    def wait(self) -> None:
        if not self.may_go_on():
            self._block(self.may_go_on)

    async def wait_async(self) -> None:
        while not self.may_go_on():
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiter = (loop, waiter)
            if not self.may_go_on():
                await waiter

    def _block_here(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(condition)

    def _ring(self) -> None:
        with self._changed:
            self._changed.notify_all()
        waiting, self._waiter = self._waiter, None
        if waiting is not None:
            loop, waiter = waiting
            loop.call_soon_threadsafe(_wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def produce(generator: Generator[Any, None, Any], stream: Stream) -> None:
    """Run a sync generator to its end, or until its consumer is gone."""
    try:
        stream.wait()
        while not stream.closed:
            try:
                item = next(generator)
            except StopIteration:
                return
            stream.emit(item)
            stream.wait()
    finally:
        generator.close()


async def produce_async(generator: AsyncGenerator[Any, Any], stream: Stream) -> None:
    """Run an async generator to its end, or until its consumer is gone."""
    try:
        await stream.wait_async()
        while not stream.closed:
            try:
                item = await anext(generator)
            except StopAsyncIteration:
                return
            stream.emit(item)
            await stream.wait_async()
    finally:
        await generator.aclose()


async def produce_on_loop(generator: Generator[Any, None, Any], stream: Stream) -> None:
    """Run a sync generator on an event loop, letting other calls run between its items."""
    try:
        await stream.wait_async()
        while not stream.closed:
            try:
                item = next(generator)
            except StopIteration:
                return
            stream.emit(item)
            await asyncio.sleep(0)
            await stream.wait_async()
    finally:
        generator.close()
