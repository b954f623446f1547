"""What the option `scheduling_strategy` takes besides "DEFAULT" and "SPREAD".

On one machine a placement group decides what a call holds; affinities and labels are accepted and change nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from klieg.util.placement_group import PlacementGroup


@dataclasses.dataclass
class PlacementGroupSchedulingStrategy:
    """Run in a bundle of a placement group."""

    placement_group: PlacementGroup
    placement_group_bundle_index: int = -1
    """-1: in any of them."""
    placement_group_capture_child_tasks: bool | None = None
    """True: what is called from there runs in the same group, unless it says otherwise."""


@dataclasses.dataclass
class NodeAffinitySchedulingStrategy:
    """Run on one machine of a cluster."""

    node_id: str
    soft: bool
    _spill_on_unavailable: bool = False
    _fail_on_unavailable: bool = False


class _Match:
    """A test of a label."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)


class In(_Match):
    """The label has one of the values."""


class NotIn(_Match):
    """The label has none of the values."""


class Exists:
    """The label is there."""


class DoesNotExist:
    """The label is not there."""


class NodeLabelSchedulingStrategy:
    """Run on a machine of a cluster whose labels match."""

    def __init__(self, hard: Mapping[str, Any], *, soft: Mapping[str, Any] | None = None) -> None:
        self.hard = dict(hard)
        self.soft = dict(soft or {})
