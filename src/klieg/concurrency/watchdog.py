"""Tells what goes wrong silently in one actor: a loop that is held, a full limit without progress, a swallowed cancel.

It runs on a thread that is none of the actor's, looks while there are calls, and says each thing once. It reads the
actor's state from outside and takes none of its locks for long, so it costs the calls nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from klieg.concurrency import stacks
from klieg.concurrency.call import DONE, Call
from klieg.concurrency.snapshot import describe_calls
from klieg.concurrency.waits import Facts, Waits, all_blocked, confirmed

if TYPE_CHECKING:
    from klieg.concurrency.executors import LoopExecutor
    from klieg.concurrency.groups import Group
    from klieg.concurrency.host import Host

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at most: what is seen to begin is looked at again when it has lasted long enough."""

HOLDERS_SHOWN: Final = 10
"""Calls of a full limit that are named; of the others only the number."""


Ask = Callable[[Callable[[list[Facts]], None]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """When something has lasted long enough to be told, in seconds; None: never."""

    loop: float | None = 1.0
    """One callback, or step of a coroutine, on an async actor's loop; and a cancelled call that goes on running."""
    stall: float | None = 10.0
    """A full limit under which no waiting call could start."""


class Watchdog:
    """Watches one actor, or one worker of tasks."""

    def __init__(
        self,
        host: Host,
        call_at: Callable[[float, Callable[[], None]], None],
        report: Callable[[str], None],
        thresholds: Thresholds,
        ask: Ask | None = None,
    ) -> None:
        """
        Args:
            call_at: has a function called at a moment of the host's clock, on a thread that no call runs on.
            report: takes a warning.
            ask: has a function called with what each process of the runtime knows of waits; None if nobody does.
        """
        self._host = host
        self._clock = host.clock
        self._call_at = call_at
        self._report = report
        self._thresholds = thresholds
        self._ask = ask
        self._told: set[str] = set()
        self._next_search = 0.0
        """When it is worth asking again who waits for whom."""
        self._first_in_line: dict[str, tuple[Call, float]] = {}
        """For each full group: the call that is to start next, and since when it has been that."""
        self._stopping: dict[Call, float] = {}
        """Cancelled calls that run, and since when."""
        limits = [limit for limit in dataclasses.astuple(thresholds) if limit is not None]
        self._pause: float = min([LOOK_EVERY, *(limit / 2 for limit in limits)])
        """Seconds between two looks, at most."""
        self._starting = threading.Lock()
        if limits:
            host.watch = self.begin
            host.unwatched = True

    def begin(self) -> None:
        """The actor has been given a call, and nobody looks: look from now on, until it has none."""
        with self._starting:
            if not self._host.unwatched:
                return
            self._host.unwatched = False
        self._call_at(self._clock() + self._pause, self._look_on)

    def _look_on(self) -> None:
        pause = self.look()
        if self._host.calls:
            self._call_at(self._clock() + pause, self._look_on)
            return
        self._first_in_line.clear()
        self._stopping.clear()
        self._host.unwatched = True
        if self._host.calls:  # one has come in between
            self.begin()

    def look(self) -> float:
        """Look once, tell what is to be told; returns the seconds until it is worth looking again."""
        now = self._clock()
        self._look_at_limits(now)
        self._look_at_cancelled(now)
        return min(self._pause, self._look_at_loops(now))

    # A loop that is held

    def _look_at_loops(self, now: float) -> float:
        limit = self._thresholds.loop
        if limit is None or not self._host.mailbox.is_open:  # a constructor may take its time
            return self._pause
        return min((self._look_at_loop(loop, now, limit) for loop in self._host.loops()), default=self._pause)

    def _look_at_loop(self, executor: LoopExecutor, now: float, limit: float) -> float:
        since = executor.busy_since
        if since is None:
            return self._pause
        seconds = now - max(since, self._host.opened)
        if seconds < limit:
            return limit - seconds + 0.001
        frames = stacks.loop_stack(executor.thread)
        who = self._who_holds(executor, frames)
        if frames and executor.busy_since == since and self._first_time("holds the loop", who):
            self._report(
                f"{who} has held the event loop of {self._host.name} for {seconds:.2f} s, and with it every other "
                'call. `await` what takes long, or move it to a thread: `@klieg.method(run_in="thread")` for a sync '
                f"method, `await asyncio.to_thread(...)` inside an async one. It is here:\n{_lines(frames)}"
            )
        return self._pause

    def _who_holds(self, executor: LoopExecutor, frames: list[types.FrameType]) -> str:
        """The method, or what runs on the loop without being one."""
        task = asyncio.current_task(executor.loop)
        function = f"{frames[0].f_code.co_qualname}()" if frames else "code of its own"
        if task is None:
            return f"A callback, {function},"
        call = executor.call_of(task)
        if call is None:
            return f"A background task, {function},"
        if executor.tasks.get(call, task) is task:
            return f"{call.spec.name}()"
        return f"{function} in a task that {call.spec.name}() has started"

    # A full limit without progress

    def _look_at_limits(self, now: float) -> None:
        limit = self._thresholds.stall
        if limit is None or not self._host.mailbox.is_open:
            return
        for group in self._host.mailbox.groups.values():
            self._look_at_group(group, now, limit)

    def _look_at_group(self, group: Group, now: float, limit: float) -> None:
        first = group.first()
        known = self._first_in_line.get(group.name)
        if first is None:
            self._first_in_line.pop(group.name, None)
        elif known is None or known[0] is not first:
            self._first_in_line[group.name] = (first, now)
        elif now - known[1] >= limit:
            if self._host.mode != "plain" and self._first_time("is full", group.name):
                self._report(self._describe_stall(group, now - known[1]))
            self._look_for_circles(group, now, now - known[1])

    def _describe_stall(self, group: Group, seconds: float) -> str:
        holders = self._host.running_in(group.name)
        shown = describe_calls(self._host, holders[:HOLDERS_SHOWN])
        more = len(holders) - HOLDERS_SHOWN
        return (
            f"{self._host.name}: the limit of {group.limit} of the concurrency group {group.name!r} has been reached, "
            f"and no call of it could start for {seconds:.1f} s; {len(group.waiting)} wait. If those that run wait for "
            "one that cannot start, this never ends: raise the limit (`handle.resize`), or give the two groups of "
            "their own. Running are:\n" + "\n".join(shown) + (f"\nand {more} more" if more > 0 else "")
        )

    # Calls that wait for one another

    def _look_for_circles(self, group: Group, now: float, seconds: float) -> None:
        """Ask everybody who waits for whom, if those that hold the group do nothing but wait; less often each time."""
        if self._ask is not None and now >= self._next_search and all_blocked(self._host, group.name):
            self._next_search = now + seconds
            self._ask(self._look_again)

    def _look_again(self, processes: list[Facts]) -> None:
        first = Waits(processes)
        if self._ask is not None and first.circles():
            self._ask(lambda processes: self._tell_of_circles(first, Waits(processes)))

    def _tell_of_circles(self, first: Waits, second: Waits) -> None:
        """Each circle is told of by one actor only."""
        for circle in confirmed(first, second):
            number = second.first_queued(circle)
            is_ours = any(call.number == number for call in list(self._host.calls.values()))
            if is_ours and self._first_time("is a circle", str(circle)):
                self._report(second.describe(circle))

    # A cancelled call that goes on

    def _look_at_cancelled(self, now: float) -> None:
        limit = self._thresholds.loop
        if limit is None:
            return
        while self._host.interrupted:
            self._stopping.setdefault(self._host.interrupted.popleft(), now)
        for call, since in list(self._stopping.items()):
            if call.state is DONE:
                del self._stopping[call]
            elif now - since >= limit:
                del self._stopping[call]
                self._tell_of_cancelled(call, now - since)

    def _tell_of_cancelled(self, call: Call, seconds: float) -> None:
        if self._first_time("goes on", call.spec.name):
            stack = "\n".join(describe_calls(self._host, [call]))
            self._report(
                f"{call.spec.name}() is still running {seconds:.1f} s after it was cancelled: it has caught the "
                "CancelledError (in a task: the KeyboardInterrupt) and gone on, or its cleaning up takes long. Its "
                f"caller gets the TaskCancelledError when it ends.\n{stack}"
            )

    def _first_time(self, what: str, who: str) -> bool:
        key = f"{who} {what}"
        if key in self._told:
            return False
        self._told.add(key)
        return True


def _lines(frames: Any) -> str:
    return "\n".join(stacks.format_frames(frames))
