"""Runtime environments in Ray's form, and back.

Folders and files of this machine are uploaded to the cluster, which Ray by itself does for a whole job only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any, Final

import ray
from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

from klieg.engines.surroundings import existing, existing_folder
from klieg.runtime_env import RuntimeEnv

SET_UP_FOR_US: Final = ("RAY_USE_UVLOOP",)
"""Variables that klieg adds to the environment of a job."""


def for_ray(given: Mapping[str, Any]) -> dict[str, Any]:
    """What to give to Ray for one task or actor.

    Raises ValueError for a path that leads nowhere.
    """
    environment: dict[str, Any] = dict(RuntimeEnv(**given))
    if "working_dir" in environment and _is_here(environment["working_dir"]):
        environment["working_dir"] = existing_folder(environment["working_dir"])
    if "py_modules" in environment:
        environment["py_modules"] = [
            existing(path, "py_modules") if _is_here(path) else path for path in environment["py_modules"]
        ]
    with tempfile.TemporaryDirectory(prefix="klieg-upload-") as scratch:
        environment = upload_py_modules_if_needed(environment, include_gitignore=True, scratch_dir=scratch)
        environment = upload_working_dir_if_needed(environment, include_gitignore=True, scratch_dir=scratch)
    environment.pop("excludes", None)  # it was about what to upload
    return environment


def of_this_process(shipped: int) -> RuntimeEnv:
    """What the user has asked for.

    Args:
        shipped: modules that klieg has added in front of the user's own.
    """
    environment: dict[str, Any] = dict(ray.get_runtime_context().runtime_env)
    variables = {k: v for k, v in environment.pop("env_vars", {}).items() if k not in SET_UP_FOR_US}
    modules = environment.pop("py_modules", [])[shipped:]
    if variables:
        environment["env_vars"] = variables
    if modules:
        environment["py_modules"] = modules
    return RuntimeEnv(**environment)


def _is_here(path: str) -> bool:
    return "://" not in os.fspath(path)
