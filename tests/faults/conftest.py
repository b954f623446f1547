"""What the tests of faults share: runtimes that fail on purpose, seeds that are printed and accepted back."""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from sizes import NIGHTLY, SEED

import klieg

NUM_CPUS = 4


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: many random faults; `make chaos` runs these in full size")
    # A crash on purpose is no reason to write a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def pytest_report_header() -> str:
    size = "nightly" if NIGHTLY else "a cut (KLIEG_CHAOS=nightly for all)"
    return f"faults: KLIEG_SEED={SEED}, chaos: {size}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        report.sections.append(("seed", f"KLIEG_SEED={SEED} tells this run again"))
    return report


@pytest.fixture
def seed() -> int:
    return SEED


@pytest.fixture
def runtime(nothing_leaks: None) -> Iterator[None]:
    """A fresh runtime of the local engine."""
    klieg.init(engine="local", num_cpus=NUM_CPUS)
    yield
    klieg.shutdown()


class Failing:
    """Starts runtimes whose processes fail at named places, and knows how often they did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self._monkeypatch = monkeypatch
        self._log = log

    def init(self, plan: str, **options: object) -> None:
        self._monkeypatch.setenv("KLIEG_FAILPOINT", plan)
        self._monkeypatch.setenv("KLIEG_FAILPOINT_SEED", str(SEED))
        self._monkeypatch.setenv("KLIEG_FAILPOINT_LOG", str(self._log))
        klieg.init(**{"engine": "local", "num_cpus": NUM_CPUS, **options})

    def hits(self, name: str) -> int:
        """How often that fail-point has struck until now."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return sum(line.split()[0] == name for line in lines)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_leaks: None) -> Iterator[Failing]:
    yield Failing(monkeypatch, tmp_path / "hits")
    klieg.shutdown()


@pytest.fixture(params=["plain", "async", "threaded"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of actor."""
    return str(request.param)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A generator of the run's seed and the test's name."""
    return random.Random(f"{SEED}/{request.node.nodeid}")
