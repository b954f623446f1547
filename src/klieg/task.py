"""Task specs: the frozen description of one kind of call.

A spec is made once for each remote function or actor method (and for each `.options()` of it) and used for every call;
a call is a spec, an id and arguments. So an engine can send the description once and refer to it afterwards.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from klieg.options import DEFAULT_GROUP, ActorOptions
from klieg.placement import ANYWHERE, Placement

STREAMS: Final = ("streaming", "dynamic")
"""The values of `num_returns` with which the items of a generator travel one by one."""

Kind = Literal["sync", "async", "generator", "async_generator"]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """What arguments a function takes, without its defaults, so that it can travel to where the function cannot."""

    parameters: tuple[tuple[str, int, bool], ...]
    """(name, kind as `inspect.Parameter.kind`, has a default), in order, without `self`."""
    positional: tuple[int, int]
    """A call by position alone with this many arguments (least, most) always fits."""

    @classmethod
    def of(cls, function: Callable[..., Any], drop_first: bool = False) -> Signature:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):  # some C functions have none: everything fits, the call itself will tell
            return ANY_ARGUMENTS
        return cls.from_parameters(parameters[1:] if drop_first and _takes_self(parameters) else parameters)

    @classmethod
    def from_parameters(cls, parameters: Sequence[inspect.Parameter]) -> Signature:
        described = tuple((p.name, int(p.kind), p.default is not p.empty) for p in parameters)
        plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needs_keyword = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        least = sum(p.default is p.empty for p in plain)
        most = 1 << 30 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(plain)
        return cls(described, (1, 0) if needs_keyword else (least, most))

    def check(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise a TypeError for arguments that the call of `name` itself would refuse."""
        least, most = self.positional
        if not kwargs and least <= len(args) <= most:
            return
        try:
            self._inspect_signature().bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None

    def _inspect_signature(self) -> inspect.Signature:
        make = inspect.Parameter
        return inspect.Signature(
            [
                make(name, inspect._ParameterKind(kind), default=None if optional else make.empty)
                for name, kind, optional in self.parameters
            ]
        )


ANY_ARGUMENTS = Signature(
    (("args", int(inspect.Parameter.VAR_POSITIONAL), False), ("kwargs", int(inspect.Parameter.VAR_KEYWORD), False)),
    (0, 1 << 30),
)


def _takes_self(parameters: Sequence[inspect.Parameter]) -> bool:
    return bool(parameters) and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """What one call is to do. Compared by identity: one spec, one entry in a peer's table of known specs."""

    name: str
    """As in errors and logs: `f` or `Class.method`."""
    function: FunctionSpec | None = None
    """The remote function; None for a method."""
    method: str = ""
    """The method's name; empty for a function."""
    num_returns: int | Literal["streaming", "dynamic"] = 1
    group: str = DEFAULT_GROUP
    run_in: Literal["loop", "thread"] = "loop"
    timeout: float | None = None
    """Seconds from submission."""
    max_retries: int = 0
    """How often the call may be sent again after the process that ran it died; -1: without end."""
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    cancel_on_await_cancel: bool = False
    backpressure: int = -1
    """Items of a generator that may wait for the consumer; -1: no limit."""
    signature: Signature = ANY_ARGUMENTS

    def replace(self, **changes: Any) -> TaskSpec:
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(slots=True, eq=False)
class FunctionSpec:
    """A remote function and what a worker needs to run it. Compared by identity."""

    function: Callable[..., Any]
    name: str
    placement: Placement = ANYWHERE
    """What one running call of it holds, and where."""
    max_concurrency: int = 1
    """Above 1 for async tasks: so many share one worker's loop."""
    max_calls: int = 0
    """How many calls of it a worker runs before it ends; 0: no limit."""

    def runs_like(self, other: FunctionSpec) -> bool:
        """True if a worker that fits one fits the other."""
        return (self.placement, self.max_concurrency, self.max_calls) == (
            other.placement,
            other.max_concurrency,
            other.max_calls,
        )

    @property
    def demand(self) -> Mapping[str, float]:
        return self.placement.demand


@dataclasses.dataclass(frozen=True, slots=True)
class MethodInfo:
    """What a handle knows of one method."""

    kind: Kind
    signature: Signature
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What `@method(...)` declared."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ClassInfo:
    """What a handle knows of its actor's class; travels with the handle, needs nothing of the class itself."""

    name: str
    is_async: bool
    methods: Mapping[str, MethodInfo]
    groups: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The size of each declared concurrency group."""
    own_loops: frozenset[str] = frozenset()
    """The groups that have an event loop of their own."""
    max_concurrency: int | None = None
    """As it was given; None: 1,000 if the class is async, else 1."""
    max_task_retries: int = 0
    max_pending_calls: int = -1
    on_full: str = "raise"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ActorSpec:
    """What one actor is to be."""

    cls: type
    info: ClassInfo
    options: ActorOptions
