"""Where am I: the ids, names and state of the code that asks."""

from __future__ import annotations

import tempfile
from typing import Any

from klieg import engine, ids, session
from klieg.concurrency.call import CURRENT
from klieg.engines.objects import ActorToken
from klieg.runtime_env import RuntimeEnv


class RuntimeContext:
    """Facts about the driver, task or actor call that asks; made anew by each `get_runtime_context()`."""

    def __init__(self) -> None:
        self._engine = session.running_engine()
        self._call = CURRENT.get()
        self._host = session.current_host()

    # The call

    def get_task_id(self) -> str | None:
        """The id of the current call as 48 hex digits, equal to `ref.task_id().hex()`; None in the driver."""
        return None if self._call is None else ids.TaskID.from_int(self._call.number).hex()

    def get_task_name(self) -> str | None:
        """`f` or `Class.method`, or what the option `name` says; None in the driver."""
        return None if self._call is None else self._call.spec.name

    def get_task_function_name(self) -> str | None:
        """`module.f` or `module.Class.method`, whatever the option `name` says; None in the driver."""
        if self._call is None:
            return None
        if self._host.runs_tasks:
            target: Any = self._call.target
            return f"{target.__module__}.{getattr(target, '__qualname__', target.__name__)}"
        return f"{type(self._host.instance).__module__}.{self._host.name}.{self._call.spec.method}"

    def is_canceled(self) -> bool:
        """True once somebody has cancelled the current call; a sync method may look and leave early.

        RuntimeError in the driver and on an async actor's loop, where CancelledError says it.
        """
        if self._call is None or (self._host.mode == "async" and self._call.spec.run_in == "loop"):
            raise RuntimeError("is_canceled() is only available in tasks and in sync methods.")
        return self._call.cancelled is not None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the current task or actor holds: resource name to amount; {} in the driver."""
        placement = session.current_placement()
        return {} if placement is None else dict(placement.demand)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The names of the GPUs that belong to the current task or actor, under "GPU"."""
        return {"GPU": session.current_gpus()}

    def get_resource_ids(self) -> dict[str, list[str]]:
        """Ray's older name of `get_accelerator_ids`."""
        return self.get_accelerator_ids()

    def get_placement_group_id(self) -> str | None:
        """The id of the placement group that the current task or actor runs in; None if it runs in none."""
        placement = session.current_placement()
        if placement is None or placement.place is None:
            return None
        return ids.PlacementGroupID.from_int(placement.place[0]).hex()

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """True if what is called from here runs in the same placement group, unless it says otherwise."""
        return session.captured_place() is not None

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment of this process; in the driver, that of what it calls."""
        return RuntimeEnv(**session.environment)

    def get_runtime_env_string(self) -> str:
        """The same as JSON."""
        return session.environment.dump() or "{}"

    # The actor

    def get_actor_id(self) -> str | None:
        """The id of the current actor as 32 hex digits; None outside an actor."""
        token = self._token()
        return None if token is None else ids.ActorID.from_int(token.id).hex()

    def get_actor_name(self) -> str | None:
        """The name the actor was created with, "" if none; None outside an actor."""
        return None if self._token() is None else self._host.actor_name

    @property
    def current_actor(self) -> Any:
        """A handle to the actor this code runs in; RuntimeError outside one. It does not keep the actor alive."""
        from klieg.actor import ActorHandle  # the handle's module stands above this one

        token = self._token()
        if token is None:
            raise RuntimeError("This method is only available inside an actor.")
        return ActorHandle(token, self._host.info)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """True in an actor that was restarted after its process died."""
        return self._token() is not None and bool(self._host.restarted)

    def _token(self) -> ActorToken | None:
        return None if self._host is None else self._host.token

    # The runtime

    def get_worker_id(self) -> str:
        """The id of this process."""
        return ids.WorkerID.from_int(self._engine.process).hex()

    def get_node_id(self) -> str:
        return self._engine.node.hex()

    def get_job_id(self) -> str:
        return ids.JOB_ID.hex()

    def get_node_labels(self) -> dict[str, str]:
        """What `init(labels=...)` calls this machine, and its id under `ray.io/node-id`."""
        return node_labels()

    def get_session_name(self) -> str:
        """When this runtime was started, and by which process: `session_2026-01-31_12-00-00_4711`."""
        return session.settings.session_name

    def get_temp_dir(self) -> str:
        """Where this process keeps temporary files; klieg itself keeps none there."""
        return tempfile.gettempdir()

    @property
    def gcs_address(self) -> str:
        """Always "local", which `init(address=...)` takes: there is no server with an address on one machine."""
        return "local"

    @property
    def namespace(self) -> str:
        """Where named actors of this program live."""
        return self._engine.namespace

    # Ray's deprecated spellings

    def get(self) -> dict[str, Any]:
        """The ids at once, under Ray's keys."""
        found = {"job_id": self.job_id, "node_id": self.node_id, "namespace": self.namespace}
        if self._call is not None:
            found["task_id"] = self.task_id
        if self._token() is not None:
            found["actor_id"] = self.actor_id
        return found

    @property
    def job_id(self) -> ids.JobID:
        return ids.JOB_ID

    @property
    def node_id(self) -> ids.NodeID:
        return self._engine.node

    @property
    def current_placement_group_id(self) -> ids.PlacementGroupID:
        """Nil where the code runs in none."""
        found = self.get_placement_group_id()
        return ids.PlacementGroupID.nil() if found is None else ids.PlacementGroupID.from_hex(found)

    @property
    def task_id(self) -> ids.TaskID | None:
        return None if self._call is None else ids.TaskID.from_int(self._call.number)

    @property
    def actor_id(self) -> ids.ActorID | None:
        token = self._token()
        return None if token is None else ids.ActorID.from_int(token.id)


def node_labels() -> dict[str, str]:
    return {**session.settings.labels, "ray.io/node-id": engine.current().node.hex()}


def get_runtime_context() -> RuntimeContext:
    """The context of the code that asks."""
    return RuntimeContext()
