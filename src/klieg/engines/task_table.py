"""Which calls are under way, from what each process knows: who made a call knows it, who runs it says so. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from klieg import ids
from klieg.concurrency.call import State
from klieg.engines.calls import OutgoingCall

Row = dict[str, Any]

SENT: Final = "SUBMITTED_TO_WORKER"
RUNNING: Final = "RUNNING"

_STATES: Final = {
    "": SENT,
    "waits for a worker": "PENDING_NODE_ASSIGNMENT",
    "waits for resources": "PENDING_NODE_ASSIGNMENT",
}
"""Ray's names for where a call can be; anything else waits for its arguments, its turn or its actor."""

MOST: Final = 10_000
"""Calls of one process that are listed one by one; all of them are counted."""


def made_here(process: int, calls: Iterable[tuple[OutgoingCall, str, str]], most: int) -> dict[str, Any]:
    """The calls that a process has made and that have no outcome: rows of the first ones, and counts of all."""
    rows: list[Row] = []
    counts: Counter[tuple[str, str, str]] = Counter()
    for call, _, where in calls:
        kind = "NORMAL_TASK" if call.spec.function is not None else "ACTOR_TASK"
        state = _STATES.get(where, "PENDING_ARGS_AVAIL")
        counts[call.spec.name, kind, state] += 1
        if len(rows) < min(most, MOST):
            rows.append(_row(process, call, kind, state))
    return {"rows": rows, "counts": [[*key, count] for key, count in counts.items()]}


def running_here(process: int, pid: int, hosts: Iterable[Any], most: int) -> dict[str, Any]:
    """The calls that run in a process now: (number, name, kind, seconds) of the first ones, and counts of all."""
    running: list[list[Any]] = []
    counts: Counter[tuple[str, str]] = Counter()
    for host in hosts:
        kind = "NORMAL_TASK" if host.runs_tasks else "ACTOR_TASK"
        for call in [call for call in list(host.calls.values()) if call.state is State.RUNNING]:
            counts[call.spec.name, kind] += 1
            if len(running) < min(most, MOST):
                running.append([call.number, round(host.clock() - call.started, 6)])
    worker = ids.WorkerID.from_int(process).hex()
    return {"worker_id": worker, "pid": pid, "running": running, "running_counts": [[*k, n] for k, n in counts.items()]}


def _row(process: int, call: OutgoingCall, kind: str, state: str) -> Row:
    spec, placement = call.spec, call.spec.function.placement if call.spec.function is not None else None
    return {
        "task_id": ids.TaskID.from_int(call.id).hex(),
        "name": spec.name,
        "func_or_class_name": spec.function.name if spec.function is not None else spec.name,
        "type": kind,
        "state": state,
        "running_for": None,
        "job_id": ids.JOB_ID.hex(),
        "actor_id": ids.ActorID.from_int(call.keep.id).hex() if call.keep is not None else "",
        "parent_task_id": ids.TaskID.from_int(call.parent.number).hex() if call.parent is not None else "",
        "caller_id": ids.WorkerID.from_int(process).hex(),
        "node_id": ids.NODE_ID.hex(),
        "worker_id": "",
        "worker_pid": 0,
        "required_resources": dict(placement.demand) if placement is not None else {},
        "placement_group_id": _group_id(placement.place[0]) if placement is not None and placement.place else "",
    }


def _group_id(number: int) -> str:
    return ids.PlacementGroupID.from_int(number).hex()


def merged(replies: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each call, from the replies of all processes."""
    where: dict[str, tuple[Mapping[str, Any], float]] = {}
    for reply in replies:
        for number, seconds in reply["running"]:
            where[ids.TaskID.from_int(number).hex()] = (reply, seconds)
    rows = []
    for row in [row for reply in replies for row in reply["rows"]]:
        found = where.get(row["task_id"])
        if found is not None:
            reply, seconds = found
            at = {"worker_id": reply["worker_id"], "worker_pid": reply["pid"], "running_for": seconds}
            row = {**row, "state": RUNNING, **at}
        rows.append(row)
    return rows


def counted(replies: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each name: {"type", "state_counts"}, of all calls, listed or not."""
    found: dict[str, dict[str, Any]] = {}
    for reply in replies:
        for name, kind, state, count in reply["counts"]:
            _add(found, name, kind, state, count)
    for reply in replies:
        for name, kind, count in reply["running_counts"]:
            moved = min(count, found.get(name, {}).get("state_counts", {}).get(SENT, 0))
            if moved:  # the rest has ended meanwhile, or its caller is gone
                _add(found, name, kind, RUNNING, moved)
                _add(found, name, kind, SENT, -moved)
    return {name: entry for name, entry in found.items() if entry["state_counts"]}


def _add(found: dict[str, dict[str, Any]], name: str, kind: str, state: str, count: int) -> None:
    counts = found.setdefault(name, {"func_or_class_name": name, "type": kind, "state_counts": {}})["state_counts"]
    counts[state] = counts.get(state, 0) + count
    if not counts[state]:
        del counts[state]
