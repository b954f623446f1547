"""Values to payloads and back.

Plain pickle first, since it is ten times faster; cloudpickle when plain pickle cannot (lambdas, local classes) or must
not (things of `__main__`, which no worker imports). Refs and handles inside a value are noted on the way, so that
they can be counted without opening the payload again.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any, Final

import cloudpickle

from klieg.engines import by_value
from klieg.engines.by_value import PROTOCOL
from klieg.engines.objects import ActorToken, ObjectFuture, Ref
from klieg.engines.unpicklable import explain
from klieg.outcome import Payload, Serialized

_ATOMS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Types that plain pickle always takes and that hold nothing else."""

_MAIN: Final = b"__main__"

Named = ObjectFuture | ActorToken
Dependency = tuple[int | str, ObjectFuture]
"""(position or keyword, what to put there once it is there)."""

KeepBuffer = Callable[[pickle.PickleBuffer], Any]
"""Makes the engine's own copy of a large buffer; what it returns is bytes-like and stays as it is."""


class _PerThread(threading.local):
    noted: dict[int, Named] | None = None
    """Refs and actors met in the value that this thread is pickling."""
    known: dict[int, Named] | None = None
    """Refs and actors that the payload names which this thread is unpickling."""


_thread = _PerThread()


def copy_buffer(buffer: pickle.PickleBuffer) -> bytes:
    """The `KeepBuffer` of an engine without shared memory."""
    return bytes(buffer.raw())


def dumps(value: Any, keep: KeepBuffer = copy_buffer) -> Serialized:
    """The payload of a value. Raises what pickling it raises."""
    if type(value) in _ATOMS:
        return pickle.dumps(value, PROTOCOL)
    noted: dict[int, Named] = {}
    outer, _thread.noted = _thread.noted, noted
    try:
        data, buffers = _pickle(value)
    finally:
        _thread.noted = outer
    if not buffers and not noted:
        return data
    return Payload(data, tuple(keep(b) for b in buffers), tuple(noted.values()))


def _pickle(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
        if _MAIN not in data and not cloudpickle.list_registry_pickle_by_value():
            return data, buffers
    except (pickle.PicklingError, AttributeError, TypeError, ImportError, RecursionError, NotImplementedError):
        pass  # cloudpickle takes more than pickle; if it refuses too, its error is the one to show
    buffers.clear()
    return by_value.dumps(value, buffers.append), buffers


def loads(payload: Serialized) -> Any:
    """A fresh copy of the value; its large buffers are read-only views."""
    if type(payload) is bytes:
        return pickle.loads(payload)
    assert isinstance(payload, Payload)
    outer = _thread.known
    _thread.known = {named.id: named for named in payload.refs}
    try:
        return pickle.loads(_view(payload.data), buffers=map(_view, payload.buffers))
    finally:
        _thread.known = outer


def _view(buffer: Any) -> Any:
    """What pickle can read: the buffer itself, or the mapping of one in shared memory."""
    return buffer if isinstance(buffer, bytes | memoryview) else buffer.view()


def dumps_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, keep: KeepBuffer = copy_buffer
) -> tuple[Serialized, list[Dependency] | None]:
    """The payload of a call's arguments, and the top-level refs among them, whose values are to be put in later.

    Raises TypeError, naming what cannot be pickled and where it is.
    """
    if not kwargs:
        if not args:
            return b"", None
        for argument in args:
            if type(argument) not in _ATOMS:
                break
        else:
            return pickle.dumps(args, PROTOCOL), None
    dependencies: list[Dependency] = []
    plain = list(args)
    for position, argument in enumerate(args):
        if isinstance(argument, Ref):
            dependencies.append((position, argument._future))
            plain[position] = None
    for key, argument in kwargs.items():
        if isinstance(argument, Ref):
            dependencies.append((key, argument._future))
    bound = {k: None if isinstance(v, Ref) else v for k, v in kwargs.items()}
    try:
        payload = dumps([tuple(plain), bound] if bound else tuple(plain), keep)
    except Exception as error:
        raise explain(error, name, plain, bound) from error
    return payload, dependencies or None


def loads_arguments(
    payload: Serialized, values: list[tuple[int | str, Serialized]] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with the values of its dependencies put in their places."""
    opened = loads(payload) if payload else ()
    args, kwargs = opened if type(opened) is list else (opened, {})
    if values:
        places = list(args)
        for place, value in values:
            if isinstance(place, int):
                places[place] = loads(value)
            else:
                kwargs[place] = loads(value)
        args = tuple(places)
    return args, kwargs


def note(named: Named) -> bool:
    """Called by refs and handles as they are pickled. False if it is not klieg that pickles."""
    if _thread.noted is None:
        return False
    _thread.noted[named.id] = named
    return True


def known(number: int) -> Named | None:
    """Called by refs and handles as they are unpickled: what the payload holds under that id."""
    return None if _thread.known is None else _thread.known.get(number)
