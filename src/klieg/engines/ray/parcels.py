"""Payloads on their way through Ray, which pickles them as plain tuples and counts the Ray refs and handles inside.

    small payload   bytes                          as it is
    with buffers    (data, buffers, named)         buffers as bytes
    large payload   (Ray ref, index, named)        its contents stay in Ray's object store until somebody opens them

`named` describes the klieg refs and actors inside the value, so that the receiver need not open it to count them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Final

import ray

from klieg.engines import serialization
from klieg.engines.ray.trouble import lost_value
from klieg.engines.serialization import Named
from klieg.outcome import Payload, Serialized

INLINE_LIMIT: Final = 64 * 1024
"""Bytes up to which a payload travels inside a message. Ray puts messages above 100 KiB into its store as a whole."""

Parcel = bytes | tuple[Any, ...]
Describe = Callable[[Named], tuple[Any, ...]]
Recognize = Callable[[tuple[Any, ...]], Named]

Contents = tuple[Any, list[Any]]
"""A pickle and its out-of-band buffers, each wrapped so that Ray stores it, and maps it again, without a copy.
An object in Ray's store is a list of such contents."""


class Stored(Payload):
    """A payload whose contents are in Ray's object store, on whichever node; opened by whoever asks first."""

    __slots__ = ("_opened", "index", "ref")

    def __init__(self, ref: Any, index: int, named: tuple[Named, ...]) -> None:
        self.ref = ref
        self.index = index
        self._opened: Contents | None = None
        self.refs = named  # type: ignore[misc]  # the base class's two other fields are looked up when asked for

    @property  # type: ignore[misc]  # a field there, fetched here
    def data(self) -> Any:
        return self._contents()[0]

    @property  # type: ignore[misc]  # a field there, fetched here
    def buffers(self) -> Any:
        return self._contents()[1]

    def _contents(self) -> Contents:
        """Waits while Ray brings the contents to this node."""
        if self._opened is None:
            try:
                stored = ray.get(self.ref)
            except ray.exceptions.RayError as error:
                raise lost_value(error) from None
            self._opened = self._mapped(stored)
        return self._opened

    async def fetch(self) -> None:
        """Have the contents brought to this node, so that opening them will wait for nothing."""
        try:
            self._opened = self._mapped(await self.ref)
        except ray.exceptions.RayError:  # opening them will tell
            return

    def _mapped(self, stored: list[Contents]) -> Contents:
        data, buffers = stored[self.index]
        return memoryview(data), [memoryview(buffer) for buffer in buffers]


def raw(buffer: pickle.PickleBuffer) -> memoryview:
    """The `KeepBuffer` of what is about to be stored or copied: no copy yet."""
    return buffer.raw()


def size_of(payload: Serialized) -> int:
    if isinstance(payload, bytes):
        return len(payload)
    return len(payload.data) + sum(len(buffer) for buffer in payload.buffers)


def contents_of(payload: Serialized) -> Contents:
    """What to give to Ray for a large payload."""
    if isinstance(payload, bytes):
        return pickle.PickleBuffer(payload), []
    return pickle.PickleBuffer(payload.data), [pickle.PickleBuffer(b) for b in payload.buffers]


def keep(payload: Serialized) -> Serialized:
    """A copy that nobody can change any more: of a large payload in Ray's store, of a small one here."""
    if size_of(payload) > INLINE_LIMIT:
        named = () if isinstance(payload, bytes) else payload.refs
        return Stored(ray.put([contents_of(payload)]), 0, named)
    if isinstance(payload, bytes):
        return payload
    return Payload(payload.data, tuple(bytes(b) for b in payload.buffers), payload.refs)


def dumps(value: Any) -> Serialized:
    return keep(serialization.dumps(value, raw))


def wrap(payload: Serialized, describe: Describe) -> Parcel:
    """The parcel of a payload that has passed `keep`."""
    if isinstance(payload, bytes):
        return payload
    named = [describe(each) for each in payload.refs]
    if isinstance(payload, Stored):
        return payload.ref, payload.index, named
    return payload.data, payload.buffers, named


def unwrap(parcel: Parcel, recognize: Recognize) -> Serialized:
    if isinstance(parcel, bytes):
        return parcel
    named = tuple(recognize(each) for each in parcel[-1])
    if not isinstance(parcel[0], bytes):
        return Stored(parcel[0], parcel[1], named)
    return Payload(parcel[0], parcel[1], named)
