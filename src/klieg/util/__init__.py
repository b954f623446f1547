"""What is built on top of the core API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klieg import session


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, Any]]:
    """The names of the living named actors of this namespace; of all namespaces, as `{"name", "namespace"}`."""
    running = session.running_engine()
    named = running.named_actors()
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    return [name for namespace, name in named if namespace == running.namespace]


if not TYPE_CHECKING:  # which would let every misspelt name pass

    def __getattr__(name):
        from klieg.cluster_only import missing  # for those who ask for what is not there

        return missing(__name__, name)


__all__ = ["list_named_actors"]
