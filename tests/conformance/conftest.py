"""The suite that every engine must pass: each test runs on each of them, in its own runtime."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import gates
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


class Warnings:
    """What this process's logger and its workers' standard error have said so far."""

    def __init__(self, path, caplog):
        self._path = path
        self._caplog = caplog

    def init(self, **settings):
        """Start a runtime whose workers write their errors where this object finds them."""
        ours, theirs = os.dup(2), os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(theirs, 2)
        try:
            klieg.init(**settings)
        finally:
            os.dup2(ours, 2)
            os.close(ours)
            os.close(theirs)

    def text(self):
        return self._path.read_text() + "\n".join(
            record.getMessage() for record in self._caplog.records if record.levelno == logging.WARNING
        )

    def wait_for(self, words):
        deadline = time.monotonic() + gates.PATIENCE
        while words not in self.text():
            assert time.monotonic() < deadline, f"no warning with {words!r} in:\n{self.text()}"
            time.sleep(0.05)
        return self.text()


@pytest.fixture
def warnings(tmp_path, caplog):
    """The warnings of the test's runtime, whichever process gives them."""
    caplog.set_level(logging.WARNING, "klieg")
    return Warnings(tmp_path / "stderr", caplog)
