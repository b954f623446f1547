"""One Ray cluster of two nodes for all tests of a session, on the loopback interface of this machine alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import leaks

NODES = ({"num_cpus": 4, "num_gpus": 2, "resources": {"gold": 2, "lamp": 1}}, {"num_cpus": 0})
"""What each node has. Some tests want four CPUs at once; actors, which hold none, run on both."""

ALLOWED = {
    r"ray::|/ray/core/|/ray/_private/|ray-dashboard": "Ray keeps a worker process for the next task or actor",
    r"^'Dummy-": "Ray's core calls back on a thread of its own, which Python then lists",
    r"^socket:|^anon_inode:|/ray/session_": "Ray's core keeps its connections to workers, and its logs, open",
}
"""What may stay behind after a test on Ray, and why. klieg's own threads, files and segments may not."""


class RayCluster:
    """A cluster, and `klieg.init` with its address."""

    def __init__(self, cluster: Any, init: Callable[..., Any]) -> None:
        self.cluster = cluster
        self.address: str = cluster.address
        self._init = init

    def init(self, address: str | None = None, **options: Any) -> Any:
        if options.get("engine") == "ray":
            address = address or self.address
        return self._init(address, **options)


@contextlib.contextmanager
def two_nodes(init: Callable[..., Any]) -> Iterator[RayCluster]:
    """Start the cluster and join it, so that every test finds it joined: joining takes a second, a new job's first
    worker another."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray listens on every interface
    os.environ["RAY_USAGE_STATS_ENABLED"] = os.environ["RAY_USE_UVLOOP"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for resources in NODES:
            cluster.add_node(**resources, node_ip_address="127.0.0.1", include_dashboard=False)
        ray.init(cluster.address, _node_ip_address="127.0.0.1", log_to_driver=False, configure_logging=False)
        leaks.allowed.update(ALLOWED)
        yield RayCluster(cluster, init)
    finally:
        ray.shutdown()
        cluster.shutdown()
