"""`import ray` gives klieg: under `klieg run --as-ray`, under `pytest -p klieg.as_ray`, and in the workers of both."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

import klieg


def run(folder, text, *options):
    """What a program prints when it runs with klieg in the place of Ray."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "klieg.cli", "run", os.fspath(program), "--as-ray", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_that_imports_ray_runs_on_klieg_in_the_driver_and_in_workers(tmp_path):
    printed = run(
        tmp_path,
        """
        import sys
        import ray
        from ray.actor import exit_actor
        from ray.exceptions import RayActorError, RayTaskError

        @ray.remote
        def where():
            import ray as theirs
            return theirs is ray, theirs.get.__module__

        ray.init(num_cpus=2)
        print(ray.get(where.remote()), ray.ObjectRef.__module__, sys.argv[1:])
        """,
        "one",
        "two",
    )
    assert printed == "(True, 'klieg.api') klieg.object_ref ['one', 'two']\n"


def test_a_blocking_get_on_a_loop_is_allowed_as_in_ray(tmp_path):
    printed = run(
        tmp_path,
        """
        import ray

        @ray.remote
        def one():
            return 1

        @ray.remote
        class Actor:
            async def blocking(self):
                return ray.get(one.remote())

        print(ray.get(Actor.remote().blocking.remote()))
        """,
    )
    assert printed == "1\n"


@pytest.mark.parametrize("part", ["data", "serve", "train", "tune", "rllib"])
def test_a_part_that_is_no_core_of_rays_says_so(tmp_path, part):
    printed = run(
        tmp_path,
        f"""
        import importlib
        import ray

        try:
            importlib.import_module("ray.{part}")
        except ModuleNotFoundError as error:
            print(error)
        try:
            ray.{part}
        except AttributeError as error:
            print(error)
        """,
    )
    assert printed.count(f"ray.{part} is not part of it (another library of Ray's") == 2


def test_an_address_of_a_cluster_is_refused(tmp_path):
    printed = run(
        tmp_path,
        """
        import ray

        try:
            ray.init("10.0.0.1:6379")
        except ConnectionError as error:
            print(error)
        """,
    )
    assert "10.0.0.1:6379" in printed


def test_keywords_that_are_rays_own_affair_change_nothing(tmp_path):
    assert run(tmp_path, "import ray\nray.init(_redis_password='x', _memory=1)\nprint(ray.get(ray.put(1)))") == "1\n"


def test_the_version_asked_for_by_name_is_that_of_the_interface(tmp_path):
    printed = run(tmp_path, "import importlib.metadata as m, ray\nprint(m.version('ray'), ray.__version__)")
    assert printed == "2.60.0 2.60.0\n"


def test_pytest_takes_it_as_a_plugin(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it():\n    import ray\n    assert ray.get(ray.put(1)) == 1\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "klieg.as_ray", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_ray_that_is_there_already_is_not_replaced():
    code = "import sys, types; sys.modules['ray'] = types.ModuleType('ray')\nimport klieg.as_ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "RuntimeError: Ray itself has been imported already" in done.stderr


def test_klieg_itself_keeps_its_defaults():
    assert klieg.session.defaults == {}
