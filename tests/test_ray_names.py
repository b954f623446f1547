"""The table of Ray's names in `klieg.names`: complete against Ray's, and true of klieg."""

from __future__ import annotations

import importlib.util
import inspect
import operator
import subprocess
import sys
from pathlib import Path

import pytest

import klieg
from klieg import environment, names, options
from klieg.cli import VERBS
from klieg.exceptions import NeedsRayEngineError
from klieg.names import State

HERE = Path(__file__).parent

OPTIONS = {**options.TASK_RULES, **options.ACTOR_RULES, **options.METHOD_RULES, **options.DECLARED_METHOD_RULES}

OFFERED = {State.SAME, State.BETTER, State.ACCEPTED}

EVERY_ROW = [
    pytest.param(section.home, row, id=f"{section.home}:{row.name}")
    for section in names.SECTIONS
    for row in section.rows
]


def names_of_ray() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    place = ""
    for line in (HERE / "data" / "ray-names.txt").read_text().splitlines():
        if line.startswith("["):
            place = line.strip("[]")
        elif not line.startswith("#"):
            found.setdefault(place, set()).update(line.split())
    return found


def resolve(path: str) -> object:
    return operator.attrgetter(path.partition(".")[2])(klieg) if "." in path else klieg


def exists(home: str, name: str) -> bool:
    if home == "options":
        return name in OPTIONS
    if home == "init":
        return name in inspect.signature(klieg.init).parameters or name in klieg.api.IGNORED_BY_INIT
    if home == "environment":
        return name.removeprefix("RAY_") in environment.VARIABLES
    if home == "command":
        return name in VERBS
    place = resolve(home)
    if isinstance(place, dict):
        return name in place
    if isinstance(place, type):
        return any(name in vars(cls) for cls in place.__mro__)
    return name in dir(place) or name == "__commit__"  # `vars` lacks what a module imports when it is first used


def test_every_name_of_rays_has_a_row_in_the_table():
    missing = {
        place: sorted(
            wanted - {row.name for section in names.SECTIONS if section.home == place for row in section.rows}
        )
        for place, wanted in names_of_ray().items()
    }
    assert not any(missing.values()), missing


def test_no_row_stands_twice_or_names_what_ray_does_not_have():
    wanted = names_of_ray()
    for section in names.SECTIONS:
        rows = [row.name for row in section.rows]
        assert sorted(rows) == sorted(set(rows)), section.title
        assert set(rows) <= wanted[section.home], section.title


@pytest.mark.parametrize(("home", "row"), EVERY_ROW)
def test_the_table_is_true(home, row):
    if row.state is State.CLUSTER and not isinstance(resolve_or_none(home), type):
        assert not exists(home, row.name)
    elif home == "environment" and row.state is State.ACCEPTED:
        assert not exists(home, row.name)  # nobody reads it
    else:
        assert exists(home, row.name) == (row.state in OFFERED or row.state is State.CLUSTER)


def resolve_or_none(home: str) -> object:
    return resolve(home) if home.startswith("klieg") else None


@pytest.mark.parametrize("path", ["klieg.client", "klieg.job_config.JobConfig", "klieg.util.connect"])
def test_a_name_for_clusters_says_so_when_it_is_used(path):
    with pytest.raises(NeedsRayEngineError, match=r"engine='ray'"):
        resolve(path)("127.0.0.1")


def test_binding_a_function_a_class_or_a_method_needs_a_cluster():
    class Plain:
        def ping(self):
            return 1

    for target in (klieg.remote(lambda: 1), klieg.remote(Plain)):
        with pytest.raises(NeedsRayEngineError):
            target.bind()


def test_a_name_that_is_not_offered_is_absent_and_says_why():
    assert not hasattr(klieg, "serve")
    with pytest.raises(AttributeError, match="another library"):
        klieg.serve
    with pytest.raises(AttributeError, match="nonsense"):
        klieg.nonsense


def test_the_page_of_names_is_what_the_code_says():
    page = HERE.parent / "docs" / "ray-names.md"
    assert page.read_text() == names.page(), "write it again: python -m klieg.names > docs/ray-names.md"


def test_the_module_prints_the_page():
    done = subprocess.run([sys.executable, "-m", "klieg.names"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == names.page()


def test_the_table_knows_every_public_name_of_an_installed_ray():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    import ray
    import ray.exceptions

    public = set(ray.__all__) | {name for name in dir(ray.exceptions) if name.endswith(("Error", "Exception"))}
    known = set().union(*names_of_ray().values())
    imported_from_ray_core = {"ActorDiedErrorContext", "RayException"}  # messages, not exceptions
    assert public - known <= imported_from_ray_core, public - known
