"""The verbs: `init`, `shutdown`, `remote`, `get`, `wait`, `put`, `kill`, `cancel`, `get_actor`."""

from __future__ import annotations

import contextvars
import inspect
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, overload

from klieg import engine as engines
from klieg import environment, machine, propagation, session
from klieg._version import __version__, commit
from klieg.actor import ActorClass, ActorHandle, AnyHandle, TypedActor, find_handle
from klieg.concurrency.executors import LOOP_THREADS
from klieg.concurrency.waits import block_noted
from klieg.engines.inventory import SITES
from klieg.engines.objects import AllDone, Enough, ObjectFuture, deadline_of, first_done
from klieg.engines.unwrap import unwrap
from klieg.exceptions import BlockingGetError, GetTimeoutError
from klieg.logging_config import LoggingConfig
from klieg.object_ref import ObjectRef, ObjectRefGenerator
from klieg.options import did_you_mean
from klieg.remote_function import RemoteFunction, Several
from klieg.runtime_context import node_labels
from klieg.runtime_env import RuntimeEnv
from klieg.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
TYPED = TypeVar("TYPED", bound=type[TypedActor])

logger = logging.getLogger("klieg")

IGNORED_BY_INIT = frozenset(
    [
        "include_dashboard",
        "dashboard_host",
        "dashboard_port",
        "job_config",
        "configure_logging",
        "logging_level",
        "logging_format",
        "enable_resource_isolation",
        "cgroup_path",
        "system_reserved_cpu",
        "system_reserved_memory",
        "proxy_server_url",
        "_temp_dir",
        "_system_config",
        "_node_ip_address",
    ]
)
"""Keywords of `ray.init` that have no meaning here; accepted, so that a Ray program's first line works."""


