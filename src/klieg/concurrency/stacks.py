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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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

_WAITED_WITH: Final = frozenset({"threading", "selectors", "queue"})
"""Modules in whose functions klieg's own threads sleep."""

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
        lines.append(f"  waits for {name_of(child)}:")
        lines += [f"  {line}" for line in task_stack(child, level + 1)]
    if len(children) > CHILDREN:
        lines.append(f"  and for {len(children) - CHILDREN} more")
    return lines


def awaited_by(task: asyncio.Task[Any], level: int = 0) -> Iterator[asyncio.Task[Any]]:
    """The tasks that a suspended task waits for, and those that they wait for."""
    if level < NESTED:
        for child in _children(*awaited_frames(task.get_coro())):
            yield child
            yield from awaited_by(child, level + 1)


def _children(frames: Frames, awaited: Any) -> list[asyncio.Task[Any]]:
    """The unfinished tasks that the end of an await stack waits for."""
    waited: Iterable[Any] = ()
    if isinstance(awaited, asyncio.Task):
        waited = (awaited,)
    elif hasattr(awaited, "_children"):  # of `gather`
        waited = awaited._children
    elif frames and _module(frames[-1]) == "asyncio.tasks":  # `asyncio.wait`, 3.11's `wait_for`
        waited = frames[-1].f_locals.get("fs") or (frames[-1].f_locals.get("fut"),)
    elif frames and _module(frames[-1]) == "asyncio.taskgroups":
        waited = getattr(frames[-1].f_locals.get("self"), "_tasks", ())
    return [child for child in list(waited) if isinstance(child, asyncio.Task) and not child.done()]


def name_of(task: asyncio.Task[Any]) -> str:
    return f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', 'unknown')})"


def loop_stack(thread: int) -> list[types.FrameType]:
    """The frames of what an event loop runs now on its thread, without the loop's own; empty if it runs nothing."""
    frames = thread_frames(thread)
    while frames and not _is_loops(frames[0]):  # what has started the loop
        frames.pop(0)
    while frames and _is_loops(frames[0]):
        frames.pop(0)
    return without_own(frames)


def frames_by_call(runners: Collection[types.CodeType]) -> dict[Any, list[types.FrameType]]:
    """For each thread that is inside one of the runners, a function of a `call`: that call and the frames below it."""
    found: dict[Any, list[types.FrameType]] = {}
    for ident in list(sys._current_frames()):
        frames = thread_frames(ident)
        for index, frame in enumerate(frames):
            if frame.f_code in runners and (call := frame.f_locals.get("call")) is not None:
                found[call] = frames[index:]
    return found


def tasks_of(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """The loop's unfinished tasks, asked from any thread."""
    try:
        return list(asyncio.all_tasks(loop))
    except RuntimeError:  # they changed too often while they were listed: the next snapshot will have them
        return []


def place(frames: Frames) -> tuple[tuple[types.CodeType, int], ...]:
    """What is equal for two stacks at the same place."""
    return tuple((frame.f_code, frame.f_lineno) for frame in frames)


def is_of_the_user(task: asyncio.Task[Any]) -> bool:
    """False for a task that asyncio has made around something that somebody waits for."""
    return any(not _is_loops(frame) for frame in awaited_frames(task.get_coro())[0])


def place_of(task: asyncio.Task[Any]) -> tuple[tuple[types.CodeType, int], ...]:
    return place(awaited_frames(task.get_coro())[0])


def thread_frames(thread: int) -> list[types.FrameType]:
    """The frames of a thread, the outermost first; empty if it has ended."""
    frame = sys._current_frames().get(thread)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def thread_stacks(without: Collection[types.CodeType] = ()) -> list[dict[str, Any]]:
    """{name, stack as lines} of every thread of this process but those inside one of these functions.

    klieg's own frames around the user's are left out, and what starts threads; so the stack of a thread that runs
    nothing of the user's is empty.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    threads = {ident: thread_frames(ident) for ident in list(sys._current_frames())}
    return [
        {"name": names.get(ident, f"thread {ident}"), "stack": format_frames(_of_the_user(frames))}
        for ident, frames in threads.items()
        if not any(frame.f_code in without for frame in frames)
    ]


def _of_the_user(frames: list[types.FrameType]) -> list[types.FrameType]:
    start = 0
    if len(frames) > 1 and _is_own(frames[1]):  # the line with which the head's process began, and so a worker's
        start = 1
    while start < len(frames) and (_is_loops(frames[start]) or _module(frames[start]) == "threading"):
        start += 1
    return without_own(frames[start:])


def format_frames(frames: Frames) -> list[str]:
    """Lines as in a traceback, the outermost frame first."""
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return [line.rstrip("\n") for line in summary.format()]


def _format(frames: list[types.FrameType]) -> list[str]:
    return format_frames(without_own(frames))


def without_own(frames: list[types.FrameType]) -> list[types.FrameType]:
    """Without klieg's frames around the user's: those at the top, which run the call, and at the end, which wait."""
    start, end = 0, len(frames)
    while start < end and _is_own(frames[start]):
        start += 1
    sleeps = end
    while start < sleeps and _module(frames[sleeps - 1]) in _WAITED_WITH:
        sleeps -= 1
    if start < sleeps and _is_own(frames[sleeps - 1]):
        end = sleeps
    while start < end and _is_own(frames[end - 1]):
        end -= 1
    return frames[start:end]


def _module(frame: types.FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


def _is_loops(frame: types.FrameType) -> bool:
    return _module(frame).startswith(("asyncio.", "klieg.", "selectors"))


def _is_own(frame: types.FrameType) -> bool:
    return _module(frame).startswith("klieg.")
