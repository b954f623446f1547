"""What objects this process knows. They are found when somebody asks: to keep a list would cost every call."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, Final

from klieg.engines.calls import END_OF_STREAM, StreamFuture
from klieg.engines.objects import ObjectFuture, PutFuture
from klieg.ids import UniqueID, process_of
from klieg.outcome import Error, Payload, Serialized

SITES: Final[weakref.WeakKeyDictionary[ObjectFuture, str]] = weakref.WeakKeyDictionary()
"""Where `put` was called, for values put while `init(record_call_sites=True)` was in force."""

Holders = Callable[[int], list[int]]
"""The other processes that hold the id."""


def inventory(process: int, holders: Holders) -> list[dict[str, Any]]:
    """One plain dict for each object whose future lives in this process, in the order of their ids.

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
    futures = [f for f in gc.get_objects() if isinstance(f, ObjectFuture) and _is_an_object(f)]
    return [_describe(future, process, holders) for future in sorted(futures, key=lambda f: f.id)]


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
