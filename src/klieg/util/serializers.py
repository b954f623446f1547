"""How objects of a class travel, if not by pickle; and what of an object it is that cannot travel."""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TextIO, TypeVar

from klieg.engines import unpicklable

T = TypeVar("T")

_before: Final[dict[type, Any]] = {}
"""What `copyreg` had for a class, None if nothing."""


def register_serializer(cls: type[T], *, serializer: Callable[[T], Any], deserializer: Callable[[Any], T]) -> None:
    """Have objects of exactly this class pickled, in this process, as what `serializer` makes of them.

    `deserializer` travels with each object, so that whoever gets it needs no registration; a process that sends such
    objects does. It holds for all pickling in the process and for `copy.copy`: the table is Python's own, `copyreg`.
    """

    def reduce(value: T) -> tuple[Any, ...]:
        return _rebuild, (deserializer, serializer(value))

    _before.setdefault(cls, copyreg.dispatch_table.get(cls))
    copyreg.pickle(cls, reduce)


def deregister_serializer(cls: type) -> None:
    """Undo `register_serializer` in this process; does nothing if there was none."""
    if cls not in _before:
        return
    before = _before.pop(cls)
    if before is None:
        copyreg.dispatch_table.pop(cls, None)
    else:
        copyreg.pickle(cls, before)


def _rebuild(deserializer: Callable[[Any], Any], data: Any) -> Any:
    return deserializer(data)


class FailureTuple(NamedTuple):
    """Something that cannot be pickled by itself."""

    obj: Any
    name: str
    """The way to it, from the object that was asked about."""
    parent: Any
    """What holds it."""

    def __hash__(self) -> int:  # the objects may have none
        return hash((id(self.obj), self.name))

    def __eq__(self, other: object) -> bool:  # nor may they be compared: numpy's arrays give no answer
        return isinstance(other, FailureTuple) and self.obj is other.obj and self.name == other.name


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether an object can be sent, and the innermost parts that stand in the way, which are printed, too.

    Args:
        name: what to call the object; default: as it calls itself.
        depth: how far to look inside.
        print_file: where to print; default: stdout.
    """
    called = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__name__
    found = [FailureTuple(*one) for one in unpicklable.failures(base_obj, called, depth)]
    out = print_file if print_file is not None else sys.stdout
    if not found:
        out.write(f"{called} can be pickled.\n")
    for one in found:
        out.write(f"{called} cannot be pickled: {one.name} is {unpicklable.short(one.obj)}.\n")
    return not found, set(found)