class Context(Mapping[str, Any]):
    """What `init` returns: a context manager that shuts the runtime down at its end, and a mapping of facts."""

    dashboard_url: str | None = None
    python_version = sys.version.split()[0]
    ray_version = __version__
    """klieg's own version, under the name that programs written for Ray print."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    @property
    def address_info(self) -> Mapping[str, Any]:
        return self._facts

    @property
    def ray_commit(self) -> str:
        """The commit that klieg was taken from, "unknown" in an installed package."""
        return commit()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exc: object) -> None:
        shutdown()

    def disconnect(self) -> None:
        shutdown()

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __iter__(self) -> Any:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return f"Context({dict(self._facts)})"


def init(
    address: str | None = None,
    *,
    engine: Literal["local", "inline", "ray"] = "local",
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    namespace: str | None = None,
    blocking_get: Literal["raise", "warn"] | None = None,
    loop_warning: float | None = None,
    stall_warning: float | None = None,
    ignore_reinit_error: bool = False,
    log_to_driver: bool | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    profiling: bool | None = None,
    labels: Mapping[str, str] | None = None,
    object_store_memory: float | None = None,
    spill_directory: str | None = None,
    propagate: Iterable[contextvars.ContextVar[Any]] = (),
    record_call_sites: bool = False,
    logging_config: LoggingConfig | None = None,
    **ignored: Any,
) -> Context:
    """Start the runtime. Called for you, with defaults, by the first use of anything that needs it.

    Args:
        address: of a Ray cluster, for engine="ray", which never guesses one: "auto", "host:port", "ray://host:port",
            or "local" for one that is started now, on this machine, and stopped by `shutdown`.
        engine: "local" runs calls in worker processes, "inline" on threads and loops of this one, "ray" on a cluster.
        num_cpus: tasks that may run at once; default: the CPUs this process may use.
        resources: custom resources, name to amount.
        namespace: where named actors of this program live; default: one of its own.
        blocking_get: what a blocking `get` or `wait` on an async actor's event loop does; default: "raise".
        loop_warning: seconds for which a method may hold an async actor's event loop, or a cancelled call go on, before
            a warning names it; 0: never; default: KLIEG_LOOP_WARNING, or 1.
        stall_warning: seconds for which a full limit may let no call start before a warning names those that run;
            0: never; default: KLIEG_STALL_WARNING, or 10.
        ignore_reinit_error: return quietly if the runtime runs already.
        log_to_driver: False silences what workers print; default: True, or what RAY_LOG_TO_DRIVER says.
        runtime_env: what tasks and actors find in their processes; see `klieg.runtime_env.RuntimeEnv`.
        profiling: True records what runs when, for `klieg.timeline()`; default: False, or what RAY_PROFILING says.
        labels: what you call this machine, for `get_runtime_context().get_node_labels()` and `nodes()`.
        object_store_memory: bytes that large values may take in memory, all processes together; default: 30 % of the
            machine's memory. Beyond it values that nobody reads are moved to disk. No effect on the inline engine.
        spill_directory: where to; default: the directory for temporary files. No file there ever has a name.
        propagate: context variables whose values travel with each call, into the call's own context and what it calls;
            global in a module, or in the program itself. OpenTelemetry's context, where that is installed, always does.
        logging_config: how log records look; those of workers reach the driver's loggers and handlers then.
        record_call_sites: note where each `put` was called, for lists of objects; it costs some microseconds a call.

    Raises:
        ConnectionError: there is no cluster at the address, or the engine takes none.
        RuntimeError: it runs already, an unknown keyword, or this machine cannot run it (the message says why).
    """
    if engine != "ray" and address not in (None, "local"):
        raise ConnectionError(f"address={address!r} needs a cluster, and engine='ray'; {engine!r} runs on one machine.")
    if ignored.pop("local_mode", False):
        raise RuntimeError("local_mode is not supported; `init(engine='inline')` runs everything in this process.")
    unknown = sorted(set(ignored) - IGNORED_BY_INIT)
    if unknown:
        guess = did_you_mean(unknown[0], inspect.signature(init).parameters)
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}.{guess}")
    if ignore_reinit_error and is_initialized():
        return Context(_facts())
    total = machine.resources()
    if num_cpus is not None:
        total["CPU"] = _amount("num_cpus", num_cpus)
    if num_gpus is not None:
        total["GPU"] = _amount("num_gpus", num_gpus)
    total |= {key: _amount(key, value) for key, value in (resources or {}).items()}
    flags = {"log_to_driver": log_to_driver, "profiling": profiling}
    said: dict[str, Any] = {name: bool(flag) for name, flag in flags.items() if flag is not None}
    said |= _thresholds(loop_warning=loop_warning, stall_warning=stall_warning)
    if engine == "ray":
        said["address"] = address
    if blocking_get is not None:
        said["blocking_get"] = blocking_get
    said |= {"labels": _checked_labels(labels), "runtime_env": RuntimeEnv(**(runtime_env or {})).to_dict()}
    said |= {"object_store_memory": _store_size(object_store_memory), "spill_directory": _directory(spill_directory)}
    said["record_call_sites"] = bool(record_call_sites)
    if logging_config is not None:
        said["logging"] = logging_config.dump()
    said["propagate"] = propagation.describe(propagate)
    settings = Settings(**{**session.defaults, **said})
    session.start(engine, total, namespace, settings)
    return Context(_facts())


def _thresholds(**given: float | None) -> dict[str, float]:
    return {name: _amount(name, seconds) for name, seconds in given.items() if seconds is not None}


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not value >= 0 or math.isinf(value):
        raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    return float(value)


def _checked_labels(labels: Mapping[Any, Any] | None) -> dict[str, str]:
    for key, value in (labels or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"labels must be strings that name strings, not {key!r}: {value!r}.")
    return dict(labels or {})


def _store_size(size: Any) -> int | None:
    if size is None:
        return None
    if _amount("object_store_memory", size) < 1:
        raise ValueError(f"object_store_memory must be at least 1 byte, not {size!r}")
    return int(size)


def _directory(path: Any) -> str | None:
    if path is not None and not (os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)):
        raise ValueError(f"spill_directory must be a directory to which this user can write, not {path!r}")
    return None if path is None else os.path.abspath(path)


def _facts() -> dict[str, Any]:
    running = engines.current()
    return {"address": "local", "engine": running.name, "namespace": running.namespace, "node_id": running.node.hex()}


def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """End the runtime and everything in it; waits until all its processes are gone. Does nothing if there is none.

    Whoever waits for a result in another thread gets RuntimeShutdownError.
    """
    session.stop()


def is_initialized() -> bool:
    """True between `init` and `shutdown`, and in workers."""
    return engines.current_or_none() is not None


class _Remote(Protocol):
    """`@remote(num_cpus=2)`, as type checkers see it."""

    @overload
    def __call__(self, target: TYPED, /) -> TYPED: ...  # type: ignore[overload-overlap]  # a class can be called, too
    @overload
    def __call__(self, target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def remote(target: TYPED, /) -> TYPED: ...  # type: ignore[overload-overlap]  # a class can be called, too
@overload
def remote(target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(
    *, num_returns: int | Literal["streaming", "dynamic"], **given: Any
) -> Callable[[Callable[P, Any]], RemoteFunction[P, Several]]: ...
@overload
def remote(**given: Any) -> _Remote: ...
def remote(*args: Any, **given: Any) -> Any:
    """Make a function remote, or a class an actor class: `@remote`, `@remote(num_cpus=2)`, or `remote(f)`.

    Raises:
        ValueError: `async def` without max_concurrency, an unknown option, a value out of range.
        TypeError: an option of the wrong type, or something that is neither function nor class.
    """
    if len(args) == 1 and not given:
        return _make_remote(args[0], {})
    if args:
        raise TypeError("`@remote` takes options as keywords only: `@remote(num_cpus=2)`.")
    if not given:
        raise TypeError("`@remote()` without options has no meaning; write `@remote`.")
    return lambda target: _make_remote(target, given)


def _make_remote(target: Any, given: dict[str, Any]) -> Any:
    if isinstance(target, type):
        return ActorClass(target, given)
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"{target!r} is remote already.")
    if inspect.isroutine(target) or (callable(target) and hasattr(target, "__name__")):
        return RemoteFunction(target, given)
    raise TypeError(f"`@remote` must be applied to a function or a class, not to {type(target).__name__}.")


@overload
def get(refs: ObjectRef[R], *, timeout: float | None = None) -> R: ...
@overload
def get(refs: list[ObjectRef[R]], *, timeout: float | None = None) -> list[R]: ...
@overload
def get(refs: ObjectRefGenerator[R], *, timeout: float | None = None) -> ObjectRefGenerator[R]: ...
def get(refs: Any, *, timeout: float | None = None, _use_object_store: bool = False) -> Any:
    """The value of a ref, or the list of values of a list of refs; waits until they are there.

    Values are fresh copies; large arrays are read-only views of shared memory. Of several errors the first in the
    list is raised; one that is there already does not wait for the others.

    Args:
        timeout: seconds; None or negative: without end, 0: only what is there now.

    Raises:
        TaskError: the call raised; also an instance of the original type.
        GetTimeoutError: not ready in time. The call goes on.
        BlockingGetError: on the event loop of an async actor, where `await` is the way.
        ValueError, TypeError: not a ref, or not a list of refs.
    """
    if threading.get_ident() in LOOP_THREADS:
        _refuse_or_warn("get")
    seconds = None if timeout is None else _seconds(timeout)
    if type(refs) is ObjectRef:
        future = refs._future
        if future.outcome is None:
            _wait_for((future,), seconds)
        return unwrap(future)
    if isinstance(refs, ObjectRefGenerator):
        return refs
    futures = _futures(refs, "get")
    if any(f.outcome is None for f in futures):
        _wait_for(futures, seconds)
        _raise_first_error(futures)
    return [unwrap(f) for f in futures]


def _wait_for(futures: Any, timeout: float | None) -> None:
    running = session.running_engine()
    if timeout is None or timeout < 0:
        _refuse_waiting_for_oneself(futures)
    for future in futures:
        future.want()
    ready = futures[0].is_done if len(futures) == 1 else AllDone(futures)
    if not block_noted(running.block, ready, futures, deadline_of(timeout)):
        missing = sum(f.outcome is None for f in futures)
        raise GetTimeoutError(f"`get` timed out after {timeout} s: {missing} of {len(futures)} results were not ready.")


def _refuse_waiting_for_oneself(futures: Any) -> None:
    """A plain actor runs one call at a time: waiting for another of its own, it would wait for ever."""
    host = session.current_host()
    if host is None or host.mode != "plain" or host.token is None:
        return
    for future in futures:
        call = future.call
        if call is not None and call.keep is not None and call.keep.id == host.token.id:
            raise BlockingGetError(
                f"{host.name} waits at {_call_site()} for its own call {call.spec.name}(), which can never start: a "
                "plain actor runs one call at a time. Call the method directly, or create the actor with "
                "max_concurrency=2."
            )


def _raise_first_error(futures: list[ObjectFuture]) -> None:
    for future in futures:
        if future.outcome is not None and future.outcome.is_error:
            unwrap(future)


def _futures(refs: Any, verb: str) -> list[ObjectFuture]:
    if not isinstance(refs, list):
        raise ValueError(
            f"Invalid type of object refs for `{verb}`: {type(refs).__name__}. Give one ObjectRef or a list of them."
        )
    for place, ref in enumerate(refs):
        if type(ref) is not ObjectRef:
            raise TypeError(f"`{verb}` takes ObjectRefs; item {place} of the list is of type {type(ref).__name__}.")
    return [ref._future for ref in refs]


def _seconds(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds, not NaN")
    return None if timeout > threading.TIMEOUT_MAX else float(timeout)


def _refuse_or_warn(verb: str) -> None:
    """A blocking verb was called on an async actor's loop: whether it would have to wait or not, it is refused."""
    site = _call_site()
    if session.settings.blocking_get == "raise":
        raise BlockingGetError(
            f"A blocking `klieg.{verb}` at {site} would stop the event loop of this async actor, and with it every "
            "other call. Write `await ref` (or `await asyncio.gather(*refs)`, `await asyncio.wait(refs)`), or run it "
            "in a thread with `await asyncio.to_thread(...)`. `init(blocking_get='warn')` allows it with a warning."
        )
    if site not in _warned_sites and environment.flag("WARN_BLOCKING_GET_INSIDE_ASYNC", True):
        _warned_sites.add(site)
        logger.warning(
            "Using blocking klieg.%s inside an async actor at %s blocks the event loop. Use `await` instead.",
            verb,
            site,
        )


