"""What is built on top of the core API."""

from __future__ import annotations

from typing import Any

from klieg import session


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, Any]]:
    """The names of the living named actors of this namespace; of all namespaces, as `{"name", "namespace"}`."""
    running = session.running_engine()
    named = running.named_actors()
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    return [name for namespace, name in named if namespace == running.namespace]


__all__ = ["list_named_actors"]
