"""What one actor is doing now, as plain values that can travel: its groups, what runs and where, what waits.

Taken from outside, by any thread, without stopping anybody; so two lines of it may be a moment apart.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final

from klieg.concurrency import stacks
from klieg.concurrency.call import RUNNING, Call
from klieg.concurrency.executors import LoopExecutor, run_sync

if TYPE_CHECKING:
    from klieg.concurrency.groups import Group
    from klieg.concurrency.host import Host

MOST_CALLS: Final = 5_000
"""Running calls whose stacks are looked at; 10 µs each."""

NAMED: Final = 3
"""Calls of those at one place that are named, the oldest ones."""

RUNNERS: Final = (run_sync.__code__, LoopExecutor._run.__code__)
"""The functions inside which a thread runs a call."""

Threads = dict[Call, list[types.FrameType]]


def snapshot_of(host: Host) -> dict[str, Any]:
    """The actor, or the worker of tasks, as JSON can carry it.

    name, id (0 for tasks), actor_name, mode, exiting (why, or None); groups: name to {queued, running, limit, waiting
    (labels)}; running: places, each {name, group, count, labels, numbers, oldest (seconds), stack (lines)}; unseen:
    running calls that were too many to look at; background: places of tasks that are no calls and that none of them
    waits for, {name, by, count, stack}.
    """
    running = [call for call in list(host.calls.values()) if call.state is RUNNING]
    awaited = {task for loop in host.loops() for call in list(loop.tasks.values()) for task in stacks.awaited_by(call)}
    return {
        "name": host.name,
        "id": host.token.id if host.token is not None else 0,
        "actor_name": host.actor_name,
        "mode": host.mode,
        "tasks": host.runs_tasks,
        "constructed": host.mailbox.is_open,
        "exiting": host.exit_reason,
        "groups": {group.name: _group(group) for group in host.mailbox.groups.values()},
        "running": _places(host, running[:MOST_CALLS]),
        "unseen": max(0, len(running) - MOST_CALLS),
        "background": _background(host, awaited),
    }


def describe_calls(host: Host, calls: Iterable[Call]) -> list[str]:
    """For each running call a line that names it, and below it where it is."""
    threads = _calls_on_threads()
    lines: list[str] = []
    for call in calls:
        _, stack = _where(host, call, threads)
        lines.append(f"  {call.label}, running for {_age(host, call):.1f} s:")
        lines += [f"  {line}" for line in stack()]
    return lines


def _group(group: Group) -> dict[str, Any]:
    waiting = list(group.waiting)
    return {
        "queued": len(waiting),
        "running": group.running,
        "limit": group.limit,
        "waiting": [call.label for call in waiting[:NAMED]],
    }


def _age(host: Host, call: Call) -> float:
    return host.clock() - call.started


def _places(host: Host, calls: list[Call]) -> list[dict[str, Any]]:
    """The running calls, those of one name at one place together, the oldest first."""
    threads = _calls_on_threads()
    found: dict[Hashable, dict[str, Any]] = {}
    for call in sorted(calls, key=lambda call: call.started):
        key, stack = _where(host, call, threads)
        place = found.get((call.spec.name, call.spec.group, key))
        if place is None:
            place = found[call.spec.name, call.spec.group, key] = {
                "name": call.spec.name,
                "group": call.spec.group,
                "count": 0,
                "labels": [],
                "numbers": [],
                "oldest": _age(host, call),
                "stack": stack(),
            }
        place["count"] += 1
        place["numbers"].append(call.number)
        if place["count"] <= NAMED:
            place["labels"].append(call.label)
    return list(found.values())


def _where(host: Host, call: Call, threads: Threads) -> tuple[Hashable, Callable[[], list[str]]]:
    """What tells the place of a running call from others, and a function that gives its stack."""
    for loop in host.loops():
        task = loop.tasks.get(call)
        if task is not None and task is not asyncio.current_task(loop.loop):
            return stacks.place_of(task), functools.partial(stacks.task_stack, task)
    frames = threads.get(call, [])
    return stacks.place(frames), functools.partial(stacks.format_frames, stacks.without_own(frames))


def _calls_on_threads() -> Threads:
    """Every call that has a thread to itself now, or a loop's thread at this moment, with the frames of that thread."""
    return stacks.frames_by_call(RUNNERS)


def _background(host: Host, awaited: set[asyncio.Task[Any]]) -> list[dict[str, Any]]:
    """The tasks on the actor's loops that are no calls and that none waits for: what calls have left behind."""
    found: dict[Hashable, dict[str, Any]] = {}
    for loop in host.loops():
        known = {*loop.tasks.values(), *awaited}
        for task in stacks.tasks_of(loop.loop):
            if task in known or task is asyncio.current_task(loop.loop) or not stacks.is_of_the_user(task):
                continue
            place = found.get(stacks.place_of(task))
            if place is None:
                place = found[stacks.place_of(task)] = {"count": 0, **_background_task(loop, task)}
            place["count"] += 1
    return list(found.values())


def _background_task(loop: LoopExecutor, task: asyncio.Task[Any]) -> dict[str, Any]:
    call = loop.call_of(task)
    return {
        "name": stacks.name_of(task),
        "by": "" if call is None else call.label,
        "stack": stacks.task_stack(task),
    }
