"""Imports go down only, no module waits for itself, and what klieg exports is what it says it exports.

Read from the sources, not from `sys.modules`: an import inside a function counts like any other, unless `LATE` names it
with a reason. Imports for the type checker alone (`if TYPE_CHECKING:`) do not run and do not count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import klieg

SOURCES = Path(__file__).parent.parent / "src"

LAYERS = [
    (
        "values",
        [
            "_version",
            "exceptions",
            "ids",
            "measurements",
            "options",
            "outcome",
            "placement",
            "propagation",
            "runtime_env",
            "task",
        ],
    ),
    ("concurrency", ["concurrency"]),
    ("the plug", ["engine", "environment", "logs", "machine", "session", "settings"]),
    ("what engines share", ["engines"]),
    ("engines", ["engines.inline", "engines.local", "engines.ray"]),
    ("public API", [""]),
]
"""From the bottom up; a module belongs to the longest name that fits, so what is not listed is public API."""

ENGINES = ["klieg.engines.inline", "klieg.engines.local", "klieg.engines.ray"]

LATE = {
    ("klieg.session", "klieg.engines.inline.engine"): "init() chooses the engine; the others are never loaded",
    ("klieg.session", "klieg.engines.local.driver"): "init() chooses the engine; this one needs Linux",
    ("klieg.session", "klieg.engines.ray.cluster"): "init() chooses the engine; this one needs Ray",
    ("klieg.cli.doctor", "klieg.engines.local.health"): "checks what the local engine needs; this needs Linux",
    ("klieg.engines.ray.cluster", "klieg"): "asks where the package lies, to ship it to the nodes",
    ("klieg.engines.ray.tasks", "klieg.engines.ray.worker"): "in the function that Ray runs elsewhere, on a node",
    ("klieg.engines.local.driver", "klieg"): "asks where the package lies, to tell the head; nothing of it is used",
}
"""Imports inside functions that may go up, and why. Those that go down need no leave."""

INPUT_AND_OUTPUT = {"ctypes", "fcntl", "mmap", "multiprocessing", "os", "select", "selectors", "signal", "socket"} | {
    "shutil", "ssl", "subprocess", "tempfile"
}  # fmt: skip

PURE = {
    "klieg.concurrency.groups": {"threading", "asyncio", "time"},
    "klieg.engines.pool": {"threading", "asyncio", "time"},
    "klieg.engines.scheduler": {"threading", "asyncio", "time"},
    "klieg.engines.local.wire": {"threading", "asyncio", "time"},
    "klieg.engines.local.head.registry": {"threading", "asyncio", "time"},
}
"""Modules that take values and give values, so that their tests need no process; and what they may not wait with."""

UNIX_ONLY = {"fcntl", "grp", "pwd", "resource", "select", "termios"}


class Import(NamedTuple):
    importer: str
    imported: str
    late: bool
    """True inside a function."""


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(root: Path) -> dict[str, Path]:
    return {module_name(path, root): path for path in sorted(root.rglob("*.py"))}


def imports_of(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Import]:
    """Every import that can run, of this package's modules and of others."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from (found for other in child.orelse for found in visit(ast.Module([other], []), late))
            elif isinstance(child, ast.Import):
                yield from (Import(name, alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = resolve(child, package)
                for target in (f"{base}.{alias.name}" for alias in child.names):
                    yield Import(name, target if target in modules else base, late)
            else:
                yield from visit(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def resolve(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    above = package.split(".")[: len(package.split(".")) - statement.level + 1]
    return ".".join([*above, *([statement.module] if statement.module else [])])


def layer_of(module: str) -> int:
    """The layer's number, counted from the bottom."""
    inside = module.partition(".")[2]
    fits = [
        (len(prefix), number)
        for number, (_, prefixes) in enumerate(LAYERS)
        for prefix in prefixes
        if not prefix or inside == prefix or inside.startswith(prefix + ".")
    ]
    return max(fits)[1]


def layer(module: str) -> str:
    return LAYERS[layer_of(module)][0]


def faults_of_direction(imports: list[Import]) -> list[str]:
    """A sentence for each import that goes up, or from one engine into another."""
    return [
        f"{one.importer} (layer: {layer(one.importer)}) imports {one.imported} (layer: {layer(one.imported)})"
        for one in imports
        if one.imported.partition(".")[0] == "klieg" and not may(one)
    ]


def may(one: Import) -> bool:
    if one.late and (one.importer, one.imported) in LATE:
        return True
    importer, imported = (next((e for e in ENGINES if inside(m, e)), None) for m in one[:2])
    if layer(one.importer) == "public API" and imported:
        return False  # it knows the plug; which engine is behind it is not its business
    if importer and imported and importer != imported:
        return False
    return layer_of(one.imported) <= layer_of(one.importer)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def cycles_of(imports: list[Import]) -> list[list[str]]:
    """The chains of imports that lead back to where they began; each is found from its first module only."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        if (one.importer, one.imported) not in LATE:
            graph.setdefault(one.importer, set()).add(one.imported)
    found: list[list[str]] = []
    done: set[str] = set()

    def follow(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for following in sorted(graph.get(module, ())):
                follow(following, [*path, module])
            done.add(module)

    for module in sorted(graph):
        follow(module, [])
    return found


def all_imports(root: Path = SOURCES) -> list[Import]:
    modules = modules_of(root)
    return [one for name, path in modules.items() for one in imports_of(name, path, modules)]


IMPORTS = all_imports()


def imported_by(package: str) -> set[str]:
    """The top-level names of everything that a module, or the modules of a package, import."""
    return {one.imported.partition(".")[0] for one in IMPORTS if inside(one.importer, package)}


def test_imports_go_down_only():
    assert len(IMPORTS) > 200
    assert faults_of_direction(IMPORTS) == []


def test_no_module_waits_for_itself():
    assert cycles_of(IMPORTS) == []


def test_each_leave_to_import_late_is_used():
    used = {(one.importer, one.imported) for one in IMPORTS if one.late}
    assert set(LATE) <= used


def test_the_concurrency_core_does_no_input_and_output():
    assert imported_by("klieg.concurrency") & INPUT_AND_OUTPUT == set()


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_imports_nothing_it_could_wait_with(module):
    assert module in modules_of(SOURCES)
    assert imported_by(module) & (INPUT_AND_OUTPUT | PURE[module]) == set()


def test_what_only_unix_has_stays_in_the_local_engine():
    importers = {one.importer for one in IMPORTS if one.imported in UNIX_ONLY}
    assert importers
    assert [name for name in sorted(importers) if not inside(name, "klieg.engines.local")] == []


def test_importing_klieg_loads_no_engine():
    code = "import klieg, sys; print(*(m for m in sys.modules if m.startswith('klieg.engines.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "klieg.engines.objects" in loaded
    assert [name for name in loaded if any(inside(name, engine) for engine in ENGINES)] == []


def test_all_is_sorted_and_complete():
    """Constants first, then classes, then the rest: the order that the linter keeps, too."""
    tree = ast.parse(Path(klieg.__file__).read_text(encoding="utf-8"))
    bound = {name for statement in tree.body for name in names_bound_by(statement)}
    assert klieg.__all__ == sorted(bound, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def names_bound_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ImportFrom) and statement.module == "typing":
        return
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (t.id for t in statement.targets if isinstance(t, ast.Name) and t.id != "__all__")
    elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name


def test_every_exported_name_exists_and_the_public_modules_are_among_them():
    assert [name for name in klieg.__all__ if not hasattr(klieg, name)] == []
    assert {"actor", "exceptions", "util"} <= set(klieg.__all__)
    assert klieg.util.__all__ == sorted(klieg.util.__all__)
    assert [name for name in klieg.util.__all__ if not hasattr(klieg.util, name)] == []


# The watchman is watched: small packages that break each rule.


@pytest.fixture
def package(tmp_path: Path):
    """Write modules, path to source, into a package named klieg; returns their imports."""

    def write(**sources: str) -> list[Import]:
        for name, source in {"__init__": "", **sources}.items():
            path = tmp_path / "klieg" / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return all_imports(tmp_path)

    return write


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("task", "from klieg.concurrency import call"),
        ("task", "def f():\n    import klieg.engine"),
        ("task", "if True:\n    from . import session"),
        ("concurrency__in__call", "async def f():\n    from klieg import engine"),
        ("engines__in__calls", "from klieg.engines.local import wire"),
        ("engines__in__inline", "from klieg.engines.local.wire import frame"),
        ("engines__in__inline", "import klieg.object_ref"),
        ("engines__in__local__in__peer", "from ...object_ref import ObjectRef"),
        ("api", "f = lambda: __name__\nfrom klieg.engines import inline"),
        ("session", "from klieg.engines import inline"),
    ],
)
def test_an_import_that_goes_up_or_across_is_found(package, module, source):
    there = {"session": "", "engine": "", "object_ref": "", "concurrency__in__call": "", "engines__in__inline": ""}
    imports = package(**{**there, "engines__in__local__in__wire": "", module: source})
    assert len(faults_of_direction(imports)) == 1


def test_an_import_for_the_type_checker_is_none(package):
    typed = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from klieg import api\nelse:\n    import klieg.ids"
    )
    imports = package(task=typed, api="", ids="")
    assert [one.imported for one in imports] == ["typing", "klieg.ids"]


def test_a_circle_of_imports_is_found_even_when_one_is_late(package):
    imports = package(
        api="from klieg import actor", actor="def f():\n    from klieg.method import g", method="import klieg.api"
    )
    assert cycles_of(imports) == [["klieg.actor", "klieg.method", "klieg.api", "klieg.actor"]]
