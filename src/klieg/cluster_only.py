"""What Ray offers and this package does not have: a name that says so when it is used, or a reason why it is absent."""

from __future__ import annotations

from typing import NoReturn

from klieg.exceptions import NeedsRayEngineError
from klieg.names import State, find


class ClusterOnly:
    """Stands for a name that has a meaning on a cluster only; using it raises NeedsRayEngineError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise NeedsRayEngineError(f"`{self._path}`")

    def __getattr__(self, name: str) -> ClusterOnly:
        if name.startswith("__"):
            raise AttributeError(name)
        return ClusterOnly(f"{self._path}.{name}")

    def __repr__(self) -> str:
        return f"<{self._path}: needs a Ray cluster>"


def missing(module: str, name: str) -> ClusterOnly:
    """What a module's `__getattr__` gives for a name it does not have; else AttributeError with the reason."""
    row = find(module, name)
    if row is not None and row.state is State.CLUSTER:
        return ClusterOnly(f"{module}.{name}")
    reason = f": {row.note}; see docs/ray-names.md" if row is not None and row.note else ""
    raise AttributeError(f"module {module!r} has no attribute {name!r}{reason}")
