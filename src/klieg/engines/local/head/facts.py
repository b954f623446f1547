"""What the head knows, as rows of plain values that can travel: for `klieg.util.state` and the command `klieg`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from klieg import ids
from klieg.engines.local.head.registry import ActorRecord
from klieg.placement import Place

if TYPE_CHECKING:
    from klieg.engines.local.head.head import Worker

Row = dict[str, Any]


def actor_row(actor: ActorRecord, worker: Worker | None) -> Row:
    request, placement = actor.request, actor.placement
    return {
        "actor_id": ids.ActorID.from_int(actor.number).hex(),
        "class_name": request["title"],
        "state": actor.state.value,
        "job_id": ids.JOB_ID.hex(),
        "name": request["name"] or "",
        "node_id": ids.NODE_ID.hex(),
        "pid": worker.pid if worker is not None else 0,
        "worker_id": ids.WorkerID.from_int(worker.process).hex() if worker is not None else "",
        "ray_namespace": request["namespace"],
        "is_detached": request["detached"],
        "required_resources": dict(placement.demand),
        "placement_group_id": _group_id(placement.place),
        "death_cause": actor.death,
        "num_restarts": actor.restarts,
        "owner": ids.WorkerID.from_int(request["owner"]).hex(),
    }


def worker_row(worker: Worker) -> Row:
    return {
        "worker_id": ids.WorkerID.from_int(worker.process).hex(),
        "worker_type": "WORKER",
        "state": _state_of(worker),
        "is_alive": True,
        "pid": worker.pid,
        "node_id": ids.NODE_ID.hex(),
        "actor_id": ids.ActorID.from_int(worker.actor.number).hex() if worker.actor is not None else "",
        "title": worker.actor.request["title"] if worker.actor is not None else "task",
        "resources": worker.grant.demand if worker.grant is not None else {},
        "gpus": worker.grant.gpus if worker.grant is not None else [],
        "lent": worker.grant is not None and worker.grant.lent,
        "memory": memory_of(worker.pid),
    }


def driver_row(process: int, pid: int) -> Row:
    return {
        "worker_id": ids.WorkerID.from_int(process).hex(),
        "worker_type": "DRIVER",
        "state": "DRIVER",
        "is_alive": True,
        "pid": pid,
        "node_id": ids.NODE_ID.hex(),
        "actor_id": "",
        "title": "driver",
        "resources": {},
        "gpus": [],
        "lent": False,
        "memory": memory_of(pid),
    }


def _state_of(worker: Worker) -> str:
    """ACTOR, LEASED (somebody may send it tasks), IDLE, or LEAVING."""
    if worker.leaving:
        return "LEAVING"
    if worker.actor is not None:
        return "ACTOR"
    return "LEASED" if worker.lessee else "IDLE"


def memory_of(pid: int) -> int:
    """Bytes of memory that belong to the process alone, as the kernel counts its anonymous pages; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _group_id(place: Place | None) -> str:
    return "" if place is None else ids.PlacementGroupID.from_int(place[0]).hex()


def count(rows: Iterable[Mapping[str, Any]], key: str) -> dict[str, int]:
    """How many rows there are of each value of `key`."""
    found: dict[str, int] = {}
    for row in rows:
        found[row[key]] = found.get(row[key], 0) + 1
    return found
