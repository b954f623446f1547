"""`klieg.dump()`: what every process of the runtime is doing, as text for a person who asks why it hangs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from klieg import engine, ids
from klieg.concurrency.waits import Waits, confirmed

TIMEOUT: Final = 2.0
"""Seconds a process gets to answer: it needs milliseconds, unless it is stopped or C code holds its GIL."""


def dump(timeout: float = TIMEOUT) -> str:
    """What every process of the runtime is doing, as text.

    First, calls that wait for one another in a circle. For each actor: its concurrency groups, with those that are
    full; every running call with its age and its stack, the await stack of a suspended one included; tasks in the
    background; the threads. For each process: whose results it waits for, and what has become of those calls. Nothing
    is stopped for it. A process that does not answer, since it is stopped or C code holds its GIL, is named with its
    state, and with its stacks if they can be had.

    Args:
        timeout: seconds to wait for the answers.

    Raises SystemError_ if klieg is not running.
    """
    running = engine.current()
    return describe(lambda: running.snapshot(timeout))


def describe(look: Callable[[], Sequence[Mapping[str, Any]]]) -> str:
    """The text of what `look` gives, which is `Engine.snapshot`. A circle of waits is looked at twice."""
    processes = look()
    waits = _waits(processes)
    circles = confirmed(waits, _waits(look())) if waits.circles() else []
    return "\n".join([*(f"{waits.describe(circle)}\n" for circle in circles), render(processes)])


def _waits(processes: Sequence[Mapping[str, Any]]) -> Waits:
    return Waits(process["waits"] for process in processes if "waits" in process)


def render(processes: Sequence[Mapping[str, Any]]) -> str:
    """The text of what `Engine.snapshot` gives."""
    whereabouts = _Whereabouts.of(processes)
    parts = [_silent(p["silent"]) if "silent" in p else _process(p, whereabouts) for p in processes]
    return "\n".join(line for lines in parts for line in [*lines, ""])


@dataclasses.dataclass(frozen=True)
class _Whereabouts:
    """Which calls run where, so that those who wait for them can be told."""

    running: Mapping[int, str]
    """Number of a call to the process it runs in."""
    actors: Mapping[str, int]
    """Hex id of an actor to the process it lives in."""

    @classmethod
    def of(cls, processes: Sequence[Mapping[str, Any]]) -> _Whereabouts:
        running: dict[int, str] = {}
        actors: dict[str, int] = {}
        for process in processes:
            for actor in process.get("actors", ()):
                actors[_hex(actor["id"])] = process["pid"]
                for place in actor["running"]:
                    running.update(dict.fromkeys(place["numbers"], f"runs in pid {process['pid']}"))
        return cls(running, actors)

    def tell(self, entry: Mapping[str, Any]) -> str:
        """What has become of the calls of an entry of `outgoing`."""
        if entry["where"]:
            return str(entry["where"])
        found = Counter(self.running.get(number, "sent, not running") for number in entry["numbers"])
        if len(found) == 1:
            return next(iter(found))
        return ", ".join(f"{count} {what}" for what, count in found.most_common())


def _process(process: Mapping[str, Any], whereabouts: _Whereabouts) -> Iterator[str]:
    if process["driver"]:
        yield f"== driver, pid {process['pid']}"
    for actor in process["actors"]:
        yield from _actor(actor, process["pid"])
    if process["outgoing"]:
        yield "   waits for:"
        for entry in process["outgoing"]:
            yield _outgoing(entry, whereabouts)
    for thread in process["threads"]:
        if thread["stack"]:
            yield f"   thread {thread['name']}:"
            yield from _indented(thread["stack"])


def _actor(actor: Mapping[str, Any], pid: int) -> Iterator[str]:
    yield f"== {_title(actor)}, pid {pid}"
    if not actor["constructed"]:
        yield "   its constructor has not returned"
    if actor["exiting"]:
        yield f"   it exits: {actor['exiting']}"
    if not actor["tasks"]:
        for name, group in actor["groups"].items():
            yield f"   group {name}: {_group(group)}"
    for place in actor["running"]:
        yield f"   {_label(place)} in group {place['group']}, for {place['oldest']:.1f} s:"
        yield from _indented(place["stack"])
    if actor["unseen"]:
        yield f"   and {actor['unseen']} running calls that were not looked at"
    for place in actor["background"]:
        by = f", started by {place['by']}" if place["by"] else ""
        yield f"   in the background: {place['name']}{by}{_times(place['count'])}:"
        yield from _indented(place["stack"])


def _title(actor: Mapping[str, Any]) -> str:
    if actor["tasks"]:
        return "worker of tasks"
    named = f" named {actor['actor_name']!r}" if actor["actor_name"] else ""
    return f"Actor({actor['name']}, {_hex(actor['id'])}){named}, {actor['mode']}"


def _group(group: Mapping[str, Any]) -> str:
    text = f"{group['running']} of {group['limit']} running, {group['queued']} queued"
    if not group["queued"]:
        return text
    more = group["queued"] - len(group["waiting"])
    full = " FULL" if group["running"] >= group["limit"] else ""
    return f"{text}{full}; next: {', '.join(group['waiting'])}{f' and {more} more' if more > 0 else ''}"


def _label(place: Mapping[str, Any]) -> str:
    more = place["count"] - len(place["labels"])
    return ", ".join(place["labels"]) + (f" and {more} more at the same place" if more > 0 else "")


def _outgoing(entry: Mapping[str, Any], whereabouts: _Whereabouts) -> str:
    by = f"{entry['by']} -> " if entry["by"] else ""
    return f"     {by}{entry['name']}{_times(entry['count'])} of {entry['to']}: {whereabouts.tell(entry)}"


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _silent(silent: Mapping[str, Any]) -> Iterator[str]:
    yield f"== {silent['title']}, pid {silent['pid']}: does not answer; {silent['state']}"
    if silent["stacks"]:
        yield from _indented(silent["stacks"].splitlines())


def _indented(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from (f"     {part}" for part in line.split("\n"))


def _hex(number: int) -> str:
    return ids.ActorID.from_int(number).hex()
