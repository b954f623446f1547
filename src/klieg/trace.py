"""`klieg.timeline()`: what ran when in every process, as a trace that a browser shows (chrome://tracing, Perfetto)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from klieg import engine, ids

TIMEOUT: Final = 30.0
"""Seconds that processes get to hand over what they have recorded."""

logger = logging.getLogger("klieg")

Event = dict[str, Any]


def timeline(filename: str | os.PathLike[str] | None = None) -> list[Event] | None:
    """What ran when since `init(profiling=True)`, or RAY_PROFILING=1, or `klieg timeline --seconds`: a Chrome trace.

    Each call is queued from when it was made until it starts, running until it ends, and waiting meanwhile whenever it
    is in `get` or `wait`, or suspended in an `await`; the three are categories of their own. A process keeps its last
    100,000 events; a worker that was killed keeps none.

    Args:
        filename: where to write the trace as JSON; None: return it.

    Raises SystemError_ if klieg is not running.
    """
    replies, silent = engine.current().survey("timeline", {}, TIMEOUT)
    if not any(reply["recording"] for reply in replies):
        logger.warning("Nothing was recorded for the timeline: `init(profiling=True)` or RAY_PROFILING=1 turns it on.")
    for one in silent:
        logger.warning("The timeline lacks %s (pid %d), which does not answer.", one["title"], one["pid"])
    events = chrome_trace(replies)
    if filename is None:
        return events
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None


def chrome_trace(replies: Sequence[Mapping[str, Any]]) -> list[Event]:
    """The trace, from what each process has recorded: {"pid", "title", "events"}."""
    submitted = _submissions(replies)
    begin = min((moment for moment, _, _ in submitted.values()), default=None)
    starts = [event[3] for reply in replies for event in reply["events"] if event[0] == "run"]
    origin = min([*starts, *([] if begin is None else [begin])], default=0.0)
    return [event for reply in replies for event in _Process(reply, submitted, origin).trace()]


Submissions = Mapping[int, tuple[float, int, int]]


def _submissions(replies: Sequence[Mapping[str, Any]]) -> Submissions:
    """For each call when it was made, by which call, and in which process."""
    return {
        event[1]: (event[2], event[3], reply["pid"])
        for reply in replies
        for event in reply["events"]
        if event[0] == "submit"
    }


class _Process:
    """What one process has recorded, on its way into the trace."""

    def __init__(self, reply: Mapping[str, Any], submitted: Submissions, origin: float) -> None:
        self._reply = reply
        self._submitted = submitted
        self._origin = origin
        self._threads: dict[str, int] = {}
        self._on_loop = {event[1] for event in reply["events"] if event[0] == "run" and event[6]}
        self._names = {event[1]: event[2] for event in reply["events"] if event[0] == "run"}

    def trace(self) -> Iterator[Event]:
        yield {"ph": "M", "name": "process_name", "pid": self._reply["pid"], "args": {"name": self._reply["title"]}}
        for event in self._reply["events"]:
            if event[0] == "run":
                yield from self._run(*event[1:])
            elif event[0] == "wait":
                yield from self._wait(*event[1:])
        for thread, number in self._threads.items():
            yield {"ph": "M", "name": "thread_name", "pid": self._reply["pid"], "tid": number, "args": {"name": thread}}

    def _run(self, call: int, name: str, start: float, end: float, thread: str, is_async: bool) -> Iterator[Event]:
        arguments: Event = {"task_id": _task_id(call)}
        if call in self._submitted:
            made, parent, by = self._submitted[call]
            arguments |= {"made_by_pid": by, "parent_task_id": _task_id(parent) if parent else ""}
            yield from self._span("queued", name, call, made, max(start, made), thread, arguments)
        yield from self._slice("running", name, call, start, end, thread, arguments, is_async)

    def _wait(self, call: int, start: float, end: float, thread: str) -> Iterator[Event]:
        name = self._names.get(call, "driver" if not call else "call")
        yield from self._slice("waiting", name, call, start, end, thread, {}, call in self._on_loop)

    def _slice(
        self, kind: str, name: str, call: int, start: float, end: float, thread: str, arguments: Event, is_async: bool
    ) -> Iterator[Event]:
        """On the row of its thread; calls of one loop overlap, so each has a row of its own."""
        if is_async:
            yield from self._span(kind, name, call, start, end, thread, arguments)
        else:
            yield {**self._event("X", kind, name, start, thread), "dur": _micro(end - start), "args": arguments}

    def _span(
        self, kind: str, name: str, call: int, start: float, end: float, thread: str, arguments: Event
    ) -> Iterator[Event]:
        yield {**self._event("b", kind, name, start, thread), "id": _task_id(call), "args": arguments}
        yield {**self._event("e", kind, name, end, thread), "id": _task_id(call), "args": {}}

    def _event(self, phase: str, kind: str, name: str, moment: float, thread: str) -> Event:
        return {
            "ph": phase,
            "cat": kind,
            "name": name,
            "ts": _micro(moment - self._origin),
            "pid": self._reply["pid"],
            "tid": self._threads.setdefault(thread, len(self._threads) + 1),
        }


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _task_id(number: int) -> str:
    return ids.TaskID.from_int(number).hex()
