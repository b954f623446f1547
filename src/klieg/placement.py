"""Where a call or an actor is to run, and what it holds there: resources, and perhaps a bundle of a placement group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from klieg.runtime_env import RuntimeEnv

Place = tuple[int, int]
"""(placement group, bundle); bundle -1: any of them."""

PASSED_ON: Final = (
    "num_cpus",
    "num_gpus",
    "memory",
    "resources",
    "accelerator_type",
    "runtime_env",
    "scheduling_strategy",
    "label_selector",
    "fallback_strategy",
)
"""The options that an engine with several machines is told as they are."""

ACCELERATOR: Final = "accelerator_type:"
"""How the resource is called that stands for a kind of accelerator, as in Ray; a call asks for a thousandth of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """What a call or an actor asks of the one who places it."""

    demand: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Resources it holds: a task while it runs, an actor as long as it lives."""
    place: Place | None = None
    """None: anywhere."""
    captures: bool = False
    """True if what is called from there runs in the same placement group, unless it says otherwise."""
    inherits: bool = True
    """True if it says nothing of a placement group itself."""
    environment: str = ""
    """The runtime environment, as `RuntimeEnv.dump` writes it: what was given or, towards the head, the whole of it."""
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The options as they were given, for an engine that passes them on; without those on placement groups."""

    @classmethod
    def of(cls, checked: Mapping[str, Any], cpus: float) -> Placement:
        """From options that have passed `options.check`; `cpus` are held by those that do not say how many.

        Raises ValueError where the demand, or the bundle's index, does not fit the placement group.
        """
        demand = _demand(checked, cpus)
        environment = RuntimeEnv(**checked.get("runtime_env", {})).dump()
        said = {key: checked[key] for key in PASSED_ON if key in checked}
        group, index, captures = _group_of(checked)
        if group is None:
            inherits = checked.get("scheduling_strategy") is None and checked.get("placement_group") in (
                None,
                "default",
            )
            return cls(demand, inherits=inherits, environment=environment, said=said)
        _check_fits(group, index, demand)
        return cls(demand, (int.from_bytes(group.id.binary(), "big"), index), captures, False, environment, said)

    def within(self, place: Place) -> Placement:
        """The same, in the placement group of the one who calls."""
        return dataclasses.replace(self, place=(place[0], -1), captures=True)

    def dump(self) -> dict[str, Any]:
        """As JSON can carry it."""
        return {
            "demand": dict(self.demand),
            "place": self.place,
            "captures": self.captures,
            "environment": self.environment,
        }

    @classmethod
    def load(cls, fields: Mapping[str, Any]) -> Placement:
        place = fields["place"]
        return cls(
            demand=fields["demand"],
            place=None if place is None else (place[0], place[1]),
            captures=fields["captures"],
            environment=fields["environment"],
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for those who can run in each other's stead."""
        return tuple(sorted(self.demand.items())), self.place, self.environment


ANYWHERE: Final = Placement()


def _demand(checked: Mapping[str, Any], cpus: float) -> dict[str, float]:
    demand = {
        "CPU": checked.get("num_cpus", cpus),
        "GPU": checked.get("num_gpus", 0),
        "memory": checked.get("memory", 0),
        **checked.get("resources", {}),
    }
    if "accelerator_type" in checked:
        demand[ACCELERATOR + checked["accelerator_type"]] = 0.001
    return {key: amount for key, amount in demand.items() if amount}


def _group_of(checked: Mapping[str, Any]) -> tuple[Any, int, bool]:
    """The placement group that the options name, in the strategy's spelling or in the deprecated one; None if none."""
    strategy: Any = checked.get("scheduling_strategy")
    if hasattr(strategy, "placement_group"):
        group = strategy.placement_group
        index, captures = strategy.placement_group_bundle_index, strategy.placement_group_capture_child_tasks
    else:
        group = checked.get("placement_group")
        index = checked.get("placement_group_bundle_index", -1)
        captures = checked.get("placement_group_capture_child_tasks")
    if group is None or group == "default" or group.is_empty:
        return None, -1, False
    return group, index, bool(captures)


def _check_fits(group: Any, index: int, demand: Mapping[str, float]) -> None:
    bundles = group.bundle_specs
    if not -1 <= index < len(bundles):
        raise ValueError(
            f"placement group bundle index {index} is invalid: the group has {len(bundles)} bundles, counted from 0; "
            "-1 means any of them."
        )
    wanted = bundles if index < 0 else [bundles[index]]
    if not any(all(bundle.get(key, 0) >= amount for key, amount in demand.items()) for bundle in wanted):
        raise ValueError(f"The demand {dict(demand)} fits into none of the bundles {wanted} of the placement group.")
