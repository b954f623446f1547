"""Says which part of a value cannot be pickled."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Final

from klieg.engines import by_value

DEPTH: Final = 6
"""How far to look inside; deeper than this the path would no longer help."""
BREADTH: Final = 200
"""Children looked at for each object, so that a huge list does not make the error slow."""


def explain(error: Exception, name: str, args: list[Any], kwargs: dict[str, Any]) -> TypeError:
    """The TypeError for arguments of the function or method `name` that could not be pickled because of `error`."""
    for place, argument in [*((f"argument {i}", a) for i, a in enumerate(args)), *kwargs.items()]:
        if not _can_pickle(argument):
            path, culprit = find(argument, place)
            return TypeError(
                f"Could not pickle the arguments of {name}(): {path} is {short(culprit)}, which cannot be pickled "
                f"({type(error).__name__}: {error})."
            )
    return TypeError(f"Could not pickle the arguments of {name}() ({type(error).__name__}: {error}).")


def explain_value(error: Exception, where: str, value: Any) -> TypeError:
    """The TypeError for one value (a result, a function) that could not be pickled because of `error`."""
    path, culprit = find(value, "the value")
    return TypeError(
        f"Could not pickle {where}: {path} is {short(culprit)}, which cannot be pickled "
        f"({type(error).__name__}: {error})."
    )


def find(value: Any, path: str, depth: int = DEPTH) -> tuple[str, Any]:
    """The path to, and the innermost part of `value` that cannot be pickled by itself."""
    if depth:
        for step, child in _children(value):
            if not _can_pickle(child):
                return find(child, path + step, depth - 1)
    return path, value


def failures(value: Any, name: str, depth: int, parent: Any = None) -> Iterator[tuple[Any, str, Any]]:
    """(part, way to it, what holds it) for each innermost part of the value that cannot be pickled by itself."""
    if _can_pickle(value):
        return
    inside = [(step, child) for step, child in _children(value) if not _can_pickle(child)] if depth else []
    if not inside:
        yield value, name, parent
    for step, child in inside:
        yield from failures(child, name + step, depth - 1, value)


def _can_pickle(value: Any) -> bool:
    try:
        by_value.dumps(value)
    except Exception:
        return False
    return True


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    found: Iterator[tuple[str, Any]]
    if isinstance(value, dict):
        found = ((f"[{key!r}]", child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        found = ((f"[{i}]", child) for i, child in enumerate(value))
    elif isinstance(value, types.FunctionType):
        found = _captured(value)
    elif isinstance(value, type):
        found = ((f".{name}", child) for name, child in vars(value).items() if not name.startswith("__"))
    else:
        found = ((f".{name}", child) for name, child in getattr(value, "__dict__", {}).items())
    for _, pair in zip(range(BREADTH), found, strict=False):
        yield pair


def _captured(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield f" captures {name!r}, which", cell.cell_contents
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" uses the global {name!r}, which", function.__globals__[name]
    for i, default in enumerate(function.__defaults__ or ()):
        yield f" has the default argument {i}, which", default


def short(value: Any) -> str:
    """Its repr, or a beginning of it."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
