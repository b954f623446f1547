"""Placement groups: bundles of resources, reserved all together, for tasks and actors that are to run in them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from klieg import api, engine, ids, session
from klieg.exceptions import KliegError
from klieg.object_ref import ObjectRef

logger = logging.getLogger("klieg")

Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]

STRATEGIES: Final = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A handle to a placement group; may be passed on and compared."""

    def __init__(self, id: ids.PlacementGroupID, bundle_specs: Sequence[Mapping[str, float]] = ()) -> None:
        self.id = id
        self._bundles = [dict(bundle) for bundle in bundle_specs]

    @staticmethod
    def empty() -> PlacementGroup:
        """A group that stands for none."""
        return PlacementGroup(ids.PlacementGroupID.nil())

    @property
    def is_empty(self) -> bool:
        return self.id.is_nil()

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle holds, resource name to amount."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        return len(self._bundles)

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref to this group that is ready once its bundles are reserved.

        Getting it raises TaskUnschedulableError if they never can be, TaskPlacementGroupRemoved if the group was
        removed before.
        """
        return ObjectRef(session.running_engine().placement_group_ready(_number(self), self))

    def wait(self, timeout_seconds: float | int = 30) -> bool:
        """True once the bundles are reserved; False after so many seconds, or at once if they never can be."""
        ready = self.ready()
        done, _ = api.wait([ready], timeout=timeout_seconds)
        if not done:
            return False
        try:
            api.get(ready)
        except KliegError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()}, {self._bundles})"


def placement_group(
    bundles: list[dict[str, float]],
    strategy: Strategy = "PACK",
    name: str = "",
    lifetime: Literal["detached"] | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
) -> PlacementGroup:
    """Reserve bundles of resources, all or none; returns at once, `ready()` and `wait()` tell when they are there.

    The reservation ends with `remove_placement_group`, with the process that made it, or with the runtime. All bundles
    lie on this one machine, so the strategies PACK, SPREAD and STRICT_PACK mean the same here, and STRICT_SPREAD can
    hold one bundle; a group that can never be placed is logged as a warning and is never ready.

    Args:
        bundles: what each bundle holds, resource name to amount: `[{"CPU": 2}, {"CPU": 1, "GPU": 1}]`.
        strategy: how bundles lie on several machines.
        name: unique among the living groups; "" for none.
        lifetime: "detached" lets it outlive the process that made it.

    Raises:
        ValueError: bundles, strategy or lifetime are not what they must be.
        SystemError_: the name is taken.
    """
    _check(bundles, strategy, name, lifetime)
    group = PlacementGroup(ids.PlacementGroupID.from_random(), bundles)
    facts = {"name": name, "bundles": bundles, "strategy": strategy, "detached": lifetime == "detached"}
    impossible = session.running_engine().create_placement_group(_number(group), facts)
    if impossible:
        logger.warning(
            "The placement group %s%s can never be placed: %s", group.id.hex(), name and f" {name!r}", impossible
        )
    return group


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give the bundles back. Tasks and actors that run in them are ended; removing it twice is fine."""
    if not isinstance(placement_group, PlacementGroup):
        raise TypeError(f"`remove_placement_group` takes a PlacementGroup, not {type(placement_group).__name__}.")
    session.running_engine().remove_placement_group(_number(placement_group))


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The living placement group of that name; ValueError if there is none, or for an empty name."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    for facts in session.running_engine().placement_groups():
        if facts["name"] == placement_group_name and facts["state"] != "REMOVED":
            return _from_facts(facts)
    raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")


def get_current_placement_group() -> PlacementGroup | None:
    """The placement group that this task or actor runs in; None in the driver, and where there is none."""
    placement = session.current_placement()
    if placement is None or placement.place is None:
        return None
    for facts in engine.current().placement_groups():
        if facts["group"] == placement.place[0]:
            return _from_facts(facts)
    return None


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """The facts of a placement group, {} if it is not known; without an argument those of all, by id."""
    table = {facts["placement_group_id"]: facts for facts in map(_row, session.running_engine().placement_groups())}
    return table if placement_group is None else table.get(placement_group.id.hex(), {})


def _row(facts: Mapping[str, Any]) -> dict[str, Any]:
    nodes = facts.get("nodes") or [engine.current().node.hex() if facts["state"] == "CREATED" else ""] * len(
        facts["bundles"]
    )
    return {
        "placement_group_id": ids.PlacementGroupID.from_int(facts["group"]).hex(),
        "name": facts["name"],
        "bundles": dict(enumerate(facts["bundles"])),
        "bundles_to_node_id": dict(enumerate(nodes)),
        "strategy": facts["strategy"],
        "state": facts["state"],
        "stats": {"scheduling_state": "INFEASIBLE" if facts["impossible"] else _SCHEDULING[facts["state"]]},
    }


_SCHEDULING: Final = {"PENDING": "QUEUED", "CREATED": "FINISHED", "REMOVED": "REMOVED"}


def _from_facts(facts: Mapping[str, Any]) -> PlacementGroup:
    return PlacementGroup(ids.PlacementGroupID.from_int(facts["group"]), facts["bundles"])


def _number(group: PlacementGroup) -> int:
    return int.from_bytes(group.id.binary(), "big")


def _check(bundles: Any, strategy: Any, name: Any, lifetime: Any) -> None:
    if not isinstance(bundles, list) or not bundles or not all(isinstance(bundle, dict) for bundle in bundles):
        raise ValueError(
            f"Bundles must be a non-empty list of dictionaries, `[{{'CPU': 1}}, {{'GPU': 1}}]`, not {bundles!r}."
        )
    for bundle in bundles:
        if not all(_is_amount(amount) for amount in bundle.values()):
            raise ValueError(f"A bundle holds finite numbers of at least 0: {bundle!r}.")
        if not any(bundle.values()):
            raise ValueError(f"Bundles cannot be empty or hold nothing but zeros: {bundles!r}.")
    if strategy not in STRATEGIES:
        raise ValueError(f"Invalid placement group strategy {strategy!r}; there are {', '.join(STRATEGIES)}.")
    if not isinstance(name, str):
        raise TypeError(f"The name of a placement group is a string, not {type(name).__name__}.")
    if lifetime not in (None, "detached"):
        raise ValueError(f"The lifetime of a placement group is None or 'detached', not {lifetime!r}.")


def _is_amount(amount: Any) -> bool:
    return isinstance(amount, int | float) and not isinstance(amount, bool) and math.isfinite(amount) and amount >= 0