_warned_sites: set[str] = set()


def _call_site() -> str:
    frame = sys._getframe(1).f_back
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_OWN_FOLDER):
            return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}()"
        frame = frame.f_back
    return "an unknown place"


_OWN_FOLDER = __file__.rsplit("/", 1)[0]


def wait(
    refs: list[ObjectRef[R]], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[ObjectRef[R]], list[ObjectRef[R]]]:
    """Split refs into (ready, not ready) as soon as `num_returns` are ready, or after `timeout` seconds.

    A failed call counts as ready. Both lists keep the order of `refs`; at most `num_returns` come in the first.

    Raises:
        TypeError: not a list of refs.
        ValueError: the same ref twice, num_returns not in 1..len(refs), or a negative timeout.
        BlockingGetError: on the event loop of an async actor; `await klieg.util.wait_async(refs)` is the way.
    """
    if threading.get_ident() in LOOP_THREADS:
        _refuse_or_warn("wait")
    futures, seconds = check_wait(refs, num_returns, timeout)
    ready = first_done(futures, num_returns)
    if futures and len(ready) < num_returns:
        for future in futures:
            future.want()
        running = session.running_engine()
        block_noted(running.block, Enough(futures, num_returns), futures, deadline_of(seconds))
        ready = first_done(futures, num_returns)
    return split(refs, ready)


