"""Runtime environments on one machine: variables, a folder, modules; the rest needs the Ray engine and says so."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

import klieg
from klieg.exceptions import RuntimeEnvSetupError
from klieg.runtime_env import RuntimeEnv

needs_process = pytest.mark.needs_process("an environment of its own")


@klieg.remote
def variables(*names):
    return [os.environ.get(name) for name in names]


@klieg.remote
def described():
    context = klieg.get_runtime_context()
    return context.runtime_env, context.get_runtime_env_string()


@klieg.remote
class Plain:
    def variables(self, *names):
        return [os.environ.get(name) for name in names]

    def child(self, *names, **options):
        return klieg.get(variables.options(**options).remote(*names))


@needs_process
def test_variables_are_set_for_the_task_and_the_actor_that_ask_for_them():
    options = {"runtime_env": {"env_vars": {"MINE": "1"}}}
    assert klieg.get(variables.options(**options).remote("MINE")) == ["1"]
    assert klieg.get(Plain.options(**options).remote().variables.remote("MINE")) == ["1"]
    assert "MINE" not in os.environ


@needs_process
def test_workers_of_different_environments_are_not_mixed():
    @klieg.remote
    def pid():
        return os.getpid(), os.environ.get("MINE")

    one, two = (pid.options(runtime_env={"env_vars": {"MINE": value}}) for value in "12")
    found = klieg.get([f.remote() for _ in range(10) for f in (one, two, pid)])
    by_value = {value: {pid for pid, v in found if v == value} for value in ("1", "2", None)}
    assert all(by_value.values())
    assert sum(map(len, by_value.values())) == len(set.union(*by_value.values()))


@needs_process
def test_a_worker_is_used_again_for_the_same_environment():
    @klieg.remote(runtime_env={"env_vars": {"MINE": "1"}})
    def pid():
        return os.getpid()

    assert klieg.get(pid.remote()) == klieg.get(pid.remote())


@pytest.mark.not_on_ray("Ray starts the processes")
@needs_process
def test_many_environments_leave_few_workers_behind():
    @klieg.remote
    def pid():
        return os.getpid()

    pids = [klieg.get(pid.options(runtime_env={"env_vars": {"N": str(n)}}).remote()) for n in range(20)]
    assert len(set(pids)) == 20
    klieg.get(pid.options(num_cpus=4).remote())  # all others have been given back by now

    def alive():
        return [one for one in pids if os.path.exists(f"/proc/{one}")]

    import gates

    assert gates.soon(lambda: len(alive()) <= 8)


@needs_process
def test_the_environment_of_init_holds_for_all_and_is_added_to(engine):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=2, runtime_env={"env_vars": {"BASE": "1", "BOTH": "base"}})
    assert klieg.get(variables.remote("BASE", "BOTH")) == ["1", "base"]
    inner = variables.options(runtime_env={"env_vars": {"BOTH": "mine"}})
    assert klieg.get(inner.remote("BASE", "BOTH")) == ["1", "mine"]
    assert "BASE" not in os.environ
    assert klieg.get_runtime_context().runtime_env == {"env_vars": {"BASE": "1", "BOTH": "base"}}


@needs_process
def test_what_is_called_from_an_environment_inherits_it():
    actor = Plain.options(runtime_env={"env_vars": {"OUTER": "1", "BOTH": "outer"}}).remote()
    assert klieg.get(actor.child.remote("OUTER", "BOTH")) == ["1", "outer"]
    inner = {"env_vars": {"BOTH": "inner"}}
    assert klieg.get(actor.child.remote("OUTER", "BOTH", runtime_env=inner)) == ["1", "inner"]


@pytest.mark.not_on_ray("Ray starts the processes")
@needs_process
def test_a_variable_may_refer_to_what_was_there_before(monkeypatch, engine):
    klieg.shutdown()
    monkeypatch.setenv("BEFORE", "old")
    klieg.init(engine=engine, num_cpus=1)
    environment = {"env_vars": {"AFTER": "new:${BEFORE}", "NOTHING": "${NOT_THERE}."}}
    assert klieg.get(variables.options(runtime_env=environment).remote("AFTER", "NOTHING")) == ["new:old", "."]


@needs_process
def test_a_working_dir_is_where_the_task_runs_and_finds_modules(tmp_path):
    (tmp_path / "module_of_the_folder.py").write_text("VALUE = 42")
    (tmp_path / "data.txt").write_text("here")

    @klieg.remote(runtime_env={"working_dir": str(tmp_path)})
    def look():
        with open("data.txt") as file:
            return importlib.import_module("module_of_the_folder").VALUE, file.read()

    assert klieg.get(look.remote()) == (42, "here")
    assert os.getcwd() != str(tmp_path)


@pytest.mark.not_on_ray("files travel to the node when they are first asked for")
@needs_process
def test_a_working_dir_is_the_folder_itself(tmp_path):
    where = klieg.remote(os.getcwd).options(runtime_env={"working_dir": str(tmp_path)})
    assert klieg.get(where.remote()) == str(tmp_path)


@needs_process
@pytest.mark.parametrize("kind", ["package", "file", "module"])
def test_py_modules_can_be_imported(tmp_path, monkeypatch, kind):
    package = tmp_path / "a_package_elsewhere"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 42")
    (tmp_path / "a_file_elsewhere.py").write_text("VALUE = 43")
    given, name, value = str(package), "a_package_elsewhere", 42
    if kind == "file":
        given, name, value = str(tmp_path / "a_file_elsewhere.py"), "a_file_elsewhere", 43
    elif kind == "module":
        monkeypatch.syspath_prepend(tmp_path)
        given = importlib.import_module("a_package_elsewhere")
        monkeypatch.delitem(sys.modules, "a_package_elsewhere")
        monkeypatch.undo()

    @klieg.remote(runtime_env={"py_modules": [given]})
    def load():
        return importlib.import_module(name).VALUE

    assert klieg.get(load.remote()) == value


@needs_process
def test_a_wheel_can_be_imported(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "in_a_wheel-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("in_a_wheel/__init__.py", "VALUE = 44")
        wheel.writestr("in_a_wheel-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: in-a-wheel\nVersion: 1\n")
        wheel.writestr("in_a_wheel-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("in_a_wheel-1.dist-info/RECORD", "in_a_wheel/__init__.py,,\n")
    load = klieg.remote(lambda: importlib.import_module("in_a_wheel").VALUE)
    environment = {"py_modules": [str(tmp_path / "in_a_wheel-1-py3-none-any.whl")]}
    assert klieg.get(load.options(runtime_env=environment).remote()) == 44


@needs_process
def test_a_python_path_among_the_variables_counts(tmp_path):
    (tmp_path / "on_the_python_path.py").write_text("VALUE = 45")
    load = klieg.remote(lambda: importlib.import_module("on_the_python_path").VALUE)
    assert klieg.get(load.options(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}}).remote()) == 45


@needs_process
def test_the_context_tells_the_environment():
    given = RuntimeEnv(env_vars={"MINE": "1"})
    found, text = klieg.get(described.options(runtime_env=given).remote())
    assert isinstance(found, RuntimeEnv)
    assert found == {"env_vars": {"MINE": "1"}}
    assert RuntimeEnv.load(text) == found
    assert klieg.get(described.remote()) == ({}, "{}")


@needs_process
def test_a_restarted_actor_has_its_environment_again():
    actor = Plain.options(max_restarts=1, max_task_retries=1, runtime_env={"env_vars": {"MINE": "1"}}).remote()
    assert klieg.get(actor.variables.remote("MINE")) == ["1"]
    klieg.kill(actor, no_restart=False)
    assert klieg.get(actor.variables.remote("MINE")) == ["1"]


@pytest.mark.not_on_ray("files travel to the node when they are first asked for")
@needs_process
def test_a_folder_that_is_gone_when_the_worker_starts_is_named(tmp_path, gate, journal):
    @klieg.remote(num_cpus=4)
    def hold(gate, journal):
        journal.note("in")
        gate.wait()

    folder = tmp_path / "folder"
    folder.mkdir()
    holding = hold.remote(gate, journal)
    assert journal.next() == "in"
    actor = Plain.options(num_cpus=1, runtime_env={"working_dir": str(folder)}).remote()
    folder.rmdir()
    gate.open()
    with pytest.raises(klieg.exceptions.ActorDiedError, match="runtime environment"):
        klieg.get(actor.variables.remote())
    klieg.get(holding)


@pytest.mark.not_on_ray("a cluster gives what only a cluster gives")
@pytest.mark.parametrize(
    "environment",
    [{"pip": ["requests"]}, {"conda": "base"}, {"container": {"image": "x"}}, {"working_dir": "s3://bucket/code.zip"}],
    ids=lambda environment: next(iter(environment)),
)
@needs_process
def test_what_only_a_cluster_gives_names_the_ray_engine(engine, environment):
    with pytest.raises(RuntimeEnvSetupError, match="engine='ray'"):
        variables.options(runtime_env=environment).remote()
    with pytest.raises(RuntimeEnvSetupError, match="engine='ray'"):
        Plain.options(runtime_env=environment).remote()
    klieg.shutdown()
    with pytest.raises(RuntimeEnvSetupError, match="engine='ray'"):
        klieg.init(engine=engine, runtime_env=environment)
    assert not klieg.is_initialized()


@needs_process
def test_a_path_that_does_not_exist_is_refused_at_once(tmp_path):
    for environment in ({"working_dir": str(tmp_path / "no")}, {"py_modules": [str(tmp_path / "no")]}):
        with pytest.raises(ValueError, match="does not exist"):
            variables.options(runtime_env=environment).remote()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="no folder"):
        variables.options(runtime_env={"working_dir": str(tmp_path / "file")}).remote()


@pytest.mark.parametrize(
    "environment",
    [
        {"env_vars": {"A": 1}},
        {"env_vars": {1: "a"}},
        {"env_vars": ["A"]},
        {"working_dir": 5},
        {"py_modules": "x"},
        {"py_modules": [5]},
    ],
    ids=str,
)
def test_an_environment_of_the_wrong_shape_is_refused(engine, environment):
    with pytest.raises(TypeError, match=next(iter(environment))):
        RuntimeEnv(**environment)
    with pytest.raises(TypeError, match=next(iter(environment))):
        variables.options(runtime_env=environment).remote()
    klieg.shutdown()
    with pytest.raises(TypeError, match=next(iter(environment))):
        klieg.init(engine=engine, runtime_env=environment)


def test_an_empty_environment_is_none():
    assert klieg.get(variables.options(runtime_env={}).remote("NO_SUCH_VARIABLE")) == [None]
    assert klieg.get(Plain.options(runtime_env=RuntimeEnv()).remote().variables.remote()) == []


def test_the_inline_engine_says_that_it_has_one_environment(engine):
    if engine != "inline":
        pytest.skip("of the inline engine")
    with pytest.raises(RuntimeEnvSetupError, match="inline"):
        klieg.get(variables.options(runtime_env={"env_vars": {"A": "1"}}).remote())
    with pytest.raises(RuntimeEnvSetupError, match="inline"):
        Plain.options(runtime_env={"env_vars": {"A": "1"}}).remote()
    klieg.shutdown()
    with pytest.raises(RuntimeEnvSetupError, match="inline"):
        klieg.init(engine="inline", runtime_env={"env_vars": {"A": "1"}})
    assert not klieg.is_initialized()


def test_a_runtime_env_is_a_dictionary_with_checks():
    environment = RuntimeEnv(env_vars={"A": "1"}, working_dir=".", pip=["x"])
    assert environment == environment.to_dict() == {"env_vars": {"A": "1"}, "working_dir": ".", "pip": ["x"]}
    assert RuntimeEnv() == {}
