"""Options of tasks, actors and calls: one table of what is allowed, one frozen object that travels.

Adding an option touches this file and the one place that obeys it. The order of checks and the types of error are
Ray's: an unknown key is a ValueError that lists the valid ones, a wrong type a TypeError, a bad value a ValueError.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from klieg.placement import ANYWHERE, Placement

DEFAULT_ASYNC_CONCURRENCY: Final = 1000
"""Calls an async actor runs at once if not told otherwise (the page, "Setting concurrency in Async Actors")."""

DEFAULT_TASK_RETRIES: Final = 3
"""How often a task is run again after its worker died (Ray's default)."""

DEFAULT_GROUP: Final = "default"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What one option accepts."""

    types: tuple[type, ...]
    check: Callable[[Any], bool] = lambda value: True
    must: str = ""
    """The end of the sentence "The keyword 'x' ..." for a bad value."""


def _count(minimum: int, special: str = "") -> Rule:
    return Rule((int,), lambda v: v >= minimum, f"only accepts {special}an integer of at least {minimum}")


_NUMBER: Final = Rule(
    (int, float), lambda v: v >= 0 and _is_counted(v), "only accepts a number of at least 0, in steps of 0.0001"
)
_GPUS: Final = Rule(
    (int, float),
    lambda v: v >= 0 and _is_counted(v) and (v <= 1 or v == int(v)),
    "only accepts a number of at least 0, in steps of 0.0001, and a whole one above 1",
)
_ANY: Final = Rule((object,))
_TEXT: Final = Rule((str,), lambda v: bool(v), "only accepts a non-empty string")
_SECONDS: Final = Rule((int, float), lambda v: v > 0, "only accepts a number of seconds greater than 0")
_POSITIVE: Final = Rule((int,), lambda v: v >= 1, "only accepts an integer of at least 1")


def _is_counted(amount: float) -> bool:
    """True if the scheduler, which counts in ten-thousandths, can count it."""
    return math.isfinite(amount) and abs(amount * 10_000 - round(amount * 10_000)) < 1e-4


def _streaming_or_count(value: Any) -> bool:
    return value in ("streaming", "dynamic") if isinstance(value, str) else value >= 0


def _resources_without_cpu(value: Any) -> bool:
    return not {"CPU", "GPU"} & set(value) and all(
        isinstance(v, int | float) and v >= 0 and _is_counted(v) for v in value.values()
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ConcurrencyGroup:
    """A concurrency group in full; where nothing but its size is to be said, the bare number will do."""

    size: int
    """Calls of it that may run at once."""
    own_loop: bool = False
    """True: its calls run on an event loop, and a thread, of their own, and go on while the actor's main loop is held.

    asyncio primitives that were made elsewhere, in the constructor for one, cannot be used there. For async actors."""

    @classmethod
    def of(cls, declared: int | ConcurrencyGroup) -> ConcurrencyGroup:
        return declared if isinstance(declared, ConcurrencyGroup) else cls(declared)


def _groups_of_positive_size(value: Any) -> bool:
    return all(isinstance(name, str) and _is_size(ConcurrencyGroup.of(group).size) for name, group in value.items())


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_CALL_RULES: Final[Mapping[str, Rule]] = {
    "num_returns": Rule(
        (int, str), _streaming_or_count, 'only accepts an integer of at least 0, "streaming" or "dynamic"'
    ),
    "retry_exceptions": Rule(
        (bool, list, tuple),
        lambda v: isinstance(v, bool) or all(isinstance(c, type) and issubclass(c, BaseException) for c in v),
        "only accepts a bool or a list of exception types",
    ),
    "_generator_backpressure_num_objects": Rule(
        (int,), lambda v: v >= 1 or v == -1, "only accepts -1 or a positive integer"
    ),
    "enable_task_events": Rule((bool,)),
    "timeout": _SECONDS,
    "cancel_on_await_cancel": Rule((bool,)),
    "name": _TEXT,
    "_labels": _ANY,
    "tensor_transport": _ANY,
}

_PLACEMENT_RULES: Final[Mapping[str, Rule]] = {
    "num_cpus": _NUMBER,
    "num_gpus": _GPUS,
    "memory": _NUMBER,
    "resources": Rule(
        (dict,),
        _resources_without_cpu,
        "must hold numbers of at least 0, in steps of 0.0001; use num_cpus and num_gpus for CPU and GPU",
    ),
    "accelerator_type": _TEXT,
    "runtime_env": Rule((dict,)),
    "scheduling_strategy": Rule(
        (object,),
        lambda v: not isinstance(v, str) or v in ("DEFAULT", "SPREAD"),
        'only accepts "DEFAULT", "SPREAD" or a strategy object',
    ),
    "label_selector": _ANY,
    "fallback_strategy": _ANY,
    "placement_group": _ANY,
    "placement_group_bundle_index": _ANY,
    "placement_group_capture_child_tasks": _ANY,
}

TASK_RULES: Final[Mapping[str, Rule]] = {
    **_CALL_RULES,
    **_PLACEMENT_RULES,
    "max_retries": _count(-1),
    "max_calls": _count(0),
    "max_concurrency": _POSITIVE,
}

METHOD_RULES: Final[Mapping[str, Rule]] = {
    **_CALL_RULES,
    "max_task_retries": _count(-1),
    "concurrency_group": _TEXT,
}

DECLARED_METHOD_RULES: Final[Mapping[str, Rule]] = {
    **{key: rule for key, rule in METHOD_RULES.items() if key not in ("name", "_labels")},
    "run_in": Rule((str,), lambda v: v in ("loop", "thread"), 'only accepts "loop" or "thread"'),
    "_num_objects_per_yield": _POSITIVE,
}

ACTOR_RULES: Final[Mapping[str, Rule]] = {
    **_PLACEMENT_RULES,
    "max_concurrency": _POSITIVE,
    "max_restarts": _count(-1),
    "max_task_retries": _count(-1),
    "max_pending_calls": _count(-1),
    "on_full": Rule((str,), lambda v: v in ("raise", "block", "await"), 'only accepts "raise", "block" or "await"'),
    "name": _TEXT,
    "namespace": _TEXT,
    "get_if_exists": Rule((bool,)),
    "lifetime": Rule((str,), lambda v: v in ("detached", "non_detached"), 'only accepts "detached" or "non_detached"'),
    "concurrency_groups": Rule((dict,), _groups_of_positive_size, "only accepts names with sizes of at least 1"),
    "allow_out_of_order_execution": Rule((bool,)),
    "enable_task_events": Rule((bool,)),
    "_labels": _ANY,
    "object_store_memory": _ANY,
    "_actor_generator_backpressure_num_objects": Rule(
        (int,), lambda v: v >= 1 or v == -1, "only accepts -1 or a positive integer"
    ),
    "enable_tensor_transport": _ANY,
}

DECORATOR_ONLY: Final = frozenset({"concurrency_groups", "max_calls"})
"""Options that belong to the definition; `.options()` refuses them, as Ray does."""

NONE_MEANS_DEFAULT: Final = frozenset({*TASK_RULES, *ACTOR_RULES, *METHOD_RULES}) - {"enable_task_events"}


def check(rules: Mapping[str, Rule], given: Mapping[str, Any], late: bool = False) -> dict[str, Any]:
    """The given options without those that are None, once each has passed its rule.

    Args:
        rules: the table of what is allowed here.
        given: keyword arguments as the user wrote them.
        late: True for `.options()`, which refuses what belongs to the decorator.

    Raises:
        ValueError: an unknown key, or a value out of range.
        TypeError: a value of the wrong type.
    """
    for key, value in given.items():
        if key not in rules:
            raise ValueError(_unknown(key, [name for name in rules if not name.startswith("_")]))
        if late and key in DECORATOR_ONLY:
            raise ValueError(f"Setting {key!r} is not supported in '.options()'; give it to the decorator.")
        _check_value(key, value, rules[key])
    return {key: value for key, value in given.items() if value is not None or key not in NONE_MEANS_DEFAULT}


def _unknown(key: str, valid: list[str]) -> str:
    return f"Invalid option keyword {key!r}.{did_you_mean(key, valid)} The valid ones are {sorted(valid)}."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The question, with a space before it, for a word that is nearly one of the known ones; else nothing."""
    import difflib  # only a mistake needs it

    found = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def _check_value(key: str, value: Any, rule: Rule) -> None:
    if value is None and key in NONE_MEANS_DEFAULT:
        return
    is_stray_bool = isinstance(value, bool) and bool not in rule.types and object not in rule.types
    if not isinstance(value, rule.types) or is_stray_bool:
        expected = " or ".join(t.__name__ for t in rule.types)
        raise TypeError(f"The type of keyword {key!r} must be {expected}, but received type {type(value).__name__}.")
    if not rule.check(value):
        raise ValueError(f"The keyword {key!r} {rule.must}; received {value!r}.")


@dataclasses.dataclass(frozen=True, slots=True)
class ActorOptions:
    """What an actor was created with. Sizes are calls, times are seconds."""

    max_concurrency: int | None = None
    """None: 1,000 if the class is async, else 1."""
    concurrency_groups: Mapping[str, int | ConcurrencyGroup] = dataclasses.field(default_factory=dict)
    max_restarts: int = 0
    """-1: without end."""
    max_task_retries: int = 0
    max_pending_calls: int = -1
    """-1 or 0: no limit."""
    on_full: Literal["raise", "block", "await"] = "raise"
    name: str | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: Literal["detached", "non_detached"] | None = None
    placement: Placement = ANYWHERE
    runtime_env: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, checked: Mapping[str, Any]) -> ActorOptions:
        """From options that have passed `check`; those without a field here have no effect on one machine."""
        given = {field.name: checked[field.name] for field in dataclasses.fields(cls) if field.name in checked}
        return cls(**given, placement=Placement.of(checked, cpus=0))