def check_wait(refs: Any, num_returns: Any, timeout: Any) -> tuple[list[ObjectFuture], float | None]:
    """The futures and the seconds that a `wait` with these arguments means, once they have passed its checks."""
    if not isinstance(refs, list):
        raise TypeError(f"`wait` takes a list of ObjectRefs, not {type(refs).__name__}.")
    if not refs:
        return [], None
    futures = [ref._future if type(ref) is ObjectRef else _waitable(ref) for ref in refs]
    if len(set(futures)) != len(futures) and len({f.id for f in futures}) != len(futures):
        raise ValueError("`wait` takes each ref once; the list holds one of them twice.")
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"num_returns must be an integer, not {type(num_returns).__name__}")
    if not 1 <= num_returns <= len(refs):
        raise ValueError(f"num_returns must be between 1 and the number of refs ({len(refs)}), not {num_returns}.")
    seconds = _seconds(timeout)
    if seconds is not None and seconds < 0:
        raise ValueError(f"timeout must be at least 0 seconds, not {timeout}.")
    return futures, seconds


def _waitable(ref: Any) -> ObjectFuture:
    if isinstance(ref, ObjectRefGenerator):
        return ref._stream.item(ref._index)
    raise TypeError(f"`wait` takes ObjectRefs; the list holds something of type {type(ref).__name__}.")


