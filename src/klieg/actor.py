"""Actors: what `@remote` makes of a class, the handles to what it creates, and the way out of one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, NoReturn, overload

from klieg import engine, ids, options, propagation, session
from klieg.concurrency.call import CURRENT, ExitActor
from klieg.concurrency.host import EXIT_ACTOR
from klieg.engines import serialization
from klieg.engines.objects import ActorToken
from klieg.exceptions import ActorAlreadyExistsError, AsyncioActorExit, NeedsRayEngineError
from klieg.object_ref import ObjectRef, ObjectRefGenerator
from klieg.options import DEFAULT_GROUP, ActorOptions, ConcurrencyGroup
from klieg.remote_function import Several, submit
from klieg.task import ANY_ARGUMENTS, ActorSpec, ClassInfo, Kind, MethodInfo, Signature, TaskSpec

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, TypeVar  # with defaults; type checkers know the module by themselves

    A = ParamSpec("A", default=...)
    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import ParamSpec, TypeVar

    A = ParamSpec("A")
    R_co = TypeVar("R_co", covariant=True)

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Y = TypeVar("Y")

DECLARED = "__klieg_method__"
"""Where `@method` leaves its options on a function."""

SPECIAL_METHODS = {
    name: MethodInfo("sync", ANY_ARGUMENTS, {}) for name in ("__ray_ready__", "__ray_call__", "__ray_terminate__")
}


class ActorClassInheritanceException(TypeError):
    """A class cannot inherit from what `@remote` made; inherit from the plain class and decorate the leaf."""


class Declared(Generic[P, R_co]):
    """What type checkers see of a method under `@method`; at run time it stays the function that it is."""

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: Any = None) -> ActorMethod[P, R_co]: ...


@overload
def method(function: Callable[Concatenate[Any, P], R], /) -> Declared[P, R]: ...
@overload
def method(
    *, num_returns: int | Literal["streaming", "dynamic"], **given: Any
) -> Callable[[Callable[Concatenate[Any, P], Any]], Declared[P, Several]]: ...
@overload
def method(**given: Any) -> Callable[[Callable[Concatenate[Any, P], R]], Declared[P, R]]: ...
def method(*args: Any, **given: Any) -> Any:
    """Declare options of one method: `@method(num_returns=2)`, `@method(run_in="thread")`.

    In a `TypedActor` it makes the method's signature known to type checkers where it is called from afar.

    Raises ValueError or TypeError at once for an option that does not exist or does not fit.
    """
    checked = options.check(options.DECLARED_METHOD_RULES, given)

    def declare(function: Any) -> Any:
        setattr(function, DECLARED, checked)
        return function

    return declare(args[0]) if args else declare


class ActorClass(Generic[T]):
    """A class whose instances are actors: `A.remote(*args)` creates one and returns its handle at once."""

    def __init__(self, cls: type[T], given: dict[str, Any]) -> None:
        if not isinstance(cls, type):
            raise ActorClassInheritanceException(
                "Inheriting from an actor class is not supported: inherit from the plain class and decorate the leaf."
            )
        self._given = options.check(options.ACTOR_RULES, given)
        _check_together(self._given)
        self._cls = cls
        describe(cls, self._given)  # errors in the declaration show now
        self._dress(cls)

    def _dress(self, cls: type) -> None:
        self.__name__ = cls.__name__
        self.__doc__ = cls.__doc__
        self.__module__ = cls.__module__
        self.__qualname__ = cls.__qualname__

    def __new__(cls, *args: Any, **kwargs: Any) -> ActorClass[T]:
        if len(args) == 3:  # what Python calls for `class B(A)` when A is an instance of this class
            raise ActorClassInheritanceException(
                "Inheriting from an actor class is not supported: inherit from the plain class and decorate the leaf."
            )
        return super().__new__(cls)

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Create an actor and return its handle; the constructor runs in the actor's process, later.

        Raises:
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
            ActorAlreadyExistsError: its name is taken.
        """
        return _create(self, self._given, args, kwargs)

    @functools.cached_property
    def _info(self) -> ClassInfo:
        return describe(self._cls, self._given)

    @functools.cached_property
    def _signature(self) -> Signature:
        return _constructor_signature(self._cls)

    def options(self, **given: Any) -> _ActorClassWithOptions[T]:
        """The same class with other options, for the actors created through what this returns."""
        checked = {**self._given, **options.check(options.ACTOR_RULES, given, late=True)}
        _check_together(checked)
        return _ActorClassWithOptions(self, checked)

    def bind(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Ray's compiled graphs need a cluster: raises NeedsRayEngineError."""
        raise NeedsRayEngineError("`.bind()`")

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = self._cls.__name__
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def __getattr__(self, name: str) -> Any:
        if (name.startswith("__") and name.endswith("__")) or "_cls" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._cls, name)

    def __repr__(self) -> str:
        return f"ActorClass({self._cls.__name__})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_class, (self._cls, self._given, self.__name__)


