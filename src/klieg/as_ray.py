"""`import ray` gives klieg: for programs, and the libraries under them, that were written for Ray's core interface.

    klieg run script.py --as-ray          a script
    pytest -p klieg.as_ray                a test suite
    import klieg.as_ray                   by hand, before anything imports ray

Importing this module is what does it, here and in every worker. `ray` then has Ray's names and Ray's defaults where
klieg's own differ; what is not Ray's core (`ray.data`, `ray.serve`, ...) says so when it is imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any, Final

import klieg
from klieg import names
from klieg.session import start_with

logger = logging.getLogger("klieg")

RAY_VERSION: Final = "2.60.0"
"""The Ray whose interface this is, for programs that ask for `ray.__version__`."""

ELSEWHERE: Final = {
    "ray.cloudpickle": "cloudpickle",
    "ray.types": "klieg",
    "ray._raylet": "klieg",
}
"""Modules of Ray's whose names live somewhere else here. For all others `ray.x` is `klieg.x`."""

IGNORED_ADDRESSES: Final = (None, "local", "auto")
"""What a program may say of a cluster although there is none: to be alone is what these can mean."""


def init(address: str | None = None, **keywords: Any) -> Any:
    """`klieg.init` with Ray's defaults. An address of a cluster is refused: with a cluster there is Ray itself.

    Keywords that Ray marks as its own affair (`_redis_password`, `_memory`, ...) are about Ray's processes, of which
    there are none: they change nothing.
    """
    if address not in IGNORED_ADDRESSES:
        raise ConnectionError(
            f"ray is klieg here, on this machine alone, and cannot join the cluster at {address!r}. Run the program on "
            "a cluster without --as-ray, or use klieg's own `init(engine='ray', address=...)`."
        )
    return klieg.init(**{name: value for name, value in keywords.items() if not name.startswith("_")})


def lookup(name: str) -> Any:
    """What `ray.x` is, where it is not one of Ray's defaults."""
    try:
        return getattr(klieg, name)
    except AttributeError:
        if find_module(f"ray.{name}") is None:
            raise AttributeError(f"module 'ray' has no attribute {name!r}: {_why(f'ray.{name}')}") from None
    return importlib.import_module(f"ray.{name}")


def find_module(name: str) -> str | None:
    """The module that stands for `ray.x`; None if klieg has nothing of the kind."""
    ours = ELSEWHERE.get(name) or f"klieg{name.removeprefix('ray')}"
    try:
        found = importlib.util.find_spec(ours)
    except ModuleNotFoundError:  # its parent is none of klieg's
        return None
    return None if found is None or name.startswith(("ray.engines", "ray.concurrency")) else ours


def _why(name: str) -> str:
    row = names.find("klieg", name.removeprefix("ray.").partition(".")[0])
    reason = row.note if row is not None and row.note else "it is not part of Ray's core interface, or not yet here"
    return f"ray is klieg here, and {name} is not part of it ({reason})."


class Finder:
    """Finds `ray` and everything below it, before any Ray that is installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "ray" and not name.startswith("ray."):
            return None
        return importlib.machinery.ModuleSpec(name, Loader(), is_package=True)

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        """For those who ask which version is installed."""
        return [Distribution()] if getattr(context, "name", None) in (None, "ray") else []

    def invalidate_caches(self) -> None:
        return


class Loader(importlib.abc.Loader):
    """Gives the module of klieg's that has the names."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        if spec.name == "ray":
            return types.ModuleType("ray", klieg.__doc__)  # no class of its own: cloudpickle takes modules by type
        ours = find_module(spec.name)
        if ours is None:
            raise ModuleNotFoundError(_why(spec.name), name=spec.name)
        module = importlib.import_module(ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "ray":
            module.__dict__.update(
                __version__=RAY_VERSION, __path__=[], __getattr__=lookup, __dir__=lambda: klieg.__all__, init=init
            )
        else:
            module.__spec__ = self._spec  # the import system has put the alias's in its place


class Distribution(importlib.metadata.Distribution):
    """What `importlib.metadata.version("ray")` reads."""

    def read_text(self, filename: str) -> str | None:
        return f"Metadata-Version: 2.1\nName: ray\nVersion: {RAY_VERSION}\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise FileNotFoundError(f"ray is klieg here and has no file {path}.")


def install() -> None:
    """Have `import ray` give klieg, in this process and in all its workers.

    Called once, by the import of this module. Raises RuntimeError if Ray itself has been imported already.
    """
    if "ray" in sys.modules:
        raise RuntimeError("Ray itself has been imported already: klieg.as_ray must come before what imports ray.")
    sys.meta_path.insert(0, Finder())
    start_with(blocking_get="warn", worker_imports=(__name__,))
    if os.environ.get("RAY_ADDRESS"):
        logger.warning("RAY_ADDRESS is set, but ray is klieg here: the program runs on this machine alone.")


install()
