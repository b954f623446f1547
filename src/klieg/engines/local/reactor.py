"""Whoever waits, polls: the one place in a process that looks at sockets.

    a thread in `get` / `wait` ──► leads: polls, dispatches what arrives (its own result or another's), writes
    other threads that wait    ──► follow: sleep until their result is there or the leader leaves
    an asyncio loop            ──► leads when its selector says that the epoll descriptor is readable
    the monitor thread         ──► leads when nobody has for some milliseconds, so that nothing is ever stuck

No thread stands between a socket and the one who waits for it: a hand-off costs two wake-ups across cores, ten times
what the call itself costs.

Rules kept here:
- dispatching happens under the lead, by one thread at a time; handlers never block and never raise.
- whoever changes what a leader waits for calls `nudge` afterwards; a leader looks again after it has announced that it
  will block. So one of the two always sees the other.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from klieg.engines.local.loops import ActorLoop, LeadingLoop
from klieg.engines.local.patience import CROWDED, Patience
from klieg.engines.objects import Ready
from klieg.engines.timers import Timers

GRACE: Final = 0.005
"""Seconds for which events may lie before the monitor takes them up: long enough not to disturb whoever is about to."""

PATIENCE: Final = 0.02
"""Seconds between two looks of the monitor while others lead."""


LOOK_AROUND: Final = 0.01
"""Seconds between two looks of the monitor while it is restless."""


class Handler(Protocol):
    def on_events(self, mask: int) -> None:
        """The descriptor is ready. Never blocks, never raises."""

    def let_go(self) -> None:
        """Close the descriptor in this process, a fork, and do nothing else."""


class Reactor:
    def __init__(self, monitored: bool = True) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._lead = threading.Lock()
        self._followers: list[tuple[Ready, threading.Semaphore]] = []
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """The monitor's own bell: a leader would take the common one away before the monitor has woken."""
        self._blocking = False
        self._patience = Patience()
        self._rounds = 0
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LeadingLoop | ActorLoop]
        self._loops = weakref.WeakKeyDictionary()
        self._latest: tuple[Callable[[], Any], LeadingLoop | ActorLoop] = (_no_loop, ActorLoop())
        """The loop that has expected something last, and what stands for it."""
        self.step_thread = 0
        """The thread that writes what is queued at each of its steps: the one of an actor's own loop."""
        self._timers = Timers()
        self._closed = False
        self.dispatching = False
        self.dirty: deque[Any] = deque()
        """Links with frames that wait to be written."""
        self.chores: list[Callable[[], None]] = []
        """Called after each round and by the monitor: what must not wait for long and may be done by anybody."""
        self.foreign_waiters = 0
        """Threads that wait for results without polling (`future().result()`): the monitor then leads at once."""
        self._epoll.register(self._bell, select.EPOLLIN)
        self._handlers[self._bell] = self
        self.ticks: list[Callable[[], None]] = []
        """Called by the monitor thread each time it looks, without the lead."""
        self.restless: Callable[[], bool] = _never
        """True while the monitor should look around by itself, though no message comes."""
        self.on_failure: Callable[[BaseException], None] = _raise
        """Called when a handler, a chore or the monitor has raised, which it must not: whoever waits has to be told."""
        self._monitor: threading.Thread | None = None
        if monitored:
            self._monitor = threading.Thread(target=self._watch, name="klieg monitor", daemon=True)
            self._monitor.start()

    def add(self, fd: int, handler: Handler, mask: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def block(self, ready: Ready, deadline: float | None = None) -> bool:
        """Wait until `ready()`, leading if nobody else does; False once `deadline` (`time.monotonic`) has passed."""
        while not ready():
            if self._lead.acquire(blocking=False):
                try:
                    return self._lead_until(ready, deadline)
                finally:
                    self._lead.release()
                    if self._followers:
                        self._pass_on()
            if not self._follow(ready, deadline):
                return ready()
        return True

    def held(self) -> threading.Lock:
        """While this is held as a context, nothing is dispatched: a process is being set up."""
        return self._lead

    def poll(self) -> bool:
        """One round without waiting, unless another thread leads; True if anything had come."""
        if not self._lead.acquire(blocking=False):
            return False
        try:
            events = self._epoll.poll(0)
            if events:
                self._dispatch(events)
        finally:
            self._lead.release()
            if self._followers:
                self._pass_on()
        return bool(events)

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to do here."""
        return self._epoll.fileno()

    def nudge(self) -> None:
        """What somebody waits for may have changed without a message having come."""
        if self._blocking:
            self.ring()
        elif self._followers:
            self._wake_followers()

    def ring(self) -> None:
        """Wake whoever sleeps on the sockets. Takes no lock: finalizers may call it."""
        try:
            os.eventfd_write(self._bell, 1)
        except (OSError, ValueError):  # closed
            return

    def on_events(self, mask: int) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return

    def expect(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine on this running loop is about to sleep until a result is there: let the loop lead."""
        latest = self._latest
        if latest[0]() is not loop:  # a program has one loop, nearly always: the table costs more than this
            leading = self._loops.get(loop) or self._loops.setdefault(loop, LeadingLoop(self, loop))
            latest = self._latest = weakref.ref(loop), leading
        latest[1].expect(loop)

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop, whose selector is an `ActorSelector`, runs on this thread from now on."""
        self._loops[loop] = leading = ActorLoop()
        self._latest = weakref.ref(loop), leading
        self.step_thread = threading.get_ident()

    def detach_loops(self) -> None:
        for leading in list(self._loops.values()):
            leading.detach()

    def call_at(self, moment: float, function: Callable[[], None]) -> None:
        """Have the monitor call `function` at about `moment` (`time.monotonic`)."""
        if self._timers.at(moment, function):
            self._wake_monitor()

    def close(self) -> None:
        self._closed = True
        self._wake_monitor()
        if self._monitor is not None and self._monitor is not threading.current_thread():
            self._monitor.join()
        self.detach_loops()
        self._drive_out()
        self._epoll.close()
        self._close_bells()

    def _drive_out(self) -> None:
        """Wake whoever leads, until nobody does: a thread that sleeps on closed descriptors would sleep for ever.

        What they wait for has failed by now. Not without end, since the one who leads may be this very thread, in a
        signal handler that shuts down."""
        for _ in range(100):
            if self._lead.acquire(timeout=0.01):
                self._lead.release()
                return
            self.ring()

    def let_go(self) -> None:
        """In a fork: close every descriptor. The epoll set itself is the parent's, too: nothing is taken out of it."""
        handlers, self._handlers = self._handlers, {}
        for handler in handlers.values():
            if handler is not self:
                handler.let_go()
        self._epoll.close()
        self._close_bells()

    def _close_bells(self) -> None:
        bells = self._bell, self._alarm
        self._bell = self._alarm = -1  # finalizers ring on, and the numbers may soon be others'
        for fd in bells:
            os.close(fd)

    # Leading and following

    def _lead_until(self, ready: Ready, deadline: float | None) -> bool:
        poll, patience, looked, spin_end = self._epoll.poll, self._patience, 0.0, 0.0
        while not ready():
            if self.dirty:
                self.flush()
            events = poll(0)
            if not events:
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    return False
                if not spin_end:
                    spin_end = patience.begin(now)
                elif now - looked > CROWDED:
                    spin_end = now  # others have had the core
                if now < spin_end:
                    looked = now
                    os.sched_yield()  # the one who is to answer may need this very core
                    continue
                patience.sleep(now)
                events = self._sleep(ready, deadline, now)
                spin_end = 0.0
            elif spin_end:
                patience.found(looked, time.monotonic())
                spin_end = 0.0
            self._dispatch(events)
        return True

    def _sleep(self, ready: Ready, deadline: float | None, now: float) -> list[tuple[int, int]]:
        self._blocking = True
        try:
            if ready() or self.dirty:
                return []
            return self._epoll.poll(None if deadline is None else deadline - now)
        except OSError:
            if not self._closed:
                raise
            return []  # closed under us, by a signal handler that shut down: what is waited for has failed
        finally:
            self._blocking = False

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        self._rounds += 1
        self.dispatching = True
        handlers = self._handlers
        try:
            for fd, mask in events:
                handler = handlers.get(fd)
                if handler is not None:
                    handler.on_events(mask)
            for chore in self.chores:
                chore()
        except Exception as error:
            self.on_failure(error)
        finally:
            self.dispatching = False  # before the look at `dirty`: who queues a frame now sees to it on its own
        if self.dirty:
            self.flush()
        if self._followers:
            self._wake_followers()

    def flush(self) -> None:
        """Write what waits to be written."""
        dirty = self.dirty
        while dirty:
            try:
                link = dirty.popleft()
            except IndexError:
                return
            link.flush()

    def _follow(self, ready: Ready, deadline: float | None) -> bool:
        """Sleep until it is worth looking again; False if the deadline has passed."""
        bell = threading.Semaphore(0)
        entry = (ready, bell)
        self._followers.append(entry)
        try:
            if not self._lead.locked() or ready():
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            bell.acquire(timeout=left)
            return True
        finally:
            self._followers.remove(entry)

    def _wake_followers(self) -> None:
        for ready, bell in list(self._followers):
            if ready():
                bell.release()

    def _pass_on(self) -> None:
        """The lead is free: whoever follows may want it."""
        for _, bell in self._followers[:1]:
            bell.release()

    # The monitor

    def _watch(self) -> None:
        try:
            self._look_after()
        except BaseException as error:  # nobody above would see it
            self.on_failure(error)

    def _look_after(self) -> None:
        poll = select.poll()
        poll.register(self._epoll.fileno(), select.POLLIN)
        poll.register(self._alarm, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._until_next_timer()):
                if fd == self._alarm:
                    os.eventfd_read(self._alarm)
            if self._closed:
                return
            self.run_timers()
            rounds = self._rounds
            if not self.foreign_waiters or self._lead.locked():
                time.sleep(GRACE)
            for tick in self.ticks:
                tick()
            if rounds == self._rounds:
                self.poll()
            else:
                time.sleep(PATIENCE - GRACE)

    def _wake_monitor(self) -> None:
        try:
            os.eventfd_write(self._alarm, 1)
        except (OSError, ValueError):  # closed
            return

    def _until_next_timer(self) -> float | None:
        limit = LOOK_AROUND if self.restless() else None
        left = self._timers.left()
        if left is not None:
            until = left + 0.001
            limit = until if limit is None else min(until, limit)
        return None if limit is None else limit * 1000

    def next_timer(self) -> float | None:
        """When the next timer is due, in `time.monotonic` seconds."""
        return self._timers.next()

    def run_timers(self) -> None:
        self._timers.run()


def _no_loop() -> None:
    return None


def _never() -> bool:
    return False


def _raise(error: BaseException) -> None:
    raise error
