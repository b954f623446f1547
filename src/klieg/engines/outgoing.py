"""What a process waits for: the calls it has made that have no outcome yet, as plain values that can travel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from klieg.engines.calls import OutgoingCall

NUMBERS: Final = 1_000
"""Ids of calls of one kind that are listed, so that a reader can look up what has become of them."""


def outgoing(calls: Iterable[tuple[OutgoingCall, str, str]]) -> list[dict[str, Any]]:
    """(call, to whom, where it is) grouped by what is equal: {name, to, where, by, count, numbers}."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for call, to, where in calls:
        parent = call.parent
        by = "" if parent is None else parent.label
        entry = found.setdefault(
            (call.spec.name, to, where, by),
            {"name": call.spec.name, "to": to, "where": where, "by": by, "count": 0, "numbers": []},
        )
        entry["count"] += 1
        if entry["count"] <= NUMBERS:
            entry["numbers"].append(call.id)
    return list(found.values())
