"""klieg: Ray's programming model for concurrency, on one machine, in milliseconds.

Remote tasks, actors, async actors whose methods share one event loop, threaded actors, and object refs that are
asyncio and concurrent futures. The public names are Ray's.
"""

from typing import TYPE_CHECKING

import cloudpickle

from klieg import actor, exceptions, remote_function, runtime_context, runtime_env, util
from klieg._version import __version__
from klieg.actor import ActorClass, ActorHandle, TypedActor, method
from klieg.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    get_gpu_ids,
    init,
    is_initialized,
    kill,
    nodes,
    put,
    remote,
    shutdown,
    wait,
)
from klieg.diagnosis import dump
from klieg.executor import Executor
from klieg.ids import (
    ActorClassID,
    ActorID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from klieg.language import Language
from klieg.logging_config import LoggingConfig
from klieg.object_ref import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from klieg.options import ConcurrencyGroup
from klieg.remote_function import RemoteFunction
from klieg.runtime_context import get_runtime_context
from klieg.trace import timeline

ObjectID = ObjectRef

# What Ray calls the kinds of process: the driver, a worker, and two that klieg has no use for.
SCRIPT_MODE = 0
WORKER_MODE = 1
SPILL_WORKER_MODE = 2
RESTORE_WORKER_MODE = 3


if not TYPE_CHECKING:  # which would let every misspelt name pass

    def __getattr__(name):
        if name == "__commit__":
            from klieg._version import commit  # reads files: only for those who ask

            return commit()
        from klieg.cluster_only import missing  # and this is for those who ask for what is not there

        return missing(__name__, name)


__all__ = [
    "RESTORE_WORKER_MODE",
    "SCRIPT_MODE",
    "SPILL_WORKER_MODE",
    "WORKER_MODE",
    "ActorClass",
    "ActorClassID",
    "ActorHandle",
    "ActorID",
    "ClusterID",
    "ConcurrencyGroup",
    "DynamicObjectRefGenerator",
    "Executor",
    "FunctionID",
    "JobID",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "RemoteFunction",
    "TaskID",
    "TypedActor",
    "UniqueID",
    "WorkerID",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cloudpickle",
    "cluster_resources",
    "dump",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "shutdown",
    "timeline",
    "util",
    "wait",
]
