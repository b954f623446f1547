"""How an asyncio loop takes results in: it looks at the sockets itself while a reply is expected, then sleeps on them.

    a user's loop      `LeadingLoop`: a reader on the reactor's descriptor, and looks between the loop's own steps
    an actor's loop    `ActorSelector`: looks, dispatches and writes where the loop would poll anyway

To be woken across cores costs several times what a call costs, so both look for a moment before they sleep; how long
is `Patience`'s to say.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from klieg.engines.local.patience import CROWDED, Patience

if TYPE_CHECKING:
    from klieg.engines.local.reactor import Reactor


class LeadingLoop:
    """A loop that belongs to the user: it keeps its own selector, and its other tasks get their turns."""

    def __init__(self, reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        self._reactor = reactor
        self._loop = weakref.ref(loop)
        self._patience = Patience()
        self._until = 0.0
        self._expecting = False
        """True if somebody has begun to wait since the last look."""
        self._looking = False
        self._detached = False
        loop.add_reader(reactor.fileno(), self._wake)

    def expect(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine of the loop is about to sleep until a result is there. Called on the loop's thread."""
        if self._reactor.dirty:
            self._reactor.flush()
        self._expecting = True
        if not self._looking:
            self._looking = True
            loop.call_soon(self._look)

    def _look(self) -> None:
        """One look between two steps of the loop, and the next one soon, as long as it may pay."""
        if self._detached:
            return
        now = time.monotonic()
        if self._expecting:
            self._expecting = False
            self._until = self._patience.begin(now)
        if self._reactor.poll():
            if now < self._until:
                self._patience.found(now, now)  # what the loop's other tasks took in between is not the core's fault
            self._until = self._patience.begin(now)
        elif now >= self._until:
            self._looking = False
            self._patience.sleep(now)
            return
        else:
            self._yield(now)
        loop = self._loop()
        if loop is not None:
            loop.call_soon(self._look)

    def _yield(self, now: float) -> None:
        """Let others have this very core: the one who is to answer may need it."""
        os.sched_yield()
        back = time.monotonic()
        if back - now > CROWDED:
            self._patience.in_vain(now, back)
            self._until = back

    def _wake(self) -> None:
        if not self._detached:
            self._reactor.poll()

    def detach(self) -> None:
        """Take no more results in; from any thread."""
        self._detached = True
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:  # now, before another file can have the descriptor's number
            loop.remove_reader(self._reactor.fileno())
        else:
            loop.call_soon_threadsafe(loop.remove_reader, self._reactor.fileno())


class ActorSelector(selectors.EpollSelector):
    """The selector of an actor's own loop. Messages are dispatched here, on the loop's thread, between two steps."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__()
        self._reactor = reactor
        self.busy_since: float | None = time.monotonic()
        """Since when the loop has been running what was due, in `time.monotonic` seconds; None while it sleeps. A call
        may run as early as in the first look for messages, if it is a task that starts eagerly."""
        self.poll: Callable[[], bool] = reactor.poll
        """Takes in what has come; True if anything had. The actor's host has its calls started behind that."""
        self._patience = Patience()
        self._fd = reactor.fileno()
        self.register(self._fd, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._take(timeout)
        self.busy_since = time.monotonic()
        return events

    def _take(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        reactor = self._reactor
        if reactor.dirty:
            reactor.flush()
        if self.poll() or (timeout is not None and timeout <= 0):
            return self._split(super().select(0))
        now = time.monotonic()
        wake = None if timeout is None else now + timeout
        end = self._patience.begin(now)
        if wake is not None and wake < end:
            end = wake
        while now < end:
            looked = now
            os.sched_yield()
            found = self.poll()
            now = time.monotonic()
            if found:
                self._patience.found(looked, now)
                return self._split(super().select(0))
            if events := super().select(0):
                return self._split(events)
            if now - looked > CROWDED:
                break
        self._patience.sleep(now)
        self.busy_since = None
        events = super().select(None if wake is None else max(0.0, wake - now))
        self.busy_since = time.monotonic()
        return self._split(events)

    def _split(self, events: list[tuple[selectors.SelectorKey, int]]) -> list[tuple[selectors.SelectorKey, int]]:
        """The events of others: what the reactor's own descriptor stands for is seen to here.

        May be empty though messages have come: they are in the loop's queue by then, so it must not sleep again.
        """
        for index, (key, _) in enumerate(events):
            if key.fd == self._fd:
                del events[index]
                self.poll()
                break
        return events


class ActorLoop:
    """What stands for an actor's own loop where a `LeadingLoop` is asked for: its selector looks anyway."""

    def expect(self, loop: Any) -> None:
        return

    def detach(self) -> None:
        return
