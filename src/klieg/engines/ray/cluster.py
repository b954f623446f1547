"""Joining a Ray cluster, or starting one of this machine, and bringing klieg to its nodes."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from klieg import session as process_session
from klieg.runtime_env import RuntimeEnv
from klieg.settings import Settings

if TYPE_CHECKING:
    from klieg.engines.ray.engine import RayEngine

LOOPBACK: Final = "127.0.0.1"

NEAR: Final = (LOOPBACK, "localhost", "[::1]")
"""Hosts to which nothing travels that anybody else could read."""

logger = logging.getLogger("klieg")

NO_UVLOOP: Final = "RAY_USE_UVLOOP"
"""Set to 0: Ray's actors run on asyncio's own loop, which klieg can watch, even where uvloop is installed."""


def join_cluster(resources: Mapping[str, float], namespace: str, settings: Settings) -> RayEngine:
    """The engine of a driver, on the cluster at the address of the settings.

    Raises:
        ValueError: no address.
        RuntimeError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    address = settings.address
    if address is None:
        raise ValueError(
            'engine="ray" needs an address: "auto", "host:port", "ray://host:port", or "local" for a cluster of this '
            "machine that is started now and stopped by `klieg.shutdown()`."
        )
    if address == "local":
        _stay_on_loopback()
        os.environ.setdefault(NO_UVLOOP, "0")
    ray = _import_ray()
    joined = not ray.is_initialized()  # a program that has joined a cluster itself also leaves it itself
    if joined:
        _warn_if_readable(address)
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=settings.log_to_driver,
            runtime_env=_with_klieg(settings.runtime_env, ship=address != "local"),
            **(_alone(resources) if address == "local" else {}),
        )
    from klieg.engines.ray.engine import RayEngine
    from klieg.engines.ray.messages import Session
    from klieg.engines.ray.worker import host_actor

    ships = joined and address != "local"
    paths = tuple(os.path.abspath(path) for path in sys.path)
    session = Session(uuid.uuid4().hex, namespace, settings, paths, len(_packages()) if ships else 0)
    process_session.environment = RuntimeEnv(**settings.runtime_env)
    engine = RayEngine(session, host_actor)
    if joined:
        engine.on_shutdown = ray.shutdown
    else:
        engine.environment = settings.runtime_env
    return engine


def _warn_if_readable(address: str) -> None:
    """A cluster elsewhere is reached over a network, on which Ray encrypts nothing unless it is told to."""
    host = address.rpartition("://")[2].rpartition(":")[0]
    if host and host not in NEAR and os.environ.get("RAY_USE_TLS") != "1":
        logger.warning(
            "Calls and values travel to the Ray cluster at %s unencrypted, and who reaches it can run code on it: "
            "set RAY_USE_TLS=1 with its certificates, or use it on a network that nobody else is on.",
            host,
        )


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise RuntimeError(f'engine="ray" needs Ray: pip install "klieg[ray]" ({error}).') from error
    return ray


def _stay_on_loopback() -> None:
    """Have a cluster that is only for this program listen on this machine alone; by default Ray does so everywhere."""
    if (
        "ray" not in sys.modules
    ):  # Ray reads it when it is imported, and calls it by the systems where it is the default
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _alone(resources: Mapping[str, float]) -> dict[str, Any]:
    """How to start a cluster of one node."""
    others = {key: amount for key, amount in resources.items() if key not in ("CPU", "GPU", "memory")}
    return {
        "num_cpus": resources.get("CPU"),
        "num_gpus": resources.get("GPU"),
        "resources": others or None,
        "include_dashboard": False,
        "_node_ip_address": LOOPBACK,
    }


def _with_klieg(runtime_env: Mapping[str, Any] | None, ship: bool) -> dict[str, Any]:
    """The runtime environment of all workers: the user's, and klieg with what it needs, so that no node needs it."""
    environment = dict(runtime_env or {})
    if ship:
        environment["env_vars"] = {NO_UVLOOP: "0", **environment.get("env_vars", {})}
        environment["py_modules"] = [*_packages(), *environment.get("py_modules", ())]
    return environment


def _packages() -> list[str]:
    """What a node needs and need not have."""
    import cloudpickle

    import klieg

    return [str(Path(module.__file__ or "").parent) for module in (klieg, cloudpickle)]