def _restore_class(cls: type[T], given: dict[str, Any], name: str) -> ActorClass[T]:
    # A class that names itself comes back before it has its methods: look at it when it is used, not before.
    actor_class: ActorClass[T] = object.__new__(ActorClass)
    actor_class.__dict__.update(_cls=cls, _given=given, __name__=name)
    return actor_class


class _ActorClassWithOptions(Generic[T]):
    """What `.options()` of an actor class returns."""

    def __init__(self, actor_class: ActorClass[T], given: dict[str, Any]) -> None:
        self._actor_class = actor_class
        self._given = given

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        return _create(self._actor_class, self._given, args, kwargs)


def _create(
    actor_class: ActorClass[T], given: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorHandle[T]:
    actor_class._signature.check(actor_class.__name__, args, kwargs)
    running = session.running_engine()
    info = describe(actor_class._cls, given) if given is not actor_class._given else actor_class._info
    chosen = ActorOptions.of(given)
    if session.capturing and chosen.placement.inherits and (place := session.captured_place()) is not None:
        chosen = dataclasses.replace(chosen, placement=chosen.placement.within(place))
    spec = ActorSpec(actor_class._cls, info, chosen)
    if spec.options.get_if_exists:
        found = find_handle(spec.options.name or "", spec.options.namespace)
        if found is not None:
            return found
    try:
        if propagation.active:
            kwargs = propagation.pack(kwargs)
        return ActorHandle(running.create_actor(spec, args, kwargs), info)
    except ActorAlreadyExistsError:
        found = find_handle(spec.options.name or "", spec.options.namespace) if spec.options.get_if_exists else None
        if found is None:
            raise
        return found


def find_handle(name: str, namespace: str | None) -> ActorHandle[Any] | None:
    """A handle that does not keep its actor alive; None if there is no living actor of that name."""
    found = session.running_engine().find_actor(name, namespace)
    return None if found is None else ActorHandle(*found)


def _check_together(given: dict[str, Any]) -> None:
    if given.get("get_if_exists") and not given.get("name"):
        raise ValueError("The option 'get_if_exists' needs the option 'name'.")


class ActorHandle(Generic[T]):
    """The caller's proxy of an actor: `handle.method.remote(*args)`. May be passed on, stored and compared.

    The actor lives as long as a handle to it does, in any process.
    """

    _token: ActorToken
    _info: ClassInfo

    def __init__(self, token: ActorToken, info: ClassInfo) -> None:
        self.__dict__["_token"] = token
        self.__dict__["_info"] = info
        for name in ("stats", "resize"):  # a method of the user's class wins over the handle's own
            if name in info.methods:
                self.__getattr__(name)

    def __getattr__(self, name: str) -> ActorMethod[..., Any]:
        info = self.__dict__["_info"].methods.get(name) or SPECIAL_METHODS.get(name)
        if info is None:
            guess = options.did_you_mean(name, self._info.methods)
            raise AttributeError(f"'ActorHandle' object of {self._info.name} has no attribute {name!r}.{guess}")
        made: ActorMethod[..., Any] = ActorMethod(
            self._token, self._info, name, _method_spec(self._info, name, info, {})
        )
        self.__dict__[name] = made
        return made

    def stats(self) -> dict[str, dict[str, int]]:
        """For each concurrency group: calls queued, calls running, and the limit.

        Of a class with a method of that name the handle has the method; `ActorHandle.stats(handle)` is this one then.
        """
        return session.running_engine().stats(self._token)

    def resize(self, max_concurrency: int | None = None, **groups: int) -> None:
        """Change how many calls may run at once, from now on and after restarts: `handle.resize(20)`, `resize(io=4)`.

        Calls that run already go on; a limit that is lowered below their number lets nothing start until they are
        fewer. Of a class with a method of that name the handle has the method; `ActorHandle.resize(handle, ...)` is
        this one then.

        Args:
            max_concurrency: the limit of the group `default`.
            groups: the limits of others, by name.

        Raises:
            TypeError, ValueError: no integer of at least 1, an undeclared group, nothing to change, a plain actor.
            ActorDiedError: the actor is dead.
        """
        limits = groups if max_concurrency is None else {DEFAULT_GROUP: max_concurrency, **groups}
        if not limits:
            raise ValueError("`resize` was told nothing: give max_concurrency, or the name of a group with its size.")
        for name, limit in limits.items():
            if name != DEFAULT_GROUP and name not in self._info.groups:
                raise _unknown_group(name, self._info.name, self._info.groups)
            options.check({name: options.ACTOR_RULES["max_concurrency"]}, {name: limit})
        session.running_engine().resize(self._token, limits)

    @property
    def _actor_id(self) -> ids.ActorID:
        return ids.ActorID.from_int(self._token.id)

    _ray_actor_id = _actor_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._token.id == other._token.id

    def __hash__(self) -> int:
        return hash(self._token.id)

    def __dir__(self) -> Iterator[str]:
        return iter([*self._info.methods, *SPECIAL_METHODS])

    def __repr__(self) -> str:
        return f"Actor({self._info.name}, {self._actor_id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        if not serialization.note(self._token):
            engine.current().pin(self._token)
        return _restore_handle, (self._token.id, self._info)


class TypedActor:
    """Inherit from it to have calls of an actor checked by mypy and pyright: it is nothing at run time.

    To a type checker a handle is then an object of the class, and its methods under `@method` can be called from afar
    with their own signatures; `await` and `get` give what they return. A method without `@method` has no `.remote`.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @classmethod
        def remote(cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
        @classmethod
        def options(cls: Callable[P, T], **given: Any) -> _TypedOptions[P, T]: ...
        def stats(self) -> dict[str, dict[str, int]]: ...
        def resize(self, max_concurrency: int | None = None, **groups: int) -> None: ...
        @property
        def _actor_id(self) -> ids.ActorID: ...


if TYPE_CHECKING:

    class _TypedOptions(Generic[P, T]):
        def remote(self, *args: P.args, **kwargs: P.kwargs) -> T: ...


AnyHandle = ActorHandle[Any] | TypedActor
"""A handle, as type checkers see it."""


def _restore_handle(number: int, info: ClassInfo) -> ActorHandle[Any]:
    token = serialization.known(number) or engine.current().token_of(number, info)
    assert isinstance(token, ActorToken)
    token.channel.name = info.name
    if info.max_pending_calls > 0:
        token.channel.max_pending, token.channel.on_full = info.max_pending_calls, info.on_full
    return ActorHandle(token, info)


class ActorMethod(Generic[A, R_co]):
    """One method of an actor, ready to be called from afar. Keeps the actor alive."""

    __slots__ = ("__weakref__", "_info", "_name", "_spec", "_token")

    def __init__(self, token: ActorToken, info: ClassInfo, name: str, spec: TaskSpec) -> None:
        self._token = token
        self._info = info
        self._name = name
        self._spec = spec

    @overload
    def remote(self: ActorMethod[P, Several], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def remote(self: ActorMethod[P, Coroutine[Any, Any, Y]], /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[Y]: ...
    @overload
    def remote(  # type: ignore[overload-overlap]  # an object that is an iterator, too, is taken for a generator
        self: ActorMethod[P, Iterator[Y] | AsyncIterator[Y]], /, *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRefGenerator[Y]: ...
    @overload
    def remote(self, /, *args: A.args, **kwargs: A.kwargs) -> ObjectRef[R_co]: ...
    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start the call and return its ref at once; with num_returns=k a list of refs, with "streaming" a generator.

        Raises:
            TypeError: the arguments do not fit the method, or cannot be pickled.
            PendingCallsLimitExceeded: the actor's `max_pending_calls` is reached.
        """
        return submit(self._spec, self._token, args, kwargs)

    @overload
    def options(
        self, *, num_returns: int | Literal["streaming", "dynamic"], **given: Any
    ) -> ActorMethod[A, Several]: ...
    @overload
    def options(self, **given: Any) -> ActorMethod[A, R_co]: ...
    def options(self, **given: Any) -> ActorMethod[A, Any]:
        """The same method with other options, for the calls made through what this returns."""
        checked = options.check(options.METHOD_RULES, given)
        known = self._info.methods.get(self._name) or SPECIAL_METHODS[self._name]
        spec = _method_spec(self._info, self._name, known, checked)
        return ActorMethod(self._token, self._info, self._name, spec)

    def bind(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Ray's compiled graphs need a cluster: raises NeedsRayEngineError."""
        raise NeedsRayEngineError("`.bind()`")

    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> R_co:  # as the class's own code calls it, on itself
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', "
            f"try 'object.{self._name}.remote()'."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (ActorHandle(self._token, self._info), self._name)


def _method_spec(info: ClassInfo, name: str, known: MethodInfo, given: dict[str, Any]) -> TaskSpec:
    chosen = {**known.options, **given}
    group = chosen.get("concurrency_group", DEFAULT_GROUP)
    if group not in info.groups and group != DEFAULT_GROUP:
        raise _unknown_group(group, info.name, info.groups)
    exceptions = chosen.get("retry_exceptions", False)
    return TaskSpec(
        name=given.get("name", f"{info.name}.{name}"),
        method=name,
        num_returns=chosen.get("num_returns", "streaming" if "generator" in known.kind else 1),
        group=group,
        run_in=chosen.get("run_in", "loop"),
        timeout=chosen.get("timeout"),
        max_retries=chosen.get("max_task_retries", info.max_task_retries),
        retry_exceptions=tuple(exceptions) if isinstance(exceptions, list | tuple) else exceptions,
        cancel_on_await_cancel=chosen.get("cancel_on_await_cancel", False),
        backpressure=chosen.get("_generator_backpressure_num_objects", -1),
        signature=known.signature,
    )


def _unknown_group(group: str, class_name: str, groups: Any) -> ValueError:
    declared = sorted({*groups, DEFAULT_GROUP})
    return ValueError(f"{class_name} has no concurrency group {group!r}; the declared ones are {declared}.")


def describe(cls: type, given: dict[str, Any]) -> ClassInfo:
    """What a handle needs to know of the class; ValueError for a method in a group that is not declared."""
    groups, own_loops = _groups(cls, given.get("concurrency_groups", {}))
    methods = dict(_methods(cls))
    for info in methods.values():
        group = info.options.get("concurrency_group", DEFAULT_GROUP)
        if group not in groups and group != DEFAULT_GROUP:
            raise _unknown_group(group, cls.__name__, groups)
    return ClassInfo(
        name=cls.__name__,
        is_async=is_async(cls),
        methods=methods,
        groups=groups,
        own_loops=own_loops,
        max_concurrency=given.get("max_concurrency"),
        max_task_retries=given.get("max_task_retries", 0),
        max_pending_calls=given.get("max_pending_calls", -1),
        on_full=given.get("on_full", "raise"),
    )


def _groups(cls: type, declared: Mapping[str, int | ConcurrencyGroup]) -> tuple[dict[str, int], frozenset[str]]:
    """The sizes of the declared groups, and those that have a loop of their own."""
    groups = {name: ConcurrencyGroup.of(group) for name, group in declared.items()}
    own_loops = frozenset(name for name, group in groups.items() if group.own_loop)
    if own_loops and not is_async(cls):
        raise ValueError(
            f"The group {min(own_loops)!r} of {cls.__name__} asks for an event loop of its own, and no method of the "
            "class is async: its groups are pools of threads, which do not hold up one another."
        )
    if DEFAULT_GROUP in own_loops:
        raise ValueError("The group 'default' runs on the actor's main loop and cannot have one of its own.")
    return {name: group.size for name, group in groups.items()}, own_loops


def is_async(cls: type) -> bool:
    """True if any attribute of the class, inherited ones included, is a coroutine or async generator function."""
    return any(
        not isinstance(inspect.getattr_static(cls, name), functools.partialmethod)
        for name, _ in inspect.getmembers(
            cls, lambda m: inspect.iscoroutinefunction(m) or inspect.isasyncgenfunction(m)
        )
    )


def _methods(cls: type) -> Iterator[tuple[str, MethodInfo]]:
    for name in dir(cls):
        static = inspect.getattr_static(cls, name, None)
        if static is None or static is inspect.getattr_static(object, name, None):
            continue
        if isinstance(static, staticmethod | classmethod):
            function: Any = static.__func__
            drop_first = isinstance(static, classmethod)
        elif inspect.isroutine(static) or isinstance(static, functools.partialmethod):
            function, drop_first = static, True
        else:
            continue
        yield name, MethodInfo(_kind(function), _method_signature(function, drop_first), _declared(static, function))


def _method_signature(function: Any, drop_first: bool) -> Signature:
    if isinstance(function, functools.partialmethod):
        return ANY_ARGUMENTS
    return Signature.of(function, drop_first)


def _declared(static: Any, function: Any) -> dict[str, Any]:
    found: dict[str, Any] = getattr(static, DECLARED, None) or getattr(function, DECLARED, None) or {}
    return found


def _kind(function: Any) -> Kind:
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    if inspect.iscoroutinefunction(function):
        return "async"
    return "generator" if inspect.isgeneratorfunction(function) else "sync"


def _constructor_signature(cls: Any) -> Signature:
    if cls.__init__ is object.__init__ and cls.__new__ is object.__new__:
        return Signature((), (0, 0))
    if cls.__init__ is object.__init__:
        return Signature.of(cls.__new__, drop_first=True)
    return Signature.of(cls.__init__, drop_first=True)


def exit_actor() -> NoReturn:
    """Leave the actor: what runs ends and returns its value, what waits fails with ActorDiedError, no restart.

    Raises TypeError outside an actor. Catching what it raises inside does not keep the actor alive.
    """
    host = session.current_host()
    if host is None or host.runs_tasks:
        raise TypeError("exit_actor() may only be called inside an actor.")
    call = CURRENT.get()
    host.exit_from(call, EXIT_ACTOR)
    if call is not None and host.mode == "async" and call.spec.run_in == "loop":
        raise AsyncioActorExit(EXIT_ACTOR)
    raise ExitActor
