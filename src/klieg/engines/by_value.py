"""Functions and classes that no other process can import, pickled by value with where their source is.

cloudpickle since 3.1.3 writes `<dynamic-code>` in place of a function's file name, to make equal code pickle to equal
bytes. A remote traceback would then show no source line, so the name is put back in.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from contextvars import ContextVar
from types import CodeType
from typing import Any, Final

import cloudpickle

from klieg import propagation

PROTOCOL: Final = 5

_MASKED: Final = "<dynamic-code>"

BufferCallback = Callable[[pickle.PickleBuffer], Any]


def dumps(value: Any, buffer_callback: BufferCallback | None = None) -> bytes:
    """The pickle of any value that cloudpickle takes. Raises what it raises."""
    file = io.BytesIO()
    Pickler(file, PROTOCOL, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, arguments = _reduce_masked(code)
    return make, tuple(code.co_filename if type(a) is str and a == _MASKED else a for a in arguments)


_reduce_masked: Final = cloudpickle.Pickler.dispatch_table[CodeType]


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's, with the file names of code, and with the context variables that travel with calls."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child(
        {CodeType: _reduce_code, ContextVar: propagation.reduce}
    )
