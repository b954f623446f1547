"""One call as an actor sees it: what to run, for whom, and where the outcome goes."""

from __future__ import annotations

import contextvars
import enum
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from klieg.concurrency.generators import Stream
from klieg.exceptions import DeadlineExceededError
from klieg.ids import COUNTER_BITS, COUNTER_MASK
from klieg.task import TaskSpec

CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("klieg_current_call", default=None)
"""The call that this context belongs to; background tasks and `asyncio.to_thread` inherit it."""


class State(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


QUEUED, RUNNING, DONE = State  # to look a member up in its class costs 70 ns on 3.11, three times a call

NO_CHILDREN: Final[Any] = frozenset()
"""What most calls have; a set for each of them would cost more than the rest of the call."""

_ADOPTING: Final = threading.Lock()


SPENT: Final = contextvars.Context()
"""The context of every call that has ended."""


class Call:
    """A call in an actor's hands. An engine subclasses it to say where arguments come from and outcomes go."""

    __slots__ = (
        "caller",
        "cancelled",
        "children",
        "context",
        "deadline",
        "exits",
        "host",
        "id",
        "interrupted",
        "spec",
        "started",
        "state",
        "stream",
        "target",
    )

    def __init__(self, number: int, caller: int, spec: TaskSpec, target: Callable[..., Any] | None) -> None:
        self.id = number
        self.caller = caller
        """The process that made the call."""
        self.spec = spec
        self.target = target
        """What to run; None for the actor's method of that name, looked up when the call starts."""
        self.state = QUEUED
        self.started = 0.0
        """When it began to run, a time of its host's clock."""
        self.cancelled: BaseException | None = None
        """Once somebody has asked it to stop: the error its caller will see."""
        self.interrupted = False
        """True once an interrupt was raised in it: what it makes of that is what its caller gets."""
        self.children: set[Any] = NO_CHILDREN
        """The calls that it has made and that have no outcome yet, as their engine describes them."""
        self.exits = False
        """True once it has asked that its actor exits."""
        self.deadline: float | None = None
        """In `time.monotonic` seconds."""
        self.context = contextvars.Context()
        self.stream: Stream | None = None
        """Where the items of a streaming generator go."""
        self.host: Any = None

    @property
    def number(self) -> int:
        """The call's id in the whole runtime."""
        return (self.caller << COUNTER_BITS) | (self.id & COUNTER_MASK)

    @property
    def label(self) -> str:
        """Which call it is: its name, and its number among the ids of its caller."""
        return f"{self.spec.name} #{self.id & COUNTER_MASK}"

    def adopt(self, child: Any) -> None:
        """This call has made another one, which follows if it is cancelled."""
        if self.children is NO_CHILDREN:
            with _ADOPTING:
                if self.children is NO_CHILDREN:
                    self.children = set()
        self.children.add(child)

    def refusal(self) -> BaseException | None:
        """Why the call must not start, now that its turn has come."""
        if self.cancelled is not None:
            return self.cancelled
        if self.deadline is not None and self.host.clock() >= self.deadline:
            return DeadlineExceededError(f"The call {self.spec.name}() was still queued when its time was up.")
        return None

    @property
    def gpus(self) -> list[str]:
        """The names of the GPUs that the call may use."""
        return list(self.host.gpus)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, opened; raises what unpickling them raises. Called once, where the call runs."""
        raise NotImplementedError

    def succeed(self, value: Any) -> None:
        """Hand the value to the caller. If it cannot be handed over, the caller gets that error instead."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Hand the error to the caller. Never raises."""
        raise NotImplementedError

    def abandon(self, error: BaseException) -> None:
        """The actor exits under the call. An engine whose callers learn of the exit on their own says nothing."""
        self.fail(error)

    def open_stream(self) -> Stream:
        """Where the items of this generator call go, made at its start."""
        raise NotImplementedError


class ExitActor(SystemExit):
    """Unwinds a sync method that called `exit_actor()`."""


class Executor(Protocol):
    """Runs calls that may run now. One class for each way of running them."""

    def start(self, call: Call) -> None:
        """Run the call soon; from any thread, never waits."""

    def interrupt(self, call: Call) -> None:
        """Ask the running call to stop, as far as this kind of executor can."""

    def stop(self) -> None:
        """Let what runs come to its end, take nothing new."""


Finished = Callable[[Call], Call | None]
"""An executor reports that a call has ended, and gets the next one to run in its place."""
