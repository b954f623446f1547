"""Values to payloads and back.

Plain pickle first, since it is ten times faster; cloudpickle when plain pickle cannot (lambdas, local classes) or must
not (things of `__main__`, which no worker imports). Refs and handles inside a value are noted on the way, so that
they can be counted without opening the payload again.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Collection
from typing import Any, Final, Literal

import cloudpickle

from klieg.engines import by_value
from klieg.engines.by_value import PROTOCOL
from klieg.engines.objects import ActorToken, ObjectFuture, Ref
from klieg.engines.unpicklable import explain
from klieg.exceptions import ObjectStoreFullError
from klieg.outcome import Payload, Serialized

_ATOMS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Types that plain pickle always takes and that hold nothing else."""

_MAIN: Final = b"__main__"

Named = ObjectFuture | ActorToken
Dependency = tuple[int | str, ObjectFuture]
"""(position or keyword, what to put there once it is there)."""

KeepBuffer = Callable[[pickle.PickleBuffer], Any]
"""Makes the engine's own copy of a large buffer; what it returns is bytes-like and stays as it is."""

LARGE: Final = 64 * 1024
"""Bytes from which something is handed to the engine as a buffer instead of being part of the pickle."""


MOST_ITEMS: Final = 1000
"""Items of a container that are looked at one by one, so that a long list of numbers is not made slower by it."""


class _PerThread(threading.local):
    noted: dict[int, Named] | None = None
    """Refs and actors met in the value that this thread is pickling."""
    known: dict[int, Named] | None = None
    """Refs and actors that the payload names which this thread is unpickling."""


_thread = _PerThread()


def copy_buffer(buffer: pickle.PickleBuffer) -> bytes:
    """The `KeepBuffer` of an engine without shared memory."""
    with buffer.raw() as raw:
        whole = raw.obj
        return whole if type(whole) is bytes and len(whole) == raw.nbytes else bytes(raw)


def dumps(value: Any, keep: KeepBuffer = copy_buffer) -> Serialized:
    """The payload of a value. Raises what pickling it raises."""
    kind = type(value)
    if kind in _ATOMS and (kind is not bytes or len(value) < LARGE):
        data = pickle.dumps(value, PROTOCOL)
        return data if len(data) < LARGE else Payload(keep(pickle.PickleBuffer(data)))
    noted: dict[int, Named] = {}
    outer, _thread.noted = _thread.noted, noted
    try:
        data, buffers = _pickle(_beside(value, {}))
    finally:
        _thread.noted = outer
    if len(data) >= LARGE:
        return Payload(keep(pickle.PickleBuffer(data)), tuple(keep(b) for b in buffers), tuple(noted.values()))
    if not buffers and not noted:
        return data
    return Payload(data, tuple(keep(b) for b in buffers), tuple(noted.values()))


class _Beside:
    """Stands for large bytes or an array in a value, so that pickle hands them over as a buffer, in the shortest way.

    By itself pickle does that for arrays only, and would copy the others into the pickle and out of it again."""

    __slots__ = ("reduced", "value")

    def __init__(self, value: Any, reduced: tuple[Any, ...]) -> None:
        self.value = value
        """Kept, so that no other object gets its identity meanwhile."""
        self.reduced = reduced

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return self.reduced


_Made = dict[int, _Beside]
"""By identity of what they stand for: the same thing twice is stored once."""

_PLAIN_KINDS: Final = "biufc"
"""Arrays of which the bytes, the shape and the name of the type say all: of booleans, integers, floats, complex."""


def _stand_in(item: Any, made: _Made) -> Any:
    """What to pickle for a thing that holds no other: itself if it is small."""
    kind = type(item)
    if kind is bytes or kind is bytearray:
        if len(item) < LARGE:
            return item
        reduced: tuple[Any, ...] = (kind, (pickle.PickleBuffer(item),))
    elif _is_plain_array(item, kind):
        order = "C" if item.flags.c_contiguous else "F"
        reduced = (_array, (pickle.PickleBuffer(item), item.dtype.str, item.shape, order))
    else:
        return item
    return made.setdefault(id(item), _Beside(item, reduced))


def _is_plain_array(item: Any, kind: type) -> bool:
    """True for a large array of numpy's that is one piece of memory. Its own way takes twice as long to be opened."""
    numpy = sys.modules.get("numpy")
    if numpy is None or kind is not numpy.ndarray or item.nbytes < LARGE:
        return False
    return item.dtype.kind in _PLAIN_KINDS and item.dtype.metadata is None and item.flags.forc


def _array(buffer: Any, dtype: str, shape: tuple[int, ...], order: Literal["C", "F"]) -> Any:
    """The array around a buffer; read-only for good if that is, which `numpy.ndarray(shape, dtype, buffer)` is not."""
    import numpy

    array = numpy.frombuffer(buffer, dtype)
    return array if len(shape) == 1 else array.reshape(shape, order=order)


def _beside(value: Any, made: _Made) -> Any:
    """The value with what is large in it made ready to travel as buffers: itself, or what a flat container holds.

    A container that holds anything but atoms and arrays is left alone: a copy of it could no longer be the same object
    as the one that something deeper in it refers to."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([_stand_in(item, made) for item in value]) if _is_flat(value) else value
    if kind is dict:
        items = value.values()
        return dict(zip(value, [_stand_in(item, made) for item in items], strict=True)) if _is_flat(items) else value
    return _stand_in(value, made)


def _is_flat(items: Collection[Any]) -> bool:
    """True if there are large bytes or arrays among a moderate number of items, and nothing that holds other things."""
    if len(items) > MOST_ITEMS:
        return False
    large = False
    for item in items:
        kind = type(item)
        if kind in _ATOMS:
            large = large or (kind is bytes and len(item) >= LARGE)
        elif _is_plain_array(item, kind):
            large = True
        else:
            return False
    return large


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
    if not payload.refs:
        return pickle.loads(_view(payload.data), buffers=map(_view, payload.buffers))
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
            data = pickle.dumps(args, PROTOCOL)
            if len(data) < LARGE:
                return data, None
    dependencies: list[Dependency] = []
    made: _Made = {}
    plain = list(args)
    for position, argument in enumerate(args):
        if isinstance(argument, Ref):
            dependencies.append((position, argument._future))
            plain[position] = None
        else:
            plain[position] = _beside(argument, made)
    for key, argument in kwargs.items():
        if isinstance(argument, Ref):
            dependencies.append((key, argument._future))
    bound = {k: None if isinstance(v, Ref) else _beside(v, made) for k, v in kwargs.items()}
    try:
        payload = dumps([tuple(plain), bound] if bound else tuple(plain), keep)
    except ObjectStoreFullError:
        raise
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
