"""What there is in the runtime: actors, tasks, objects, workers, nodes, jobs, placement groups, and what was printed.

The answers are klieg's own tables, taken when somebody asks: nothing is kept for it and no server runs. Each row is an
object with attributes, which can also be read as `row["name"]` and as a dictionary by `row.asdict()`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from klieg import session
from klieg.engines import inventory, task_table
from klieg.exceptions import GetTimeoutError

Filter = tuple[str, str, Any]
"""(key, "=" or "!=", value)"""

LIMIT: Final = 100
"""Rows that a list has if not told otherwise, as in Ray."""

TIMEOUT: Final = 30.0
"""Seconds that processes get to answer; they need milliseconds, unless they are stopped."""


class State(Mapping[str, Any]):
    """One row: its values are attributes and items."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = dict(row)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_row"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self._row)}") from None

    def __getitem__(self, name: str) -> Any:
        return self._row[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __dir__(self) -> Iterator[str]:
        return iter([*self._row, "asdict"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._row.items())})"

    def asdict(self) -> dict[str, Any]:
        return dict(self._row)


class ActorState(State):
    """actor_id, class_name, state (PENDING_CREATION, ALIVE, RESTARTING, DEAD), name, ray_namespace, pid, worker_id,
    required_resources, placement_group_id, is_detached, death_cause, num_restarts, owner_id."""


class TaskState(State):
    """task_id, name, func_or_class_name, type (NORMAL_TASK, ACTOR_TASK), state (PENDING_ARGS_AVAIL,
    PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING), running_for (seconds), actor_id, parent_task_id, caller_id,
    worker_id, worker_pid, required_resources, placement_group_id. A task that has its outcome is no longer listed."""


class ObjectState(State):
    """object_id, object_size (bytes), kind (put, result, stream, borrowed), task_status (PENDING, FINISHED, FAILED),
    reference_type (OWNED, BORROWED), call_site (of `put`, with `init(record_call_sites=True)`), made_by (the call that
    is to make it), pid and worker_id of the process that knows it, owner_id, holders (worker ids of the others that
    hold it), shared and spilled (how many of its bytes are in shared memory, and on disk)."""


class WorkerState(State):
    """worker_id, worker_type (DRIVER, WORKER), state (ACTOR, LEASED, IDLE, LEAVING), pid, title, actor_id, resources,
    gpus, lent (True while it waits and its CPUs are lent), memory (bytes that are its own)."""


class NodeState(State):
    """node_id, node_ip, node_name, state, resources_total, labels, start_time_ms."""


class JobState(State):
    """job_id, type, status, entrypoint, driver_pid, start_time."""


class PlacementGroupState(State):
    """placement_group_id, name, state, strategy, bundles, stats, is_infeasible_because."""


class RuntimeEnvState(State):
    """runtime_env, workers (how many have it)."""


def list_actors(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ActorState]:
    """The actors, dead ones too.

    Args:
        filters: (key, "=" or "!=", value): all of them must hold; text is compared without regard to case.
        limit: rows at most.
        timeout: seconds that processes get to answer.
        raise_on_missing_output: GetTimeoutError if some have not; False: what the others say.
        address, detail: accepted; there is one runtime, and every row has all details.
    """
    return [ActorState(row) for row in select(session.running_engine().table("actors"), filters, limit)]


