"""Context variables that travel with calls: which ones, and their values on the way from a caller into its calls.

    caller's context ──pack──► one more keyword of the call ──unpack──► the call's own context

Every process knows the chosen variables from its start, so that their values go on to whatever the call itself calls.
"""

from __future__ import annotations

import contextvars
import importlib
import importlib.util
import operator
import pickle
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

CARRIED: Final = "the context variables"
"""The keyword under which the values travel, beside the user's own. Errors show it; no parameter has such a name."""

OPENTELEMETRY: Final = "opentelemetry"
"""The name under which OpenTelemetry's current context travels, in the form it has in the headers of a request."""

_UNSET: Final = object()

Described = Sequence[str]
"""One variable as JSON can carry it: its module, its name, and its pickled default in hexadecimal digits.

Module and default are empty if there is none. A variable that no module names is told from others by its own name."""

_described: dict[str, Described] = {}
"""What `use` was told, by `module:name`."""
_found: dict[str, contextvars.ContextVar[Any]] = {}
"""The variables that this process has come across, by the same."""
_traces = False
active = False
"""True if anything may travel: what a call costs otherwise."""


def describe(variables: Iterable[contextvars.ContextVar[Any]]) -> list[Described]:
    """What the processes of a runtime must know of these variables to find or make their own.

    Raises:
        TypeError: something that is no context variable, or a default that cannot be pickled.
        ValueError: two variables, of no module, with one name.
    """
    described: dict[str, Described] = {}
    for variable in variables:
        if not isinstance(variable, contextvars.ContextVar):
            raise TypeError(f"`propagate` takes context variables, not {type(variable).__name__}.")
        module, name = _place_of(variable)
        key = f"{module}:{name}"
        if key in described and _found[key] is not variable:
            raise ValueError(f"`propagate` names two context variables {name!r}, and no module tells them apart.")
        described[key] = (module, name, "" if module else _default_of(variable))
        _found[key] = variable
    return list(described.values())


def _place_of(variable: contextvars.ContextVar[Any]) -> tuple[str, str]:
    """The module that names the variable, and its name there: `name`, or `Class.name`; no module, if none does."""
    for module_name, module in list(sys.modules.items()):
        if module_name != "__main__" and isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if value is variable:
                    return module_name, name
                if isinstance(value, type) and value.__module__ == module_name:
                    for attribute, inner in list(vars(value).items()):
                        if inner is variable:
                            return module_name, f"{name}.{attribute}"
    return "", variable.name


def _default_of(variable: contextvars.ContextVar[Any]) -> str:
    try:
        default = contextvars.Context().run(variable.get)
    except LookupError:
        return ""
    try:
        return pickle.dumps(default).hex()
    except Exception as error:
        raise TypeError(
            f"The default of the context variable {variable.name!r}, {default!r}, cannot be pickled: {error}"
        ) from error


def is_tracing_installed() -> bool:
    return importlib.util.find_spec("opentelemetry") is not None


def use(described: Iterable[Described], traces: bool) -> None:
    """From now on these variables travel with the calls that this process makes, and OpenTelemetry's context if asked.

    The variables that `describe` has met in this process are those variables."""
    global active, _traces
    _described.clear()
    _described.update({f"{module}:{name}": (module, name, default) for module, name, default in described})
    for key in _found.keys() - _described.keys():
        del _found[key]
    _traces = traces
    active = bool(_described) or traces


def pack(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a call that is made now, and what travels with it."""
    values = {}
    for key in _described:
        variable = _found.get(key) or _look_up(key)
        value = _UNSET if variable is None else variable.get(_UNSET)
        if value is not _UNSET:
            values[key] = value
    trace = _current_trace() if _traces else None
    if trace:
        values[OPENTELEMETRY] = trace
    return {**kwargs, CARRIED: values} if values else kwargs


def unpack(values: Mapping[str, Any]) -> None:
    """Set what has travelled with a call, in the current context, which is the call's own."""
    for key, value in values.items():
        if key == OPENTELEMETRY:
            _restore_trace(value)
        else:
            find(key).set(value)


def reduce(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """How pickle writes down a variable that is chosen, or that a module names; TypeError for another."""
    for key, known in _found.items():
        if known is variable:
            return find, (key,)
    module, name = _place_of(variable)
    if module:
        return operator.attrgetter(name), (importlib.import_module(module),)
    raise TypeError(
        f"the context variable {variable.name!r} means nothing in another process, unless "
        "it is a global of a module that can be imported there, or `klieg.init(propagate=[...])` names it"
    )


def find(key: str) -> contextvars.ContextVar[Any]:
    """This process's variable of that name, whose module is imported for it."""
    if key not in _found:
        module, name, default = _described[key]
        if module:
            importlib.import_module(module)
        else:
            _found[key] = _make(name, default)
    return _found.get(key) or _look_up(key) or _no_variable(key)


def _make(name: str, default: str) -> contextvars.ContextVar[Any]:
    if not default:
        return contextvars.ContextVar(name)
    value = pickle.loads(bytes.fromhex(default))
    return contextvars.ContextVar(name, default=value)


def _look_up(key: str) -> contextvars.ContextVar[Any] | None:
    """The variable of a module; None if this process has not imported that: then nobody here has set it."""
    module, name, _ = _described[key]
    found: Any = sys.modules.get(module)
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    if isinstance(found, contextvars.ContextVar):
        _found[key] = found
        return found
    return None


def _no_variable(key: str) -> contextvars.ContextVar[Any]:
    raise LookupError(f"There is no context variable {key} in this process, though its caller's value of it has come.")


def _current_trace() -> dict[str, str] | None:
    """OpenTelemetry's current context, if the program uses it and there is one."""
    context = sys.modules.get("opentelemetry.context")
    if context is None or not context.get_current():
        return None
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _restore_trace(carrier: Mapping[str, str]) -> None:
    try:
        from opentelemetry import context, propagate
    except ImportError:  # a node of a cluster may lack it, and then nothing there asks for it
        return
    context.attach(propagate.extract(carrier))
