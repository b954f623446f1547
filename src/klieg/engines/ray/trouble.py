"""Ray's errors, told as klieg's."""

from __future__ import annotations

import re
from typing import Any

from ray import exceptions as theirs

from klieg.exceptions import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    KliegError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    RuntimeEnvSetupError,
    SystemError_,
    TaskCancelledError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


_QUOTED = re.compile(r"(?m)(?:^|: )\| ?(.*)$")
"""The lines of klieg's own text in what Ray makes of it: Ray puts its own in between, and repeats some."""


def quote(text: str) -> str:
    """The text of an error in a form in which it can be found again in Ray's account of it."""
    return "\n".join(f"| {line}" for line in text.splitlines())


def text_of(error: Any) -> str:
    """What Ray says, without the colours of a terminal."""
    return _COLOURS.sub("", str(error))


def actor_trouble(error: Exception, actor_id: str, name: str) -> KliegError:
    """For a call to an actor that Ray could not carry out."""
    if isinstance(error, theirs.ActorUnavailableError):
        return ActorUnavailableError(
            f"The actor {name} is being restarted, or cannot be reached: {text_of(error)}", actor_id
        )
    if isinstance(error, theirs.RayActorError):
        told = _QUOTED.findall(text_of(error))
        if told:
            reason = "\n".join(told)
            return ActorDiedError(f"The actor {name} died because its constructor failed:\n{reason}", actor_id, True)
        return ActorDiedError(f"The actor {name} died: {text_of(error)}", actor_id)
    return task_trouble(error, name)


def task_trouble(error: Exception, name: str) -> KliegError:
    """For a task that Ray could not carry out."""
    text = text_of(error)
    if isinstance(error, theirs.TaskCancelledError) or isinstance(
        getattr(error, "cause", None), theirs.TaskCancelledError
    ):
        return TaskCancelledError(f"The call {name}() was cancelled.")
    for kind, ours in _OURS.items():
        if isinstance(error, kind):
            return ours(f"{name}(): {text}")
    return SystemError_(f"Ray could not carry out {name}(): {text}")


def lost_value(error: Exception) -> KliegError:
    """For a value in Ray's store that cannot be had any more."""
    if isinstance(error, theirs.OwnerDiedError | theirs.RayActorError):
        return OwnerDiedError(f"The process that owned the value died, and the value with it: {text_of(error)}")
    return ObjectLostError(f"The value is gone from Ray's object store: {text_of(error)}")


_OURS: dict[type[Exception], type[KliegError]] = {
    theirs.WorkerCrashedError: WorkerCrashedError,
    theirs.NodeDiedError: WorkerCrashedError,
    theirs.OutOfMemoryError: OutOfMemoryError,
    theirs.RuntimeEnvSetupError: RuntimeEnvSetupError,
    theirs.TaskUnschedulableError: TaskUnschedulableError,
    theirs.TaskPlacementGroupRemoved: TaskPlacementGroupRemoved,
    theirs.ActorPlacementGroupRemoved: ActorPlacementGroupRemoved,
    theirs.OwnerDiedError: OwnerDiedError,
    theirs.ObjectLostError: ObjectLostError,
}
