"""Libraries that others wrote for Ray run on klieg, unmodified: `make test-as-ray`, apart from `make test`.

They are installed, at the versions below, into a virtual environment of their own. Ray itself is installed there too,
as their dependency, and must not be what answers: each program below prints whose `get` it has called, and
`klieg.as_ray` refuses to come second. docs/as-ray.md says what else was tried and did not work.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

VERSIONS = {
    "ray": "2.60.0",
    "cotengra": "0.8.3",
    "ray-map": "1.0.3",
    "pymoo": "0.6.2",
    "apache-hamilton": "1.90.0",
    "easy-ray-threads": "0.1.0",
}

OTHERS = ("pytest", "pytest-asyncio", "pandas", "tqdm")
"""What their tests and the programs here need besides."""


@dataclasses.dataclass(frozen=True)
class Home:
    """The virtual environment, and what is unpacked beside it."""

    folder: Path

    @property
    def python(self) -> str:
        return os.fspath(self.folder / "venv" / "bin" / "python")

    def run(self, *arguments: str, cwd: Path, seconds: float = 300, **variables: str) -> str:
        """What Python prints with these arguments; fails the test if it fails."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def sources(self, package: str) -> Path:
        """The source distribution of a package, unpacked: its tests are in there and not in what is installed."""
        version = VERSIONS[package]
        self.run(
            *("-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", f"{package}=={version}"),
            cwd=self.folder,
        )
        (archive,) = self.folder.glob(f"{package.replace('-', '_')}-{version}.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(self.folder, filter="data")
        return self.folder / archive.name.removesuffix(".tar.gz")

    def passed(self, package: str, *arguments: str, **variables: str) -> int:
        """How many of the package's own tests pass with klieg as Ray, all that are chosen."""
        options = ("-m", "pytest", "-q", "-p", "klieg.as_ray", "-p", "no:cacheprovider", *arguments)
        printed = self.run(*options, cwd=self.sources(package), **variables)
        return int(re.findall(r"(\d+) passed", printed)[-1])

    def program(self, text: str, **modules: str) -> str:
        """What a program prints that runs with klieg as Ray, with modules of these names beside it."""
        for name, source in {**modules, "program": text}.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return self.run("-m", "klieg.cli", "run", "program.py", "--as-ray", cwd=self.folder)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("as-ray"))
    subprocess.run([sys.executable, "-m", "venv", home.folder / "venv"], check=True)
    wanted = [f"{package}=={version}" for package, version in VERSIONS.items()]
    home.run(
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", os.fspath(ROOT), *OTHERS, *wanted),
        cwd=home.folder,
        seconds=900,
    )
    return home


def test_cotengra_searches_and_nests_its_tasks(home):
    chosen = ("tests/test_parallel.py", "tests/test_optimizers.py::test_insane_nested[ray]")
    assert home.passed("cotengra", *chosen) > 10


def test_ray_map_passes_its_own_tests(home):
    # These ask for results as they come, from two tasks at a time, and then expect the first of all numbers.
    by_chance = (
        "test_imap_stream_limit_with_infinite_iter",
        "test_imap_stream_async_with_limit_infinite",
        "test_imap_stream_stop_callable",
    )
    deselected = [f"--deselect=tests/test_stream.py::{name}" for name in by_chance]
    assert home.passed("ray-map", "tests", *deselected, PYTHONPATH="src") == 19


def test_pymoo_evaluates_a_population_in_tasks(home):
    printed = home.program(
        """
        import ray
        from pymoo.algorithms.soo.nonconvex.ga import GA
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.optimize import minimize
        from pymoo.parallelization.ray import RayParallelization

        class Sphere(ElementwiseProblem):
            def __init__(self, **options):
                super().__init__(n_var=5, n_obj=1, xl=-5, xu=5, **options)

            def _evaluate(self, x, out, *args, **kwargs):
                out["F"] = (x**2).sum()

        def best(problem):
            return minimize(problem, GA(pop_size=20), termination=("n_gen", 5), seed=1).F[0]

        ray.init(num_cpus=2)
        print(best(Sphere(elementwise_runner=RayParallelization())) == best(Sphere()), ray.get.__module__)
        """
    )
    assert printed == "True klieg.api\n"


def test_hamilton_runs_each_node_of_its_graph_as_a_task(home):
    printed = home.program(
        """
        import flow
        import pandas as pd
        import ray
        from hamilton import base, driver
        from hamilton.plugins.h_ray import RayGraphAdapter

        adapter = RayGraphAdapter(base.DictResult(), ray_init_config={"num_cpus": 2}, shutdown_ray_on_completion=True)
        flow = driver.Builder().with_modules(flow).with_adapters(adapter).build()
        numbers = {"a": pd.Series([1, 2, 3]), "b": pd.Series([10, 20, 30])}
        print(flow.execute(["mean"], inputs=numbers)["mean"], ray.get.__module__)
        """,
        flow="""
        import pandas as pd

        def total(a: pd.Series, b: pd.Series) -> pd.Series:
            return a + b

        def mean(total: pd.Series) -> float:
            return float(total.mean())
        """,
    )
    assert printed.endswith("22.0 klieg.api\n")


def test_easy_ray_threads_gives_errors_back_as_results(home):
    printed = home.program(
        """
        import ray
        from easy_ray_threads import Processor

        results = Processor().process([1, 2, 0], lambda number: 10 // number)
        print(sorted(results, key=str)[:2], [r["error"] for r in results if isinstance(r, dict)], ray.get.__module__)
        """
    )
    assert "[10, 5] ['integer division or modulo by zero'] klieg.api\n" in printed