def list_tasks(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[TaskState]:
    """The calls of functions and methods that have no outcome yet; see `list_actors` for the arguments."""
    rows = task_table.merged(_survey("calls", {}, timeout, raise_on_missing_output))
    return [TaskState(row) for row in select(rows, filters, limit)]


def list_objects(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[ObjectState]:
    """The objects that each process knows, the largest first; one that several know has a row for each of them.

    See `list_actors` for the arguments."""
    rows = inventory.rows(_survey("objects", {}, timeout, raise_on_missing_output))
    return [ObjectState(row) for row in select(rows, filters, limit)]


def list_workers(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[WorkerState]:
    """The processes of the runtime, the driver first; see `list_actors`."""
    return [WorkerState(row) for row in select(session.running_engine().table("workers"), filters, limit)]


def list_nodes(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[NodeState]:
    """The machines: one; see `list_actors`."""
    return [NodeState(row) for row in select(session.running_engine().table("nodes"), filters, limit)]


def list_jobs(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[JobState]:
    """The programs that use this runtime: one; see `list_actors`."""
    return [JobState(row) for row in select(session.running_engine().table("jobs"), filters, limit)]


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[PlacementGroupState]:
    """The placement groups, removed ones too; see `list_actors`."""
    rows = session.running_engine().table("placement_groups")
    return [PlacementGroupState(row) for row in select(rows, filters, limit)]


def list_runtime_envs(
    address: str | None = None,
    filters: Sequence[Filter] | None = None,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = True,
) -> list[RuntimeEnvState]:
    """The runtime environments of living workers; see `list_actors`."""
    counts: dict[str, int] = {}
    for row in session.running_engine().table("workers"):
        counts[row["runtime_env"]] = counts.get(row["runtime_env"], 0) + 1
    rows = [{"runtime_env": text, "workers": count} for text, count in counts.items() if text]
    return [RuntimeEnvState(row) for row in select(rows, filters, limit)]


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: float = TIMEOUT,
) -> dict[str, list[str]]:
    """Whose last lines `get_log` can give: {"worker_out": ["title-pid", ...]}. klieg writes no log files."""
    names = [_log_name(reply) for reply in _survey("lines", {"most": 0}, timeout, False)]
    return {"worker_out": fnmatch.filter(names, glob_filter or "*")}


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: float = TIMEOUT,
) -> Iterator[str]:
    """The last lines that a living worker has printed, each with its line end.

    Args:
        filename: as `list_logs` gives it; or name the worker by actor_id, task_id or pid.
        tail: lines at most; -1: the 1,000 that are remembered.
        follow: not offered: lines are in the driver's own output as they come.

    Raises ValueError if no worker fits.
    """
    if follow:
        raise ValueError("follow=True is not offered: what workers print is in the driver's own output as it comes.")
    wanted = _worker_of(actor_id, task_id) if actor_id or task_id else None
    for reply in _survey("lines", {"most": tail} if tail >= 0 else {}, timeout, False):
        if (
            wanted in (None, reply["worker_id"])
            and pid in (None, reply["pid"])
            and filename in (None, _log_name(reply))
        ):
            return (f"{line}\n" for line in reply["lines"])
    raise ValueError("No living worker fits; `list_logs()` names them.")


def get_actor(id: str, address: str | None = None, timeout: float = TIMEOUT) -> ActorState | None:
    """The actor with that id; None if it is not known."""
    return next((row for row in list_actors(limit=_ALL) if row.actor_id == id), None)


def get_task(id: Any, address: str | None = None, timeout: float = TIMEOUT) -> TaskState | None:
    """The call with that id, or of that ref; None if it has its outcome or is not known."""
    wanted = id if isinstance(id, str) else id.task_id().hex()
    return next((row for row in list_tasks(limit=_ALL, timeout=timeout) if row.task_id == wanted), None)


def get_objects(id: str, address: str | None = None, timeout: float = TIMEOUT) -> list[ObjectState]:
    """What each process knows of the object with that id, as `ref.hex()` gives it."""
    return [row for row in list_objects(limit=_ALL, timeout=timeout) if row.object_id == id]


def get_worker(id: str, address: str | None = None, timeout: float = TIMEOUT) -> WorkerState | None:
    """The process with that worker id; None if it is not known."""
    return next((row for row in list_workers(limit=_ALL) if row.worker_id == id), None)


def get_node(id: str, address: str | None = None, timeout: float = TIMEOUT) -> NodeState | None:
    """The machine with that id; None if it is not known."""
    return next((row for row in list_nodes() if row.node_id == id), None)


def get_job(id: str, address: str | None = None, timeout: float = TIMEOUT) -> JobState | None:
    """The program with that id; None if it is not known."""
    return next((row for row in list_jobs() if row.job_id == id), None)


def get_placement_group(id: str, address: str | None = None, timeout: float = TIMEOUT) -> PlacementGroupState | None:
    """The placement group with that id; None if it is not known."""
    return next((row for row in list_placement_groups(limit=_ALL) if row.placement_group_id == id), None)


def summarize_tasks(
    address: str | None = None, timeout: float = TIMEOUT, raise_on_missing_output: bool = True
) -> dict[str, Any]:
    """How many calls of each function and method are under way, by state; all are counted, however many."""
    return {"cluster": task_summary(_survey("calls", {"most": 0}, timeout, raise_on_missing_output))}


def summarize_actors(
    address: str | None = None, timeout: float = TIMEOUT, raise_on_missing_output: bool = True
) -> dict[str, Any]:
    """How many actors of each class there are, by state."""
    return {"cluster": actor_summary(session.running_engine().table("actors"))}


def summarize_objects(
    address: str | None = None, timeout: float = TIMEOUT, raise_on_missing_output: bool = True
) -> dict[str, Any]:
    """How many objects there are and how large they are, by where they were put, if that was recorded, or by kind."""
    return {"cluster": inventory.summary(inventory.rows(_survey("objects", {}, timeout, raise_on_missing_output)))}


_ALL: Final = 1 << 62


def select(rows: Sequence[Mapping[str, Any]], filters: Sequence[Filter] | None, limit: int) -> list[Mapping[str, Any]]:
    """The rows that pass all filters, `limit` at most. ValueError for a filter that makes no sense."""
    if limit < 0:
        raise ValueError(f"limit must be at least 0, not {limit}.")
    found = list(rows)
    for one in filters or ():
        key, operator, value = one
        if operator not in ("=", "!="):
            raise ValueError(f"A filter is (key, '=' or '!=', value), not {one!r}.")
        if found and key not in found[0]:
            raise ValueError(f"There is no {key!r} to filter by; there are {', '.join(found[0])}.")
        found = [row for row in found if (_text(row[key]) == _text(value)) == (operator == "=")]
    return found[:limit]


def _text(value: Any) -> str:
    return str(value).lower()


def task_summary(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ray's shape of a summary, from what each process says of its calls."""
    summary = task_table.counted(replies)
    totals = {kind: _total(summary, kind) for kind in ("NORMAL_TASK", "ACTOR_TASK")}
    return {
        "summary": summary,
        "total_tasks": totals["NORMAL_TASK"],
        "total_actor_tasks": totals["ACTOR_TASK"],
        "summary_by": "func_name",
    }


def _total(summary: Mapping[str, Any], kind: str) -> int:
    return sum(sum(entry["state_counts"].values()) for entry in summary.values() if entry["type"] == kind)


def actor_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ray's shape of a summary, from the table of actors."""
    summary: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = summary.setdefault(row["class_name"], {"class_name": row["class_name"], "state_counts": {}})
        entry["state_counts"][row["state"]] = entry["state_counts"].get(row["state"], 0) + 1
    return {"summary": summary, "total_actors": len(rows), "summary_by": "class"}


def _survey(question: str, details: Mapping[str, Any], timeout: float, complete: bool) -> list[Any]:
    replies, silent = session.running_engine().survey(question, details, timeout)
    if silent and complete:
        who = ", ".join(f"{one['title']} (pid {one['pid']})" for one in silent)
        raise GetTimeoutError(
            f"No answer within {timeout} s from {who}. raise_on_missing_output=False gives what the others say."
        )
    return replies


def _worker_of(actor_id: str | None, task_id: str | None) -> str:
    found = get_actor(actor_id) if actor_id else get_task(task_id)
    return str(found.worker_id) if found is not None and found.worker_id else "none"


def _log_name(reply: Mapping[str, Any]) -> str:
    return f"{reply['title']}-{reply['pid']}"