def split(refs: list[Any], ready: list[int]) -> tuple[list[Any], list[Any]]:
    """The refs at the given places, and the others; by slices, since those who wait for one at a time pay it often."""
    unready: list[Any] = []
    start = 0
    for place in ready:
        unready += refs[start:place]
        start = place + 1
    return [refs[place] for place in ready], unready + refs[start:]


def put(value: R) -> ObjectRef[R]:
    """Keep a copy of the value in this process and return a ref to it.

    Raises TypeError for a ref (it has a name already) and for what cannot be pickled.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("`put` takes a value, not an ObjectRef: the ref names a value already.")
    future = session.running_engine().put(value)
    if session.settings.record_call_sites:
        SITES[future] = _call_site()
    return ObjectRef(future)


def kill(actor: AnyHandle, *, no_restart: bool = True) -> None:
    """End the actor's process at once: no hooks, no `atexit`. Unfinished calls fail with ActorDiedError.

    With no_restart=False an actor with restarts left comes back with a fresh state. Raises ValueError for what is no
    handle.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"`kill` takes an actor handle, not {type(actor).__name__}; to end a call use `cancel`.")
    session.running_engine().kill(actor._token, no_restart)


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Ask that a call ends; its ref then raises TaskCancelledError. Nothing happens if it has ended already.

    Queued: it never starts. Running, async: CancelledError inside. Running, sync method: it sees
    `get_runtime_context().is_canceled()`. Running task: interrupted, even in `time.sleep`.

    Args:
        force: end a task's worker process; ValueError for a method.
        recursive: cancel the calls that it has made, too.
    """
    if isinstance(ref, ObjectRefGenerator):
        future: ObjectFuture = ref._stream
    elif isinstance(ref, ObjectRef):
        future = ref._future
    else:
        raise TypeError(f"`cancel` takes an ObjectRef, not {type(ref).__name__}.")
    call = future.call
    if force and call is not None and call.spec.function is None:
        raise ValueError("force=True is not supported for actor methods; `kill` ends an actor.")
    session.running_engine().cancel(future, force, recursive)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """A handle to the living actor of that name; it does not keep the actor alive.

    Raises ValueError if there is none, or for an empty name.
    """
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    found = find_handle(name, namespace)
    if found is None:
        raise ValueError(
            f"Failed to look up actor with name {name!r}: there is no living actor of that name in this namespace."
        )
    return found


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs that belong to the current task or actor: their numbers, or names where CUDA_VISIBLE_DEVICES has names.

    [] in the driver, and for who has not asked for any.
    """
    session.running_engine()
    names = session.current_gpus()
    return [int(name) for name in names] if all(name.isdigit() for name in names) else names


def nodes() -> list[dict[str, Any]]:
    """The machines of this runtime, as Ray describes its own: this one, or those of the cluster.

    Raises SystemError_ if klieg is not running.
    """
    running = engines.current()
    return running.nodes() or [
        {
            "NodeID": running.node.hex(),
            "Alive": True,
            "alive": True,
            "NodeName": socket.gethostname(),
            "NodeManagerHostname": socket.gethostname(),
            "NodeManagerAddress": "127.0.0.1",
            "Resources": dict(running.resources()[0]),
            "Labels": node_labels(),
        }
    ]


def cluster_resources() -> dict[str, float]:
    """What this runtime has in all: resource name to amount."""
    return dict(engines.current().resources()[0])


def available_resources() -> dict[str, float]:
    """What is not in use now: resource name to amount."""
    return {key: amount for key, amount in engines.current().resources()[1].items() if amount}
