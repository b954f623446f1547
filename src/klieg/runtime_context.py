"""Where am I: the ids, names and state of the code that asks."""

from __future__ import annotations

from typing import Any

from klieg import ids, session
from klieg.concurrency.call import CURRENT
from klieg.engines.objects import ActorToken


class RuntimeContext:
    """Facts about the driver, task or actor call that asks; made anew by each `get_runtime_context()`."""

    def __init__(self) -> None:
        self._engine = session.running_engine()
        self._call = CURRENT.get()
        self._host = session.current_host()

    def get_task_id(self) -> str | None:
        """The id of the current call as 48 hex digits, equal to `ref.task_id().hex()`; None in the driver."""
        return None if self._call is None else ids.TaskID.from_int(self._call.number).hex()

    def get_task_name(self) -> str | None:
        """`f` or `Class.method`, or what the option `name` says; None in the driver."""
        return None if self._call is None else self._call.spec.name

    def get_task_function_name(self) -> str | None:
        return self.get_task_name()

    def get_actor_id(self) -> str | None:
        """The id of the current actor as 32 hex digits; None outside an actor."""
        token = self._token()
        return None if token is None else ids.ActorID.from_int(token.id).hex()

    def get_actor_name(self) -> str | None:
        """The name the actor was created with, "" if none; None outside an actor."""
        return None if self._token() is None else self._host.actor_name

    def get_worker_id(self) -> str:
        return ids.WorkerID.from_int(self._engine.process).hex()

    def get_node_id(self) -> str:
        return ids.NodeID.from_int(1).hex()

    def get_job_id(self) -> str:
        return ids.JobID.from_int(1).hex()

    @property
    def namespace(self) -> str:
        return self._engine.namespace

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

    def is_canceled(self) -> bool:
        """True once somebody has cancelled the current call; a sync method may look and leave early.

        RuntimeError in the driver and on an async actor's loop, where CancelledError says it.
        """
        if self._call is None or (self._host.mode == "async" and self._call.spec.run_in == "loop"):
            raise RuntimeError("is_canceled() is only available in tasks and in sync methods.")
        return self._call.cancelled is not None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the current task holds."""
        function = self._call.spec.function if self._call is not None else None
        return dict(function.demand) if function is not None else {}

    def _token(self) -> ActorToken | None:
        return None if self._host is None else self._host.token


def get_runtime_context() -> RuntimeContext:
    """The context of the code that asks."""
    return RuntimeContext()
