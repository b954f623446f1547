"""Runtime environments: what a task or an actor wants to find in its process, as Ray describes it."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, Final

HERE: Final = ("env_vars", "working_dir", "py_modules")
"""What one machine can give: variables of the process, a folder to run in, modules to import."""

HARMLESS: Final = ("excludes", "config", "eager_install")
"""What says how Ray is to ship and to install things; there is nothing to ship."""


class RuntimeEnv(dict[str, Any]):
    """A runtime environment, checked when it is made; a plain dictionary does wherever one is taken.

    Args:
        env_vars: variables of the process's environment; `${NAME}` in a value stands for what NAME was there before.
        working_dir: the folder to run in, which is also where modules are looked for first.
        py_modules: modules to be importable: folders of packages, `.py` files, wheels, or the modules themselves.
        others: what Ray knows besides (pip, uv, conda, container, ...): for the Ray engine; the others refuse it.

    Raises TypeError for what is not of the right type.
    """

    def __init__(
        self,
        *,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        py_modules: list[Any] | None = None,
        **others: Any,
    ) -> None:
        given = {"env_vars": env_vars, "working_dir": working_dir, "py_modules": py_modules, **others}
        super().__init__({key: value for key, value in given.items() if value is not None})
        _check_variables(env_vars)
        if working_dir is not None and not isinstance(working_dir, str):
            raise TypeError(f"runtime_env['working_dir'] must be a path as a string, not {type(working_dir).__name__}.")
        if py_modules is not None:
            self["py_modules"] = _paths_of(py_modules)

    def to_dict(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return dict(self)

    def merged_with(self, inner: Mapping[str, Any]) -> RuntimeEnv:
        """This environment for what is called from it: variables are added or replaced, anything else is replaced."""
        merged = {**self, **inner}
        if "env_vars" in self or "env_vars" in inner:
            merged["env_vars"] = {**self.get("env_vars", {}), **inner.get("env_vars", {})}
        return RuntimeEnv(**merged)

    def dump(self) -> str:
        """As text, equal for equal environments; "" for an empty one."""
        return json.dumps(self, sort_keys=True, default=repr) if self else ""

    @classmethod
    def load(cls, text: str) -> RuntimeEnv:
        return cls(**json.loads(text)) if text else cls()


def _check_variables(variables: Any) -> None:
    if variables is None:
        return
    if not isinstance(variables, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dictionary of strings, not {type(variables).__name__}.")
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env['env_vars'] must hold strings that name strings, not {name!r}: {value!r}.")


def _paths_of(modules: Any) -> list[str]:
    if not isinstance(modules, list | tuple):
        raise TypeError(f"runtime_env['py_modules'] must be a list of paths or modules, not {type(modules).__name__}.")
    return [_path_of(module) for module in modules]


def _path_of(module: Any) -> str:
    if isinstance(module, str):
        return module
    if isinstance(module, types.ModuleType):
        if hasattr(module, "__path__"):
            return str(next(iter(module.__path__)))
        if getattr(module, "__file__", None):
            return str(module.__file__)
    raise TypeError(f"runtime_env['py_modules'] holds paths and modules with a file, not {module!r}.")
