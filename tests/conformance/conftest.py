"""The suite that every engine must pass: each test runs on each of them, in its own runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from ray_cluster import RayCluster, two_nodes

import klieg

ENGINES = os.environ.get("KLIEG_TEST_ENGINES", "inline local").split()
"""Set the variable to run the suite on some engines only."""

NUM_CPUS = 4


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs_process(reason): needs workers that are processes; skipped on the inline engine",
    )
    config.addinivalue_line(
        "markers",
        "not_on_ray(reason): differs on the Ray engine, as docs/ray-engine.md says; skipped there",
    )


@pytest.fixture(scope="session", autouse=True)
def ray_cluster() -> Iterator[RayCluster | None]:
    """The cluster that the tests on the Ray engine share; None if there are none."""
    if "ray" not in ENGINES:
        yield None
        return
    with two_nodes(klieg.init) as cluster:
        yield cluster


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, ray_cluster: RayCluster | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the engine that the test runs on."""
    not_on_ray = request.node.get_closest_marker("not_on_ray")
    if request.param == "ray":
        if not_on_ray is not None:
            pytest.skip(f"not on Ray: {not_on_ray.args[0]}")
        assert ray_cluster is not None
        monkeypatch.setattr(klieg, "init", ray_cluster.init)
    needs_process = request.node.get_closest_marker("needs_process")
    if needs_process is not None and request.param == "inline":
        pytest.skip(f"not inline: {needs_process.args[0]}")
    return str(request.param)


@pytest.fixture(autouse=True)
def klieg_runtime(engine: str, nothing_leaks: None) -> Iterator[None]:
    """A fresh runtime with four CPUs.

    A file whose tests start their runtimes themselves overrides this fixture.
    """
    klieg.init(engine=engine, num_cpus=NUM_CPUS)
    yield
    klieg.shutdown()
