"""What is built on top of the core API. Each part is imported when it is first used: `import klieg` stays light."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from klieg import session
from klieg.util.placement_group import (  # at once: the function bears the name of its module
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

if TYPE_CHECKING:
    from klieg.util.actor_pool import ActorPool
    from klieg.util.completion import as_completed, map_unordered, wait_async
    from klieg.util.once import disable_log_once_globally, enable_periodic_logging, log_once
    from klieg.util.serializers import deregister_serializer, inspect_serializability, register_serializer

_HOME = {
    "ActorPool": "actor_pool",
    "as_completed": "completion",
    "deregister_serializer": "serializers",
    "disable_log_once_globally": "once",
    "enable_periodic_logging": "once",
    "inspect_serializability": "serializers",
    "log_once": "once",
    "map_unordered": "completion",
    "register_serializer": "serializers",
    "wait_async": "completion",
}
"""Name to the submodule that defines it."""

_SUBMODULES = frozenset(
    {"joblib", "metrics", "multiprocessing", "queue", "scheduling_strategies", "state", *_HOME.values()}
)


if not TYPE_CHECKING:  # which would let every misspelt name pass

    def __getattr__(name):
        if name in _SUBMODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in _HOME:
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        from klieg.cluster_only import missing  # for those who ask for what is not there

        return missing(__name__, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, Any]]:
    """The names of the living named actors of this namespace; of all namespaces, as `{"name", "namespace"}`."""
    running = session.running_engine()
    named = running.named_actors()
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    return [name for namespace, name in named if namespace == running.namespace]


def get_node_ip_address() -> str:
    """Where this machine is reached from itself; klieg listens on no network."""
    return "127.0.0.1"


def get_node_instance_id() -> str:
    """The id of this machine, as `nodes()` tells it."""
    return session.running_engine().node.hex()


__all__ = [
    "ActorPool",
    "PlacementGroup",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
    "wait_async",
]
