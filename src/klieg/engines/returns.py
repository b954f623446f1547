"""From what a method returned to the payloads of its refs."""

from __future__ import annotations

import inspect
from typing import Any

from klieg.engines.failures import NOTHING
from klieg.engines.serialization import KeepBuffer, copy_buffer, dumps
from klieg.engines.unpicklable import explain_value
from klieg.exceptions import ObjectStoreFullError
from klieg.outcome import Serialized
from klieg.task import STREAMS, TaskSpec


def split_returns(value: Any, spec: TaskSpec, keep: KeepBuffer = copy_buffer) -> list[Serialized]:
    """One payload for each ref of the call.

    Raises ValueError or TypeError where the value does not fit `num_returns`, and TypeError where it cannot be pickled.
    """
    count = spec.num_returns
    if count == 1:
        return [_dumps_one(value, spec, keep)]
    if count == 0 or count in STREAMS:
        return [NOTHING]
    assert isinstance(count, int)
    if inspect.isgenerator(value):
        value = list(value)
    try:
        values = list(value)
    except TypeError:
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(
            f"{spec.name}() has num_returns={count} and must return that many objects, not one {type(value).__name__}."
        ) from None
    if len(values) != count:
        raise ValueError(f"Task returned {len(values)} objects, but num_returns={count}.")
    return [_dumps_one(item, spec, keep) for item in values]


def _dumps_one(value: Any, spec: TaskSpec, keep: KeepBuffer) -> Serialized:
    try:
        return dumps(value, keep)
    except ObjectStoreFullError:
        raise
    except Exception as error:
        if inspect.isgenerator(value) or inspect.isasyncgen(value):
            raise TypeError(
                f'{spec.name}() returned a generator; call it with `.options(num_returns="streaming")` to receive '
                "its items, or return a list."
            ) from None
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(
                f"{spec.name}() returned a coroutine, and nothing awaits it where it ran: run it with "
                "`asyncio.run(...)` there, or make it an `async def` method, which an async actor awaits."
            ) from None
        raise explain_value(error, f"what {spec.name}() returned", value) from None  # it has the error's text
