"""Where to run, in Ray's words: options as they were given, and klieg's placement groups as Ray's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import ray
from ray.util import placement_group as their_groups
from ray.util import scheduling_strategies as their_strategies

from klieg.engines.ray.environments import for_ray
from klieg.engines.ray.noticeboard import Noticeboard
from klieg.placement import Placement
from klieg.runtime_env import RuntimeEnv

GROUP_ID_BYTES: Final = 18

RESOURCES: Final = ("num_gpus", "memory", "resources", "accelerator_type")
"""What a task or actor may hold besides CPUs."""


class Groups:
    """klieg's placement groups, each of which is one of Ray's under another number."""

    def __init__(self, noticeboard: Noticeboard) -> None:
        self._noticeboard = noticeboard
        self._known: dict[int, Any] = {}
        self._numbers: dict[str, int] = {}
        """The other way round: Ray's ids of those that are known to have a number of klieg's."""
        self._own: set[int] = set()
        """Those that end with this runtime."""
        self._removed: set[int] = set()
        """Those that this process has removed."""

    def create(self, number: int, facts: Mapping[str, Any]) -> None:
        lifetime = "detached" if facts["detached"] else None
        group = ray.util.placement_group(facts["bundles"], facts["strategy"], facts["name"], lifetime)
        self._known[number] = group
        self._numbers[group.id.hex()] = number
        if lifetime is None:
            self._own.add(number)
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

    def remove(self, number: int) -> None:
        self._own.discard(number)
        self._removed.add(number)
        ray.util.remove_placement_group(self.find(number))

    def was_removed(self, placement: Placement) -> bool:
        """True if it is in a group that this process has removed. Ray lets what is to run in such a group wait."""
        return placement.place is not None and placement.place[0] in self._removed

    def is_removed(self, number: int) -> bool:
        """The same, whoever has removed the group: a question to Ray's head."""
        if number in self._removed:
            return True
        row = ray.util.placement_group_table(self.find(number))
        return not row or row["state"] == "REMOVED"

    def remove_own(self) -> None:
        """The runtime ends, while Ray's own job may go on."""
        for number in list(self._own):
            self.remove(number)

    def facts(self) -> list[dict[str, Any]]:
        """What Ray knows of all groups, in klieg's words."""
        return [self._facts_of(row) for row in ray.util.placement_group_table().values()]

    def _facts_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        identity = row["placement_group_id"]
        return {
            "group": self._number_of(identity),
            "name": row["name"],
            "bundles": [row["bundles"][index] for index in sorted(row["bundles"])],
            "strategy": row["strategy"],
            "state": row["state"] if row["state"] in ("PENDING", "CREATED", "REMOVED") else "PENDING",
            "impossible": "",
            "nodes": [row["bundles_to_node_id"].get(index, "") for index in sorted(row["bundles"])],
        }

    def _number_of(self, identity: str) -> int:
        number = self._numbers.get(identity)
        if number is None:
            noticed: int | None = self._noticeboard.find(f"group {identity}")
            if noticed is None:
                return int(identity, 16)
            number = self._numbers[identity] = noticed
        return number


def options_of(placement: Placement, groups: Groups, base: Mapping[str, Any]) -> dict[str, Any]:
    """The options to give to Ray.

    Args:
        base: the runtime environment to add to.
    """
    options = dict(placement.said)
    if base or "runtime_env" in options:
        options["runtime_env"] = for_ray(RuntimeEnv(**base).merged_with(options.get("runtime_env", {})))
    if placement.place is not None:
        group, index = placement.place
        options["scheduling_strategy"] = their_strategies.PlacementGroupSchedulingStrategy(
            groups.find(group), index, placement.captures
        )
    elif "scheduling_strategy" in options:
        options["scheduling_strategy"] = _translated(options["scheduling_strategy"])
    return options


def actor_options_of(placement: Placement, groups: Groups, base: Mapping[str, Any]) -> dict[str, Any]:
    """The same for an actor, which holds no CPU unless it says so: Ray's own hold one if they name another resource."""
    options = options_of(placement, groups, base)
    if not options.keys().isdisjoint(RESOURCES):
        options.setdefault("num_cpus", 0)
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
