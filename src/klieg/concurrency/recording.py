"""What ran when in this process, while somebody wants to know: submissions, runs and waits, in a ring of fixed length.

Off, it costs a call two looks at a name. The newest events are kept; times are those of the clock that all processes
of a machine share.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from klieg.concurrency.call import Call

KEPT: Final = 100_000
"""Events of one process that are kept: some 20 MB."""

Event = tuple[Any, ...]
"""("submit", call, moment, parent) · ("run", call, name, start, end, thread, is_async) · ("wait", call, start, end,
thread); a call is its number, 0 for code that is in none."""


class Recorder:
    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = KEPT) -> None:
        self.clock = clock
        self.events: deque[Event] = deque(maxlen=kept)

    def submitted(self, number: int, parent: Call | None) -> None:
        """A call was made."""
        self.events.append(("submit", number, self.clock(), parent.number if parent is not None else 0))

    def ran(self, call: Call, end: float | None = None) -> None:
        """A call has ended, or runs still and is looked at now."""
        host = call.host
        is_async = host.mode == "async" and call.spec.run_in == "loop"
        until = self.clock() if end is None else end
        thread = threading.current_thread().name
        self.events.append(("run", call.number, call.spec.name, call.started, until, thread, is_async))

    def waited(self, call: Call | None, start: float) -> None:
        """A call, or code that is in none, has waited on this thread from `start` until now."""
        number = call.number if call is not None else 0
        self.events.append(("wait", number, start, self.clock(), threading.current_thread().name))

    def watched(self, call: Call, coroutine: Coroutine[Any, Any, Any]) -> Watched:
        """The coroutine, with a note of each time it waits."""
        return Watched(self, call, coroutine)


class Watched:
    """Awaits a coroutine step by step and records how long it waits between its steps."""

    def __init__(self, recorder: Recorder, call: Call, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._recorder = recorder
        self._call = call
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            start, error = self._recorder.clock(), None
            try:
                yield waited_for
            except BaseException as thrown:  # a cancellation, most likely: the coroutine's own to handle
                error = thrown
            self._recorder.waited(self._call, start)


recorder: Recorder | None = None
"""None: nobody wants to know."""


def start() -> None:
    """Record from now on; does nothing if that is so already."""
    global recorder
    if recorder is None:
        recorder = Recorder()


def stop() -> list[Event]:
    """Record no more; returns what was recorded."""
    global recorder
    found, recorder = recorder, None
    return list(found.events) if found is not None else []
