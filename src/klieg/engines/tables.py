"""Rows of plain values that describe a runtime: the same keys whichever engine fills them, Ray's where Ray has one."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from klieg import ids
from klieg.placement import Placement

Row = dict[str, Any]


def actor_row(
    number: int,
    *,
    class_name: str,
    state: str,
    name: str,
    namespace: str,
    pid: int,
    process: int,
    is_detached: bool,
    placement: Placement,
    death: str,
    restarts: int,
    owner: int,
) -> Row:
    return {
        "actor_id": ids.ActorID.from_int(number).hex(),
        "class_name": class_name,
        "state": state,
        "job_id": ids.JOB_ID.hex(),
        "name": name,
        "node_id": ids.NODE_ID.hex(),
        "pid": pid,
        "worker_id": _worker_id(process) if pid else "",
        "ray_namespace": namespace,
        "is_detached": is_detached,
        "required_resources": dict(placement.demand),
        "placement_group_id": "" if placement.place is None else group_id(placement.place[0]),
        "death_cause": death,
        "num_restarts": restarts,
        "owner_id": _worker_id(owner),
    }


def worker_row(
    process: int,
    *,
    kind: str,
    state: str,
    pid: int,
    title: str,
    actor: int | None = None,
    resources: Mapping[str, float] | None = None,
    gpus: Sequence[str] = (),
    lent: bool = False,
    environment: str = "",
) -> Row:
    return {
        "worker_id": _worker_id(process),
        "worker_type": kind,
        "state": state,
        "is_alive": True,
        "pid": pid,
        "node_id": ids.NODE_ID.hex(),
        "actor_id": "" if actor is None else ids.ActorID.from_int(actor).hex(),
        "title": title,
        "resources": dict(resources or {}),
        "gpus": list(gpus),
        "lent": lent,
        "runtime_env": environment,
        "memory": memory_of(pid),
    }


def node_row(total: Mapping[str, float], labels: Mapping[str, str], started: float) -> Row:
    return {
        "node_id": ids.NODE_ID.hex(),
        "node_ip": "127.0.0.1",
        "is_head_node": True,
        "state": "ALIVE",
        "node_name": socket.gethostname(),
        "resources_total": dict(total),
        "labels": {**labels, "ray.io/node-id": ids.NODE_ID.hex()},
        "start_time_ms": round(started * 1000),
    }


def job_row(pid: int, command: str, started: float) -> Row:
    return {
        "job_id": ids.JOB_ID.hex(),
        "type": "DRIVER",
        "status": "RUNNING",
        "entrypoint": command,
        "driver_pid": pid,
        "start_time": round(started * 1000),
    }


def placement_group_row(facts: Mapping[str, Any]) -> Row:
    """From the facts of `engines.placement_groups`."""
    return {
        "placement_group_id": group_id(facts["group"]),
        "name": facts["name"],
        "state": facts["state"],
        "strategy": facts["strategy"],
        "bundles": facts["bundles"],
        "stats": {"scheduling_state": "INFEASIBLE" if facts["impossible"] else facts["state"]},
        "is_infeasible_because": facts["impossible"],
    }


def memory_of(pid: int) -> int:
    """Bytes of memory that belong to the process alone: its anonymous pages, as the kernel counts them; else 0."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def count(rows: Iterable[Mapping[str, Any]], key: str) -> dict[str, int]:
    """How many rows there are of each value of `key`."""
    found: dict[str, int] = {}
    for row in rows:
        found[row[key]] = found.get(row[key], 0) + 1
    return found


def group_id(number: int) -> str:
    return ids.PlacementGroupID.from_int(number).hex()


def _worker_id(process: int) -> str:
    return ids.WorkerID.from_int(process).hex()
