"""Which runtime this process is in: started by `init`, by first use, or handed to a worker at its start."""

from __future__ import annotations

import atexit
import os
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final

from klieg import engine, logs, machine, measurements, propagation
from klieg.concurrency import recording
from klieg.concurrency.call import CURRENT
from klieg.engine import Engine
from klieg.environment import flag, text
from klieg.exceptions import RuntimeShutdownError, SystemError_
from klieg.placement import Place, Placement
from klieg.runtime_env import RuntimeEnv
from klieg.settings import DEFAULT, Settings

_lock = threading.RLock()

settings: Settings = DEFAULT
"""What `init` was told; the same in every process of the runtime."""

environment = RuntimeEnv()
"""The runtime environment of what is called from this process, if the call adds nothing."""
defaults: dict[str, Any] = {}
"""Settings that differ from klieg's own defaults in this program, unless `init` says otherwise."""

NO_AUTO_INIT: Final[set[int]] = set()
"""Identifiers of threads that belong to one runtime: when it is over, they must not start another."""

worker_host: Any = None
"""In a worker process, the host of its actor; seen also from threads that no call started."""


def start_with(**settings: Any) -> None:
    """Change what `init` and the first use take for settings that are not given; fields of `Settings`."""
    defaults.update(settings)


def start(engine_name: str, resources: Mapping[str, float], namespace: str | None, given: Settings) -> Engine:
    """Start an engine and make it this process's."""
    global settings, environment
    with _lock:
        if engine.current_or_none() is not None:
            raise RuntimeError(
                "klieg is initialized already: was `klieg.init()` called twice? Pass ignore_reinit_error=True to "
                "keep the first runtime, or call `klieg.shutdown()` before."
            )
        if given.profiling:
            recording.start()
        settings, environment = given, RuntimeEnv(**given.runtime_env)
        started = _make(engine_name, resources, namespace or text("NAMESPACE") or uuid.uuid4().hex, given)
        engine.use(started)
        if given.logging is not None:
            logs.start(given.logging)
        propagation.use(given.propagate, given.traces)
        return started


def _make(name: str, resources: Mapping[str, float], namespace: str, given: Settings) -> Engine:
    if name == "inline":
        from klieg.engines.inline.engine import InlineEngine  # an engine is imported by those who use it

        return InlineEngine(resources, namespace, given)
    if name == "local":
        from klieg.engines.local.driver import start_driver  # needs Linux; the inline engine does not

        return start_driver(resources, namespace, given)
    if name == "ray":
        from klieg.engines.ray.cluster import join_cluster  # needs Ray

        return join_cluster(resources, namespace, given)
    raise ValueError(f"There is no engine {name!r}; the engines are 'local' (the default), 'inline' and 'ray'.")


def stop() -> None:
    """End the runtime, if there is one. Safe to call twice, from any thread, from several at once."""
    global environment
    with _lock:
        running = engine.current_or_none()
        if running is None or current_host() is not None:
            return
        engine.use(None)
        environment = RuntimeEnv()
        propagation.use((), traces=False)
        running.shutdown()
        recording.stop()
        logs.stop()
        measurements.reset()


atexit.register(stop)


class ForkedEngine:
    """Stands for the engine in a process that was forked from one that uses klieg: everything raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(
            "This process was forked from one that uses klieg; its connections belong to the parent. Start processes "
            "by `subprocess` or multiprocessing's 'spawn' method, or use klieg's own tasks and actors."
        )

    def shutdown(self) -> None:
        """The runtime is the parent's; a child that exits must not end it."""

    def let_go(self) -> None:
        """A fork of a fork holds nothing either."""


def _forked() -> None:
    running = engine.current_or_none()
    if running is not None:
        engine.use(ForkedEngine())
        running.let_go()


os.register_at_fork(after_in_child=_forked)


def running_engine() -> Engine:
    """The engine of this process, started with defaults if there is none."""
    running = engine.current_or_none()
    return _auto_init() if running is None else running


def _auto_init() -> Engine:
    if threading.get_ident() in NO_AUTO_INIT or CURRENT.get() is not None:
        raise RuntimeShutdownError  # what has outlived its runtime starts no other
    if not flag("ENABLE_AUTO_CONNECT", True):
        raise SystemError_("klieg is not initialized, and RAY_ENABLE_AUTO_CONNECT=0 forbids to do it on first use.")
    with _lock:
        running = engine.current_or_none()
        return running if running is not None else start("local", machine.resources(), None, Settings(**defaults))


capturing = False
"""True once something in this process runs in a placement group that captures what it calls."""


def captured_place() -> Place | None:
    """The placement group that calls made here run in unless they say otherwise; None if there is none."""
    placement = current_placement()
    return placement.place if placement is not None and placement.captures else None


def current_placement() -> Placement | None:
    """Where the current task or actor runs, and what it holds; None in the driver."""
    call, host = CURRENT.get(), current_host()
    if host is None:
        return None
    if not host.runs_tasks:
        placement: Placement = host.placement
        return placement
    function = call.spec.function if call is not None else None
    return None if function is None else function.placement


def current_gpus() -> list[str]:
    """The names of the GPUs that belong to the code that asks; none in the driver."""
    call = CURRENT.get()
    if call is not None:
        return call.gpus
    return list(worker_host.gpus) if worker_host is not None else []


def current_host() -> Any:
    """The host of the actor or task worker that this thread belongs to; None in the driver."""
    call = CURRENT.get()
    return call.host if call is not None else worker_host
