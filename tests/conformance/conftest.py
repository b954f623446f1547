"""The suite that every engine must pass: each test runs on each of them, in its own runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import klieg

ENGINES = os.environ.get("KLIEG_TEST_ENGINES", "inline local").split()
"""Set the variable to run the suite on some engines only."""

NUM_CPUS = 4


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs_process(reason): needs workers that are processes; skipped on the inline engine",
    )


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine that the test runs on."""
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
