"""Frames of every kind, and what a hostile or broken peer makes of them; the same for the same generator."""

from __future__ import annotations

import json
import pickle
import random

from klieg.engines.local import wire

PAYLOAD = pickle.dumps([1, "two", {"three": 4.0}])


def _described(kind: int, **fields: object) -> bytes:
    description = wire.Description(**fields)
    description.fields["args"] = description.payload(PAYLOAD)
    description.fields["values"] = [description.payload(PAYLOAD)]
    return description.frame(kind, 3)


def every_kind() -> list[bytes]:
    """A sound frame of each kind there is."""
    spec = {
        "name": "f", "method": "echo", "num_returns": 1, "group": "default", "run_in": "loop", "backpressure": -1,
    }  # fmt: skip
    full = {
        wire.CALL_FULL: _described(wire.CALL_FULL, spec=1, deadline=None),
        wire.INIT: _described(wire.INIT, cls=10, paths=[], restarted=False, deadline=None),
        wire.VALUE_FULL: _described(wire.VALUE_FULL),
        wire.ITEM_FULL: _described(wire.ITEM_FULL, index=0),
    }
    bodies = {
        wire.SPEC: json.dumps(spec).encode(),
        wire.FUNCTION: bytes(16) + wire.SPEC_NUMBER.pack(2) + b"[]" + PAYLOAD,
        wire.CANCEL: wire.CANCEL_BODY.pack(wire.CANCELLED, True),
        wire.GRANT: wire.SIGNED.pack(4),
        wire.RESIZE: b'{"default": 3}',
        wire.RELEASE: b"[[5, 1]]",
        wire.LEND: b"[5, 6]",
        wire.CANCEL_LENT: b"[5, false, true]",
        wire.FETCH: b"5",
        wire.RETRACT: b"5",
        wire.MISSED: b"5",
        wire.CONTROL: b'{"verb": "names", "request": 1}',
    }
    kinds = range(wire.CALL, wire.CONTROL + 4)
    sound = [full.get(kind) or wire.frame(kind, 3, bodies.get(kind, PAYLOAD)) for kind in kinds]
    return [*sound, wire.call_frame(3, 1, PAYLOAD), wire.item_frame(3, 0, PAYLOAD)]


def mutated(frame: bytes, chance: random.Random) -> bytes:
    """The frame with a few things wrong. Half of them keep a true length, so that what is inside gets looked at."""
    data = bytearray(frame)
    for _ in range(chance.randint(1, 4)):
        _CHANGES[chance.randrange(len(_CHANGES))](data, chance)
    if chance.random() < 0.5 and len(data) >= wire.HEADER.size:
        data[: wire.LENGTH.size] = wire.LENGTH.pack(len(data) - wire.LENGTH.size)
    return bytes(data)


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randint(0, len(data)) :]


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.randbytes(chance.randint(1, 20))


def _repeat(data: bytearray, chance: random.Random) -> None:
    data += data[: chance.randint(0, len(data))]


def _say_another_length(data: bytearray, chance: random.Random) -> None:
    data[: wire.LENGTH.size] = wire.LENGTH.pack(
        chance.choice([0, 1, 8, 9, 17, 1 << 20, 1 << 31, 1 << 41, (1 << 64) - 1])
    )


def _say_another_kind(data: bytearray, chance: random.Random) -> None:
    if len(data) > wire.LENGTH.size:
        data[wire.LENGTH.size] = chance.randrange(40)


_CHANGES = (_flip, _flip, _cut, _insert, _repeat, _say_another_length, _say_another_kind)
