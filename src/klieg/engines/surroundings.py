"""From a runtime environment to a process that has it: checked at the call, made in the worker."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from klieg.exceptions import RuntimeEnvSetupError
from klieg.runtime_env import HARMLESS, HERE, RuntimeEnv


def resolve(outer: RuntimeEnv, inner: Mapping[str, Any]) -> RuntimeEnv:
    """The environment of what is called from `outer` with `inner`: merged, its paths absolute.

    Raises:
        RuntimeEnvSetupError: it asks for what only a cluster gives; the message names the Ray engine.
        ValueError: a path leads nowhere.
    """
    merged = outer.merged_with(inner)
    elsewhere = sorted(set(merged) - {*HERE, *HARMLESS})
    if elsewhere:
        raise RuntimeEnvSetupError(
            f"The runtime environment asks for {', '.join(elsewhere)}, which this engine does not set up: install it "
            "before, or run on a Ray cluster with `init(engine='ray', address=...)`."
        )
    if "working_dir" in merged:
        merged["working_dir"] = existing_folder(merged["working_dir"])
    if "py_modules" in merged:
        merged["py_modules"] = [existing(path, "py_modules") for path in merged["py_modules"]]
    return merged


def existing_folder(path: str) -> str:
    """The absolute path of a working directory. ValueError if there is none, RuntimeEnvSetupError for a URI."""
    found = existing(path, "working_dir")
    if not os.path.isdir(found):
        raise ValueError(f"runtime_env['working_dir'] is no folder: {found}")
    return found


def existing(path: str, key: str) -> str:
    """The absolute path of a part of the environment. ValueError if there is none, RuntimeEnvSetupError for a URI."""
    if "://" in path:
        raise RuntimeEnvSetupError(
            f"runtime_env[{key!r}] names {path}, which this engine does not download: give a path of this machine, or "
            "run on a Ray cluster with `init(engine='ray', address=...)`."
        )
    found = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(found):
        raise ValueError(f"runtime_env[{key!r}] names a path that does not exist: {found}")
    return found


def settle(environment: RuntimeEnv) -> None:
    """Give this process, a fresh worker, the environment. OSError if its folder is gone meanwhile."""
    for name, value in environment.get("env_vars", {}).items():
        os.environ[name] = re.sub(r"\$\{(\w+)\}", _variable, value)
    if "PYTHONPATH" in environment.get("env_vars", {}):  # which Python reads at its start: this one is running
        sys.path[:0] = filter(None, os.environ["PYTHONPATH"].split(os.pathsep))
    sys.path[:0] = [os.path.dirname(path) if _is_source(path) else path for path in environment.get("py_modules", [])]
    if "working_dir" in environment:
        os.chdir(environment["working_dir"])
        sys.path.insert(0, environment["working_dir"])


def _variable(found: re.Match[str]) -> str:
    return os.environ.get(found[1], "")


def _is_source(path: str) -> bool:
    """True for a package's folder or a module's file, which its parent makes importable; a wheel is its own folder."""
    return not path.endswith((".whl", ".zip"))
