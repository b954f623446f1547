"""klieg: Ray's programming model for concurrency, on one machine, in milliseconds.

Remote tasks, actors, async actors whose methods share one event loop, threaded actors, and object refs that are
asyncio and concurrent futures. The public names are Ray's.
"""

from klieg import actor, exceptions, util
from klieg._version import __version__
from klieg.actor import ActorClass, ActorHandle, method
from klieg.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    init,
    is_initialized,
    kill,
    put,
    remote,
    shutdown,
    wait,
)
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
from klieg.object_ref import ObjectRef, ObjectRefGenerator
from klieg.remote_function import RemoteFunction
from klieg.runtime_context import get_runtime_context

ObjectID = ObjectRef

__all__ = [
    "ActorClass",
    "ActorClassID",
    "ActorHandle",
    "ActorID",
    "ClusterID",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "RemoteFunction",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "put",
    "remote",
    "shutdown",
    "util",
    "wait",
]
