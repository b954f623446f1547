"""Frames: what travels between processes, as bytes. Pure: values in, bytes out, and back.

    frame    length (8 bytes, of what follows) | kind (1) | number (8) | body
    call     body = spec number (4) | payload
    full     body = length of the description (4) | description, JSON | blobs

The common case, a small payload with nothing beside it, is a fixed header and the bare pickle. Everything else has a
description that says which blobs follow and what they are. Nothing is unpickled here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, Final

from klieg.engines.objects import ActorToken
from klieg.engines.serialization import Named
from klieg.outcome import Payload, Serialized

(
    CALL, CALL_FULL, INIT, SPEC, FUNCTION,  # towards the one who runs
    VALUE, VALUE_FULL, ERROR, ITEM, ITEM_FULL, RETURNED,  # towards the caller
    GRANT, CANCEL, EXIT, STATS, RESIZE,
    FETCH, LEND, RELEASE, CANCEL_LENT,  # between owner and borrower
    RETRACT, MISSED, MAKE_ROOM,  # shared memory
    CONTROL,  # to and from the head
) = range(1, 25)  # fmt: skip

HEADER: Final = struct.Struct("<QBQ")
CALL_HEADER: Final = struct.Struct("<QBQI")
ITEM_HEADER: Final = struct.Struct("<QBQQ")
LENGTH: Final = struct.Struct("<Q")
SPEC_NUMBER: Final = struct.Struct("<I")
INDEX: Final = struct.Struct("<Q")
SIGNED: Final = struct.Struct("<q")
CANCEL_BODY: Final = struct.Struct("<B?")
"""Why the call is to end, and whether its children are to follow."""
CANCELLED, EXPIRED = 0, 1

BEHIND_LENGTH: Final = HEADER.size - LENGTH.size
"""Bytes of the header that the length counts."""

MAX_FRAME: Final = 1 << 40
"""A longer frame is taken for garbage: no machine this runs on could hold it."""

MAX_FDS: Final = 250
"""Descriptors in one message; Linux allows 253."""

Frame = tuple[int, int, bytes]
"""(kind, number, body)"""


class WireError(Exception):
    """The peer sent something that is no frame; the connection cannot go on."""


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    return HEADER.pack(BEHIND_LENGTH + len(body), kind, number) + body


def call_frame(number: int, spec: int, payload: bytes) -> bytes:
    return CALL_HEADER.pack(BEHIND_LENGTH + 4 + len(payload), CALL, number, spec) + payload


def item_frame(number: int, index: int, payload: bytes) -> bytes:
    return ITEM_HEADER.pack(BEHIND_LENGTH + 8 + len(payload), ITEM, number, index) + payload


def control_frame(message: dict[str, Any]) -> bytes:
    return frame(CONTROL, 0, json.dumps(message).encode())


class Decoder:
    """Cuts a stream of bytes into frames. Holds at most one unfinished frame, as the bytes that have come of it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes; WireError if it cannot be the start of one."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        return self._cut(data)

    @property
    def missing(self) -> int:
        """How many bytes the unfinished frame still lacks; 0 if there is none."""
        return self._need - self._have if self._parts else 0

    def _cut(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        unpack, size, start, end = HEADER.unpack_from, HEADER.size, 0, len(data)
        while end - start >= size:
            length, kind, number = unpack(data, start)
            if not BEHIND_LENGTH <= length <= MAX_FRAME:
                raise WireError(f"a frame of {length} bytes was announced")
            stop = start + 8 + length
            if stop > end:
                self._keep(data[start:], 8 + length)
                return frames
            frames.append((kind, number, data[start + size : stop]))
            start = stop
        if start < end:
            self._keep(data[start:], size)
        return frames

    def _keep(self, rest: bytes, need: int) -> None:
        self._parts = [rest]
        self._have = len(rest)
        self._need = need


class Description:
    """Collects payloads, and what else a full frame says, into one description and the blobs behind it."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        self._blobs: list[Any] = []
        self.blocks: list[Any] = []
        """The parts of shared memory that the frame names."""
        self.named: list[Named] = []
        """The refs and actors that it names."""

    def blob(self, data: Any) -> int:
        self._blobs.append(data)
        return len(data)

    def payload(self, payload: Serialized) -> Any:
        """How the payload is described; its bytes join the blobs."""
        if isinstance(payload, bytes):
            return self.blob(payload)
        data = self._buffer(payload.data)
        buffers = [self._buffer(buffer) for buffer in payload.buffers]
        self.named.extend(payload.refs)
        refs = [[named.id, isinstance(named, ActorToken)] for named in payload.refs]
        return {"data": data, "buffers": buffers, "refs": refs}

    def _buffer(self, buffer: Any) -> Any:
        block = getattr(buffer, "block", None)
        if block is None:
            return self.blob(buffer)
        self.blocks.append(block)
        return {"block": block.id, "segment": block.segment.id, "start": block.start, "size": block.size}

    def frame(self, kind: int, number: int, segments: Sequence[tuple[int, int]] = ()) -> bytes:
        """The frame; the descriptors of `segments` (number, inode), new to the peer, go with it in this order."""
        if segments:
            self.fields["segments"] = segments
        head = json.dumps(self.fields).encode()
        length = BEHIND_LENGTH + 4 + len(head) + sum(map(len, self._blobs))
        return b"".join([HEADER.pack(length, kind, number), SPEC_NUMBER.pack(len(head)), head, *self._blobs])


class Reader:
    """Reads a full frame's body: the description, then its blobs in the order in which they are asked for."""

    def __init__(self, body: bytes) -> None:
        try:
            (length,) = SPEC_NUMBER.unpack_from(body)
            self.fields: dict[str, Any] = json.loads(body[4 : 4 + length])
        except (struct.error, ValueError) as error:
            raise WireError(f"a description that cannot be read: {error}") from None
        if not isinstance(self.fields, dict):
            raise WireError("a description that is no object")
        self._body = memoryview(body)
        self._at = 4 + length

    def blob(self, length: int) -> memoryview:
        stop = self._at + length
        if length < 0 or stop > len(self._body):
            raise WireError("a blob that lies outside its frame")
        blob = self._body[self._at : stop]
        self._at = stop
        return blob

    def payload(self, description: Any, open_stored: Any, open_named: Any) -> Serialized:
        """The payload of a description; `open_stored` and `open_named` find what it names in this process."""
        if isinstance(description, int):
            return bytes(self.blob(description))
        try:
            data = self._buffer(description["data"], open_stored)
            buffers = tuple(self._buffer(b, open_stored) for b in description["buffers"])
            named = tuple(open_named(number, is_actor) for number, is_actor in description["refs"])
            return Payload(data, buffers, named)
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"a payload that cannot be read: {error!r}") from None

    def _buffer(self, description: Any, open_stored: Any) -> Any:
        return self.blob(description) if isinstance(description, int) else open_stored(description)
