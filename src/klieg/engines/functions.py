"""Remote functions and actor classes on their way to workers: pickled once, sent once on each connection."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable
from typing import Any, Final

from klieg.engines import by_value
from klieg.engines.unpicklable import explain_value
from klieg.task import FunctionSpec

KEY_SIZE: Final = 16


class Exported:
    """A pickled function or class, under a key made of its bytes."""

    __slots__ = ("data", "key")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.key = hashlib.blake2b(data, digest_size=KEY_SIZE).digest()


class Exports:
    """What this process has pickled. A function's globals are captured once, at its first call."""

    def __init__(self) -> None:
        self._functions: dict[FunctionSpec, Exported] = {}

    def function(self, spec: FunctionSpec) -> Exported:
        exported = self._functions.get(spec)
        if exported is None:
            exported = self._functions[spec] = export(spec.function, f"the remote function {spec.name}()")
        return exported


def export(target: Any, what: str) -> Exported:
    """Pickle a function or class; TypeError that names what in it cannot be pickled."""
    try:
        return Exported(by_value.dumps(target))
    except Exception as error:
        raise explain_value(error, what, target) from error


class Imports:
    """Functions that have come to this process, unpickled when they are first called."""

    def __init__(self) -> None:
        self._pickled: dict[bytes, bytes] = {}
        self._loaded: dict[bytes, Callable[..., Any]] = {}
        self._lock = threading.RLock()

    def add(self, key: bytes, data: bytes) -> None:
        self._pickled.setdefault(key, data)

    def load(self, key: bytes) -> Callable[..., Any]:
        """The function; raises what unpickling it raises."""
        function = self._loaded.get(key)
        if function is None:
            with self._lock:
                function = self._loaded[key] = pickle.loads(self._pickled[key])
        return function
