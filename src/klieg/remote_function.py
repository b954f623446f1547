"""Remote functions: what `@remote` makes of a function."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypeVar, overload

from klieg import environment, options, propagation, session
from klieg.engines import serialization
from klieg.engines.calls import StreamFuture
from klieg.engines.objects import ObjectFuture
from klieg.exceptions import NeedsRayEngineError
from klieg.object_ref import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from klieg.outcome import Serialized
from klieg.placement import Placement
from klieg.task import FunctionSpec, Signature, TaskSpec

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Y = TypeVar("Y")


class Several(Any):  # type: ignore[misc]  # where the class's own code makes the call, it may be anything
    """To type checkers, the result of what has the option num_returns: `.remote` gives what they cannot know."""


class RemoteFunction(Generic[P, R]):
    """A function whose calls run in worker processes: `f.remote(*args)` returns a ref at once."""

    def __init__(self, function: Callable[P, R], given: dict[str, Any]) -> None:
        checked = options.check(options.TASK_RULES, given)
        _refuse_async(function, checked)
        functools.update_wrapper(self, function)
        self._function = function
        self._given = checked

    @functools.cached_property
    def _spec(self) -> TaskSpec:
        return _spec_of(self._function, self._given, Signature.of(self._function))

    @overload
    def remote(self: RemoteFunction[P, Several], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def remote(
        self: RemoteFunction[P, Coroutine[Any, Any, Y]], /, *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRef[Y]: ...
    @overload
    def remote(  # type: ignore[overload-overlap]  # an object that is an iterator, too, is taken for a generator
        self: RemoteFunction[P, Iterator[Y]], /, *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start a call. The arguments are copied now; refs among them are replaced by their values before it runs.

        Raises:
            TypeError: the arguments do not fit the function, or cannot be pickled.
        """
        return submit(self._spec_here() if session.capturing else self._spec, None, args, kwargs)

    def _spec_here(self) -> TaskSpec:
        """The spec for a call made where a placement group captures what is called."""
        place = session.captured_place()
        function = self._spec.function
        assert function is not None
        if place is None or not function.placement.inherits:
            return self._spec
        known: dict[int, TaskSpec] = self.__dict__.setdefault("_captured", {})
        if place[0] not in known:
            captured = dataclasses.replace(function, placement=function.placement.within(place))
            known[place[0]] = self._spec.replace(function=captured)
        return known[place[0]]

    @overload
    def options(
        self, *, num_returns: int | Literal["streaming", "dynamic"], **given: Any
    ) -> RemoteFunction[P, Several]: ...
    @overload
    def options(self, **given: Any) -> RemoteFunction[P, R]: ...
    def options(self, **given: Any) -> RemoteFunction[P, Any]:
        """The same function with other options, for the calls made through what this returns."""
        checked = options.check(options.TASK_RULES, given, late=True)
        copy: RemoteFunction[P, R] = object.__new__(RemoteFunction)
        functools.update_wrapper(copy, self._function)
        copy._function = self._function
        copy._given = {**self._given, **checked}
        copy.__dict__["_spec"] = _spec_of(self._function, copy._given, self._spec.signature, self._spec.function)
        return copy

    def bind(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Ray's compiled graphs need a cluster: raises NeedsRayEngineError."""
        raise NeedsRayEngineError("`.bind()`")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._function.__name__
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{name}()', try '{name}.remote()'."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._function, self._given)


def _restore(function: Callable[..., Any], given: dict[str, Any]) -> RemoteFunction[..., Any]:
    # A function that names itself comes back before it has its defaults: look at it when it is called, not before.
    remote_function: RemoteFunction[..., Any] = object.__new__(RemoteFunction)
    remote_function._function = function
    remote_function._given = given
    return remote_function


def submit(spec: TaskSpec, token: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Start a call of `spec` and return what `.remote()` returns for its `num_returns`."""
    spec.signature.check(spec.name, args, kwargs)
    engine = session.running_engine()
    if propagation.active:
        kwargs = propagation.pack(kwargs)
    futures = engine.submit(spec, token, args, kwargs)
    return refs_of(spec, futures)


def refs_of(spec: TaskSpec, futures: tuple[ObjectFuture, ...]) -> Any:
    count = spec.num_returns
    if count == 1:
        return ObjectRef(futures[0])
    if count == 0:
        return None
    if isinstance(futures[0], StreamFuture):
        return ObjectRefGenerator(futures[0]) if count == "streaming" else ObjectRef(futures[0].collect(_dump_refs))
    return [ObjectRef(future) for future in futures]


def default_retries() -> int:
    """How often a task that does not say so is run again after its worker died."""
    return environment.integer("TASK_MAX_RETRIES", options.DEFAULT_TASK_RETRIES, least=-1)


def _dump_refs(items: list[ObjectFuture]) -> Serialized:
    return serialization.dumps(DynamicObjectRefGenerator([ObjectRef(item) for item in items]))


def _refuse_async(function: Callable[..., Any], given: dict[str, Any]) -> None:
    name = getattr(function, "__name__", "f")
    if inspect.isasyncgenfunction(function):
        raise ValueError(
            f"'{name}' is an async generator and cannot be a remote task; make it a method of an async actor."
        )
    if inspect.iscoroutinefunction(function) and given.get("max_concurrency", 1) == 1:
        raise ValueError(
            f"'async def' should not be used for remote tasks: '{name}' is a coroutine function. You can wrap it, "
            f"`@klieg.remote def wrapper(): return asyncio.run({name}())`, or say `@klieg.remote(max_concurrency=N)`, "
            "with which N calls of it at a time share one worker's event loop."
        )


def _spec_of(
    function: Callable[..., Any], given: dict[str, Any], signature: Signature, known: FunctionSpec | None = None
) -> TaskSpec:
    placement = Placement.of(given, cpus=1)
    described = FunctionSpec(
        function,
        function.__qualname__,
        placement,
        given.get("max_concurrency", 1),
        # A process keeps what it has taken of a GPU's memory until it ends, so by default it ends with the call.
        given.get("max_calls", 1 if "GPU" in placement.demand else 0),
    )
    if known is not None and known.runs_like(described):
        described = known  # one function, pickled once, however many sets of options it is called with
    is_generator = inspect.isgeneratorfunction(function)
    exceptions = given.get("retry_exceptions", False)
    return TaskSpec(
        name=given.get("name", function.__qualname__),
        function=described,
        num_returns=given.get("num_returns", "streaming" if is_generator else 1),
        timeout=given.get("timeout"),
        max_retries=given.get("max_retries", default_retries()),
        retry_exceptions=tuple(exceptions) if isinstance(exceptions, list | tuple) else exceptions,
        cancel_on_await_cancel=given.get("cancel_on_await_cancel", False),
        backpressure=given.get("_generator_backpressure_num_objects", -1),
        signature=signature,
    )
