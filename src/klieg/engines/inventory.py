"""What objects this process knows. They are found when somebody asks: to keep a list would cost every call."""

from __future__ import annotations

import gc
import heapq
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from klieg.engines.calls import END_OF_STREAM, StreamFuture
from klieg.engines.objects import ObjectFuture, PutFuture
from klieg.ids import UniqueID, WorkerID, process_of
from klieg.outcome import Error, Payload, Serialized

SITES: Final[weakref.WeakKeyDictionary[ObjectFuture, str]] = weakref.WeakKeyDictionary()
"""Where `put` was called, for values put while `init(record_call_sites=True)` was in force."""

Holders = Callable[[int], list[int]]
"""The other processes that hold the id."""


def inventory(process: int, holders: Holders, borrowed: Iterable[ObjectFuture] = ()) -> list[dict[str, Any]]:
    """One plain dict for each object that `process`, this one, owns or has borrowed, in the order of their ids.

    id: as `ObjectRef.hex()` gives it
    kind: "put", "result", "stream", or "borrowed" (another process's)
    state: "pending", "value" or "error"
    size: bytes of the pickle and the buffers beside it
    shared, spilled: how many of them are in shared memory, and on disk
    owner: number of the process that made the ref
    holders: numbers of the other processes that hold it
    call: name of the call that is to make it, while it is pending
    site: where `put` was called, if that was recorded
    """
    # Not `isinstance`, which asks an object for its `__class__`: users have objects that do something then.
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), ObjectFuture)]
    own = [future for future in found if process_of(getattr(future, "id", 0)) == process]
    futures = [future for future in (*own, *borrowed) if _is_an_object(future)]
    return [_describe(future, process, holders) for future in sorted(futures, key=lambda f: f.id)]


MOST: Final = 10_000
"""Objects of one process that are listed one by one, the largest; all of them are counted."""


def known_here(process: int, pid: int, objects: list[dict[str, Any]], most: int) -> dict[str, Any]:
    """What a process answers when all are asked for their objects."""
    largest = heapq.nlargest(min(most, MOST), objects, key=lambda entry: entry["size"])
    return {
        "worker_id": WorkerID.from_int(process).hex(),
        "pid": pid,
        "objects": largest,
        "count": len(objects),
        "bytes": sum(entry["size"] for entry in objects),
    }


def rows(replies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each object that a process knows, the largest first, from what the processes say; with Ray's keys."""
    found = [_row(reply, entry) for reply in replies for entry in reply["objects"]]
    return sorted(found, key=lambda row: -row["object_size"])


_STATUS: Final = {"pending": "PENDING", "value": "FINISHED", "error": "FAILED"}


def _row(reply: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object_id": entry["id"],
        "object_size": entry["size"],
        "kind": entry["kind"],
        "task_status": _STATUS[entry["state"]],
        "reference_type": "BORROWED" if entry["kind"] == "borrowed" else "OWNED",
        "call_site": entry["site"] or "",
        "made_by": entry["call"] or "",
        "pid": reply["pid"],
        "worker_id": reply["worker_id"],
        "owner_id": WorkerID.from_int(entry["owner"]).hex(),
        "holders": [WorkerID.from_int(holder).hex() for holder in entry["holders"]],
        "shared": entry["shared"],
        "spilled": entry["spilled"],
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ray's shape of a summary: objects by where they were put or, where that was not recorded, by kind. Each counts
    once, where it is owned."""
    owned = [row for row in rows if row["reference_type"] == "OWNED"]
    found: dict[str, dict[str, Any]] = {}
    for row in owned:
        place = row["call_site"] or row["kind"]
        entry = found.setdefault(place, {"total_objects": 0, "total_size_mb": 0.0, "task_state_counts": {}})
        entry["total_objects"] += 1
        entry["total_size_mb"] += row["object_size"] / 1e6
        counts = entry["task_state_counts"]
        counts[row["task_status"]] = counts.get(row["task_status"], 0) + 1
    return {
        "summary": found,
        "total_objects": len(owned),
        "total_size_mb": sum(row["object_size"] for row in owned) / 1e6,
        "callsite_enabled": any(row["call_site"] for row in owned),
        "summary_by": "callsite",
    }


def _is_an_object(future: ObjectFuture) -> bool:
    """False for futures that klieg uses for itself: constructors, ends of streams, answers to questions."""
    is_constructor = future.call is not None and future.call.spec.method == "__init__"
    return bool(future.id) and future.outcome is not END_OF_STREAM and not is_constructor


def _describe(future: ObjectFuture, process: int, holders: Holders) -> dict[str, Any]:
    outcome, call = future.outcome, future.call
    size, shared, spilled = _sizes(outcome.payload) if outcome is not None else (0, 0, 0)
    state = "pending" if outcome is None else "error" if isinstance(outcome, Error) else "value"
    return {
        "id": UniqueID.from_int(future.id).hex(),
        "kind": _kind(future, process),
        "state": state,
        "size": size,
        "shared": shared,
        "spilled": spilled,
        "owner": process_of(future.id),
        "holders": holders(future.id),
        "call": call.spec.name if call is not None else None,
        "site": SITES.get(future),
    }


def _kind(future: ObjectFuture, process: int) -> str:
    if process_of(future.id) != process:
        return "borrowed"
    if isinstance(future, StreamFuture):
        return "stream"
    return "put" if isinstance(future, PutFuture) else "result"


def _sizes(payload: Serialized) -> tuple[int, int, int]:
    """Bytes in all, in shared memory, and on disk."""
    if not isinstance(payload, Payload):
        return len(payload), 0, 0
    parts = [payload.data, *payload.buffers]
    places = [(len(part), getattr(part, "where", "")) for part in parts]
    shared = sum(size for size, where in places if where == "memory")
    return sum(size for size, _ in places), shared, sum(size for size, where in places if where == "disk")
