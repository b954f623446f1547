"""Numbers that name things, and the id classes a Ray user expects around them.

Inside klieg an id is one `int`: the number of the process that made it in the high bits, a counter in the low 64.
So an object's id names its owner, and no two processes can make the same one. The public classes below only dress
such a number.
"""

import itertools
import secrets
from collections.abc import Callable
from typing import ClassVar, Final, Self

COUNTER_BITS = 64
COUNTER_MASK = (1 << COUNTER_BITS) - 1

PROCESS_BITS = 62
"""Process numbers are random: 62 bits keep a collision among a million processes below one in a million."""


def new_process_number() -> int:
    return secrets.randbits(PROCESS_BITS) | 1


def id_maker(process: int) -> Callable[[], int]:
    """A function that returns a fresh id of `process` at each call; safe from any thread."""
    return itertools.count((process << COUNTER_BITS) + 1).__next__


def process_of(number: int) -> int:
    """The process that made the id, which is the owner of what it names."""
    return number >> COUNTER_BITS


class BaseID:
    """An id as Ray shows it: fixed size, `hex()`, `binary()`, equality by value."""

    SIZE: ClassVar[int] = 16
    __slots__ = ("_binary",)

    def __init__(self, binary: bytes) -> None:
        if not isinstance(binary, bytes):
            raise TypeError(f"{type(self).__name__} is made from bytes, not {type(binary).__name__}")
        if len(binary) != self.SIZE:
            raise ValueError(f"{type(self).__name__} has {self.SIZE} bytes, not {len(binary)}")
        self._binary = binary

    @classmethod
    def from_int(cls, number: int) -> Self:
        return cls((number % (1 << 8 * cls.SIZE)).to_bytes(cls.SIZE, "big"))

    @classmethod
    def from_binary(cls, binary: bytes) -> Self:
        return cls(binary)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        return cls(bytes.fromhex(text))

    @classmethod
    def from_random(cls) -> Self:
        return cls(secrets.token_bytes(cls.SIZE))

    @classmethod
    def nil(cls) -> Self:
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls) -> int:
        return cls.SIZE

    def is_nil(self) -> bool:
        return self._binary == b"\xff" * self.SIZE

    def binary(self) -> bytes:
        return self._binary

    def hex(self) -> str:
        return self._binary.hex()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._binary == other._binary

    def __hash__(self) -> int:
        return hash(self._binary)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._binary,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"


class UniqueID(BaseID):
    SIZE = 28
    __slots__ = ()


class ActorID(BaseID):
    SIZE = 16
    __slots__ = ()


class TaskID(BaseID):
    SIZE = 24
    __slots__ = ()


class JobID(BaseID):
    SIZE = 4
    __slots__ = ()


class NodeID(UniqueID):
    __slots__ = ()


class WorkerID(UniqueID):
    __slots__ = ()


class PlacementGroupID(BaseID):
    SIZE = 18
    __slots__ = ()


class FunctionID(UniqueID):
    __slots__ = ()


class ActorClassID(UniqueID):
    __slots__ = ()


class ClusterID(UniqueID):
    __slots__ = ()


JOB_ID: Final = JobID.from_int(1)
NODE_ID: Final = NodeID.from_int(1)
"""A runtime is one job on one machine."""
