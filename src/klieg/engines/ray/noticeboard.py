"""What one process leaves for others to find under a key: in the key-value table of Ray's head."""

from __future__ import annotations

from typing import Any

from ray import cloudpickle
from ray.experimental import internal_kv


class Noticeboard:
    """Each use is a round trip to Ray's head, so it is for what happens rarely."""

    def __init__(self) -> None:
        self._own: set[bytes] = set()

    def leave(self, key: str, notice: Any) -> None:
        """Ray refs and handles in the notice stay valid until this runtime ends."""
        self._own.add(_full(key))
        internal_kv._internal_kv_put(_full(key), cloudpickle.dumps(notice))

    def find(self, key: str) -> Any:
        """The notice under the key; None if there is none."""
        data = internal_kv._internal_kv_get(_full(key))
        return None if data is None else cloudpickle.loads(data)

    def clear(self) -> None:
        """Take down what this process has left."""
        while self._own:
            internal_kv._internal_kv_del(self._own.pop())


def _full(key: str) -> bytes:
    return f"klieg:{key}".encode()
