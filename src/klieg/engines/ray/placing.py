"""Where to run, in Ray's words: options as they were given, and klieg's placement groups as Ray's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import ray
from ray.util import placement_group as their_groups
from ray.util import scheduling_strategies as their_strategies

from klieg.engines.ray.noticeboard import Noticeboard
from klieg.placement import Placement

GROUP_ID_BYTES: Final = 18


class Groups:
    """klieg's placement groups, each of which is one of Ray's under another number."""

    def __init__(self, noticeboard: Noticeboard) -> None:
        self._noticeboard = noticeboard
        self._known: dict[int, Any] = {}

    def create(self, number: int, facts: Mapping[str, Any]) -> None:
        lifetime = "detached" if facts["detached"] else None
        group = ray.util.placement_group(facts["bundles"], facts["strategy"], facts["name"], lifetime)
        self._known[number] = group
        self._noticeboard.leave(f"group {number:x}", group)
        self._noticeboard.leave(f"group {group.id.hex()}", number)

    def find(self, number: int) -> Any:
        """Ray's group. A number that klieg has not given is Ray's own id."""
        group = self._known.get(number) or self._noticeboard.find(f"group {number:x}")
        if group is None:
            identity = ray.PlacementGroupID(number.to_bytes(GROUP_ID_BYTES, "big"))
            group = their_groups.PlacementGroup(identity)
        self._known[number] = group
        return group

    def facts(self) -> list[dict[str, Any]]:
        """What Ray knows of all groups, in klieg's words."""
        return [self._facts_of(row) for row in ray.util.placement_group_table().values()]

    def _facts_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        identity = row["placement_group_id"]
        number = self._noticeboard.find(f"group {identity}")
        return {
            "group": int(identity, 16) if number is None else number,
            "name": row["name"],
            "bundles": [row["bundles"][index] for index in sorted(row["bundles"])],
            "strategy": row["strategy"],
            "state": row["state"] if row["state"] in ("PENDING", "CREATED", "REMOVED") else "PENDING",
            "impossible": "",
        }


def options_of(placement: Placement, groups: Groups) -> dict[str, Any]:
    """The options to give to Ray."""
    options = dict(placement.said)
    if "runtime_env" in options:
        options["runtime_env"] = dict(options["runtime_env"])  # of klieg's own class, perhaps
    if placement.place is not None:
        group, index = placement.place
        options["scheduling_strategy"] = their_strategies.PlacementGroupSchedulingStrategy(
            groups.find(group), index, placement.captures
        )
    elif "scheduling_strategy" in options:
        options["scheduling_strategy"] = _translated(options["scheduling_strategy"])
    return options


def _translated(strategy: Any) -> Any:
    """klieg's strategy objects have the names and the fields of Ray's; Ray's own go through untouched."""
    if isinstance(strategy, str) or not type(strategy).__module__.startswith("klieg."):
        return strategy
    fields = {key: _translated_value(value) for key, value in vars(strategy).items()}
    return getattr(their_strategies, type(strategy).__name__)(**fields)


def _translated_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _translated_value(each) for key, each in value.items()}
    if type(value).__module__.startswith("klieg."):
        return getattr(their_strategies, type(value).__name__)(*getattr(value, "values", ()))
    return value
