"""What callers and actors say to each other, as plain tuples for Ray to pickle."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, Final

from klieg.engines.functions import Exported
from klieg.placement import Placement
from klieg.settings import Settings
from klieg.task import TaskSpec

VALUE: Final = 0
"""(number, VALUE, parcel): the call has returned."""
ERROR: Final = 1
"""(number, ERROR, failure): it has raised."""
VALUES: Final = 2
"""(number, VALUES, parcels): it has returned one value for each of its refs."""
ITEM: Final = 3
"""(number, ITEM, index, parcel): a generator has yielded."""
LARGE: Final = 4
"""In the place of a parcel: (LARGE, key, named). The contents are with the actor until the caller takes them."""

Record = tuple[Any, ...]

SPECS_KEPT: Final = 500
"""Specs that a caller takes for known to an actor; the actor keeps twice as many, so that none is missed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """What a worker must know of the runtime it works for."""

    key: str
    """Tells one runtime from the next, since Ray uses a worker process again."""
    namespace: str
    settings: Settings
    paths: tuple[str, ...]
    """The driver's import path; what does not exist on a node is left out there."""
    shipped: int
    """Modules that klieg has added to the runtime environment of the job, in front of the user's."""


@dataclasses.dataclass(frozen=True, slots=True)
class ActorFacts:
    """What an actor's process must know of its actor."""

    number: int
    mode: str
    max_concurrency: int | None
    name: str
    info: bytes
    """A pickled `ClassInfo`."""
    cls: bytes | None
    """The pickled class; None for a worker of tasks."""
    placement: Placement
    """Where it lives, and what it holds as long as it does."""


CallRecord = tuple[int, int, Any, Any, float | None]
"""(number, number of the spec, parcel of the arguments, parcels for top-level refs or None, seconds left or None)."""

SpecRecord = tuple[int, TaskSpec, Exported | None]
"""(its number, the spec, the function if it is one)."""

Message = bytes | tuple[Any, ...]
"""An exchange, or its answer: pickled here if everything in it is plain, since one bytes object costs Ray a third of a
millisecond less than a handful of others; else as it is, so that Ray sees the refs and handles inside."""


def close(message: tuple[Any, ...], is_plain: bool) -> Message:
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL) if is_plain else message


def open_(message: Message) -> tuple[Any, ...]:
    opened: tuple[Any, ...] = pickle.loads(message) if isinstance(message, bytes) else message
    return opened


HOOK_GRACE: Final = 4.0
"""Seconds that the shutdown hook of an actor may take."""

CANCELLED: Final = 0
EXPIRED: Final = 1
"""Why a call is to end."""
