"""Where threads and suspended coroutines are: stacks as text, read from another thread without stopping anybody.

A thread's stack is what Python keeps of it. A suspended coroutine has none; it is followed along what each frame
awaits (`cr_await`, `ag_await`, `gi_yieldfrom`) down to the future that nobody has resolved yet, and from a future that
is itself a task, a `gather` or a group of tasks into those.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

DEEPEST: Final = 200
"""Frames of one coroutine that are followed: a chain that changes under the reader must not keep it for ever."""

NESTED: Final = 5
"""Levels of tasks that wait for tasks that are shown."""

CHILDREN: Final = 5
"""Tasks of one `gather`, `wait` or group that are shown; of the others only the number."""

EXPLAIN: Final[dict[types.CodeType, Callable[[types.FrameType], str]]] = {}
"""For frames of klieg's own that wait for something: what they wait for, in words."""

_STEPS: Final = (
    ("cr_frame", "cr_await"),
    ("ag_frame", "ag_await"),
    ("gi_frame", "gi_yieldfrom"),
)

Frames = Sequence[types.FrameType]


def awaited_frames(awaitable: Any) -> tuple[list[types.FrameType], Any]:
    """The frames of a suspended coroutine from the outside in, and what the innermost one waits for."""
    frames: list[types.FrameType] = []
    while awaitable is not None and len(frames) < DEEPEST:
        for frame_name, next_name in _STEPS:
            frame = getattr(awaitable, frame_name, None)
            if frame is not None:
                frames.append(frame)
                awaitable = getattr(awaitable, next_name)
                break
        else:
            inner = _unwrapped(awaitable)
            if inner is None:
                break
            awaitable = inner
    return frames, awaitable


def _unwrapped(awaitable: Any) -> Any:
    """What is inside one of the iterators that C code puts around a coroutine, an async generator or a future."""
    if isinstance(awaitable, asyncio.Future):
        return None
    inner = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType, asyncio.Future)
    return next((found for found in gc.get_referents(awaitable) if isinstance(found, inner)), None)


def task_stack(task: asyncio.Task[Any], level: int = 0) -> list[str]:
    """The await stack of a suspended task as lines, the outermost frame first, and below it what it waits for."""
    frames, awaited = awaited_frames(task.get_coro())
    lines = _format(frames)
    if frames and frames[-1].f_code in EXPLAIN:
        return [*lines, f"  waits for {EXPLAIN[frames[-1].f_code](frames[-1])}"]
    children = _children(frames, awaited)
    if not children:
        return lines
    if level >= NESTED:
        return [*lines, f"  waits for {len(children)} tasks"]
    for child in children[:CHILDREN]:
        lines.append(f"  waits for {_name(child)}:")
        lines += [f"  {line}" for line in task_stack(child, level + 1)]
    if len(children) > CHILDREN:
        lines.append(f"  and for {len(children) - CHILDREN} more")
    return lines


def _children(frames: Frames, awaited: Any) -> list[asyncio.Task[Any]]:
    """The unfinished tasks that the end of an await stack waits for."""
    waited: Iterable[Any] = ()
    if isinstance(awaited, asyncio.Task):
        waited = (awaited,)
    elif hasattr(awaited, "_children"):  # of `gather`
        waited = awaited._children
    elif frames and frames[-1].f_globals.get("__name__") == "asyncio.tasks":  # `asyncio.wait`, 3.11's `wait_for`
        waited = frames[-1].f_locals.get("fs") or (frames[-1].f_locals.get("fut"),)
    elif frames and frames[-1].f_globals.get("__name__") == "asyncio.taskgroups":
        waited = getattr(frames[-1].f_locals.get("self"), "_tasks", ())
    return [child for child in list(waited) if isinstance(child, asyncio.Task) and not child.done()]


def _name(task: asyncio.Task[Any]) -> str:
    return f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', 'unknown')})"


def loop_stack(thread: int) -> list[types.FrameType]:
    """The frames of what an event loop runs now on its thread, without the loop's own; empty if it runs nothing."""
    frames = thread_frames(thread)
    while frames and not _is_loops(frames[0]):  # what has started the loop
        frames.pop(0)
    while frames and _is_loops(frames[0]):
        frames.pop(0)
    return _without_own(frames)


def call_stack(runner: Callable[..., Any], call: Any) -> list[str]:
    """Where the thread is that runs `runner(call)`, without what is around the user's code."""
    for ident in list(sys._current_frames()):
        frames = thread_frames(ident)
        for index, frame in enumerate(frames):
            if frame.f_code is runner.__code__ and frame.f_locals.get("call") is call:
                return _format(frames[index:])
    return []


def thread_frames(thread: int) -> list[types.FrameType]:
    """The frames of a thread, the outermost first; empty if it has ended."""
    frame = sys._current_frames().get(thread)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def thread_stacks() -> list[tuple[str, list[str]]]:
    """(name, stack as lines) of every thread of this process but the one that asks."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    me = threading.get_ident()
    return [
        (names.get(ident, f"thread {ident}"), format_frames(thread_frames(ident)))
        for ident in list(sys._current_frames())
        if ident != me
    ]


def format_frames(frames: Frames) -> list[str]:
    """Lines as in a traceback, the outermost frame first."""
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return [line.rstrip("\n") for line in summary.format()]


def _format(frames: list[types.FrameType]) -> list[str]:
    return format_frames(_without_own(frames))


def _without_own(frames: list[types.FrameType]) -> list[types.FrameType]:
    """Without klieg's frames around the user's: those at the top, which run the call, and at the end, which wait."""
    start, end = 0, len(frames)
    while start < end and _is_own(frames[start]):
        start += 1
    while start < end and _is_own(frames[end - 1]):
        end -= 1
    return frames[start:end]


def _is_loops(frame: types.FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith(("asyncio.", "klieg.", "selectors"))


def _is_own(frame: types.FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith("klieg.")
