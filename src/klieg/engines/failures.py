"""Exceptions to payloads and back.

An exception travels as data: its class, its arguments, its state and its printed traceback, each pickled by itself.
It is rebuilt without running its constructor, so that one with required arguments, or with a `__reduce__` that fails,
still comes home as its own type. What cannot be pickled is left out; the text is always kept.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import traceback
import types
from collections.abc import Callable
from typing import Any

from klieg.engines import by_value
from klieg.exceptions import KliegError, TaskError, UnserializableException, members
from klieg.outcome import Serialized

TEXT_LIMIT = 1 << 20
"""Characters of a traceback that travel; a `__repr__` of 100 MB must not fill the caller's memory."""

CHAIN_LIMIT = 20
"""Links of `__cause__` and `__context__` that travel."""


def dumps(error: BaseException, function_name: str) -> bytes:
    """The payload of an exception that `function_name` raised. Never raises."""
    try:
        if isinstance(error, KliegError) and not isinstance(error, TaskError):
            return pickle.dumps(("klieg", pickle.dumps(error)))
        cause: BaseException | None = error
        if isinstance(error, TaskError):  # it passed through a task that asked for it: keep the first cause
            cause = error.cause
        text = format_traceback(error, function_name)
        return pickle.dumps(("task", function_name, text, os.getpid(), _exception_state(cause)))
    except BaseException as problem:
        # Reached only by objects that fight back (an exit in `__repr__`, say); the call must still get an answer.
        text = f"{function_name} raised {_type_name(error)}, which could not be described: {type(problem).__name__}"
        return pickle.dumps(("task", function_name, text, os.getpid(), None))


def loads(payload: Serialized) -> Exception:
    """The exception to raise: a fresh one at each call, so that raising it twice does not grow its traceback."""
    assert isinstance(payload, bytes)
    kind, *rest = pickle.loads(payload)
    if kind == "klieg":
        error = pickle.loads(rest[0])
        assert isinstance(error, Exception)
        return error
    function_name, text, pid, state = rest
    cause = _rebuild(state, text) if state is not None else None
    if cause is not None and isinstance(cause, asyncio.CancelledError):
        # An awaiter that was handed a CancelledError would take itself for cancelled.
        return TaskError(function_name, text, cause, pid)
    return TaskError(function_name, text, cause, pid).as_instanceof_cause()


def format_traceback(error: BaseException, function_name: str) -> str:
    """The traceback as text, from the user's first frame on, under a line that says whose it is."""
    head = f"{function_name}() (pid={os.getpid()})\n"
    if isinstance(error, TaskError):
        inner = error.traceback_str
        own = "".join(traceback.format_tb(_skip_own_frames(error.__traceback__)))
        return (head + own + inner)[:TEXT_LIMIT]
    try:
        lines = traceback.format_exception(type(error), error, _skip_own_frames(error.__traceback__))
        text = "".join(lines).rstrip("\n")
    except BaseException as problem:
        text = f"{_type_name(error)} (its text could not be made: {type(problem).__name__})"
    return (head + text)[:TEXT_LIMIT]


def _skip_own_frames(frames: types.TracebackType | None) -> types.TracebackType | None:
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("klieg."):
        frames = frames.tb_next
    return frames


def _type_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


State = tuple[str, bytes | None, bytes | None, dict[str, bytes], dict[str, bytes], Any, Any, bool, tuple[Any, ...]]


def _exception_state(error: BaseException | None, seen: frozenset[int] = frozenset()) -> State | None:
    if error is None or id(error) in seen or len(seen) >= CHAIN_LIMIT:
        return None
    seen |= {id(error)}
    group: tuple[BaseException, ...] = ()
    said = getattr(error, "args", ())
    if isinstance(error, BaseExceptionGroup):
        group, said = error.exceptions, error.message
    return (
        _type_name(error),
        _try_pickle(type(error)),
        _try_pickle(said),
        _pickle_each(members(error)),
        _pickle_each(getattr(error, "__dict__", {})),
        _exception_state(error.__cause__, seen),
        _exception_state(error.__context__, seen),
        error.__suppress_context__,
        tuple(_exception_state(part, seen) for part in group),
    )


def _pickle_each(values: dict[Any, Any]) -> dict[str, bytes]:
    pickled = {key: _try_pickle(value) for key, value in values.items() if isinstance(key, str)}
    return {key: data for key, data in pickled.items() if data is not None}


def _try_pickle(value: Any) -> bytes | None:
    try:
        data = by_value.dumps(value)
    except BaseException:  # a `__reduce__` may raise anything, `SystemExit` included
        return None
    return data


def _try_load(data: bytes | None, default: Any = None) -> Any:
    if data is None:
        return default
    try:
        return pickle.loads(data)
    except BaseException:
        return default


def _rebuild(state: State, text: str) -> BaseException:
    type_name, cls, args, member_values, attributes, cause, context, suppress, parts = state
    error = _new(_try_load(cls), _try_load(args, ()), tuple(_rebuild(p, "") for p in parts if p))
    if error is None:
        error = UnserializableException(f"{type_name} could not be rebuilt in this process. The original:\n{text}")
    for name, data in attributes.items():
        _set_quietly(error, name, _try_load(data))
    for name, data in member_values.items():
        _set_quietly(error, name, _try_load(data))
    error.__cause__ = _rebuild(cause, "") if cause else None
    error.__context__ = _rebuild(context, "") if context else None
    error.__suppress_context__ = suppress
    return error


def _new(cls: Any, args: Any, parts: tuple[BaseException, ...]) -> BaseException | None:
    """An exception of the class without its constructor run; None if there is no way."""
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        return None
    base: Any = next(c for c in cls.__mro__ if c.__module__ == "builtins")
    attempts: list[Callable[[], BaseException]] = [lambda: base.__new__(cls, args, parts)] if parts else []
    attempts += [lambda: base.__new__(cls, *args), lambda: base.__new__(cls)]
    for attempt in attempts:
        try:
            error = attempt()
        except BaseException:
            continue
        if not parts:
            _set_quietly(error, "args", args)
        return error
    return None


def _set_quietly(error: BaseException, name: str, value: Any) -> None:
    try:
        setattr(error, name, value)
    except Exception:  # read-only, or a property with a mind of its own
        try:
            error.__dict__[name] = value
        except Exception:
            return


NOTHING = pickle.dumps(None)
"""The payload of None."""
