"""A pytest plugin for programs that use klieg: `pytest_plugins = ["klieg.testing"]` in the top `conftest.py`.

    klieg_runtime         a runtime of the test's own; the test fails if it leaves anything of it behind
    klieg_shared_runtime  one runtime for many tests
    klieg_no_leaks        the check alone, for tests that call `init` themselves
    klieg_engine          the name of the engine that the test runs on

`--klieg-engine NAME`, as often as wanted, or the ini value `klieg_engines` says on which engines tests run; without
either, inline. `@pytest.mark.klieg(num_cpus=2, engines=["local"])` has keywords of `init`, and engines of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

import klieg
from klieg import util
from klieg.api import Context
from klieg.testing import leaks

ENGINES: Final = ("inline", "local", "ray")


class SharedRuntime:
    """The runtime of the tests that share one: started by the first, ended by whoever needs another."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._settings: dict[str, Any] = {}

    def start(self, settings: dict[str, Any]) -> Context:
        """The runtime with these settings: the one that runs, if it has them."""
        if self._context is None or self._settings != settings or not klieg.is_initialized():
            self.end()
            self._context, self._settings = klieg.init(**settings), settings
        return self._context

    def end(self) -> None:
        if self._context is not None:
            self._context = None
            klieg.shutdown()


_SHARED: Final = pytest.StashKey[SharedRuntime]()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "engine on which tests that use klieg run: inline, local or ray"
    parser.getgroup("klieg").addoption(
        "--klieg-engine", action="append", choices=ENGINES, metavar="NAME", help=f"{text}; may be given several times"
    )
    parser.addini("klieg_engines", f"{text}; several: on each of them", type="args", default=["inline"])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "klieg(engines=..., **keywords): engines of this test, and keywords of the `klieg.init` of its runtime",
    )
    config.stash[_SHARED] = SharedRuntime()
    leaks.mark()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_SHARED].end()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for an engine on each of them."""
    if "klieg_engine" in metafunc.fixturenames:
        config = metafunc.config
        chosen = config.getoption("klieg_engine") or config.getini("klieg_engines")
        metafunc.parametrize("klieg_engine", _said(metafunc.definition).get("engines", chosen), indirect=True)


@pytest.fixture
def klieg_engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine that the test runs on; asking for it is what makes a test run on each."""
    if request.param not in ENGINES:
        raise pytest.UsageError(f"klieg has no engine {request.param!r}; the engines are {', '.join(ENGINES)}.")
    return str(request.param)


@pytest.fixture
def klieg_no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if it leaves behind a process, thread, descriptor, piece of shared memory or temporary file."""
    request.config.stash[_SHARED].end()
    before = leaks.Snapshot.take()
    yield
    left = leaks.leaks_after(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def klieg_runtime(request: pytest.FixtureRequest, klieg_engine: str, klieg_no_leaks: None) -> Iterator[Context]:
    """A fresh runtime, ended after the test; then nothing of it may be left."""
    context = klieg.init(**_settings(request, klieg_engine))
    try:
        yield context
    finally:
        klieg.shutdown()


@pytest.fixture
def klieg_shared_runtime(request: pytest.FixtureRequest, klieg_engine: str) -> Iterator[Context]:
    """The runtime that tests with the same settings share; named actors that a test leaves are ended after it."""
    yield request.config.stash[_SHARED].start(_settings(request, klieg_engine))
    if klieg.is_initialized():
        left: list[Any] = util.list_named_actors(all_namespaces=True)
        for named in left:
            klieg.kill(klieg.get_actor(named["name"], named["namespace"]))


def _settings(request: pytest.FixtureRequest, engine: str) -> dict[str, Any]:
    """Keywords of `init`, as the test's mark says."""
    defaults: dict[str, Any] = {"address": "local"} if engine == "ray" else {}
    said = _said(request.node)
    said.pop("engines", None)
    return {**defaults, **said, "engine": engine}


def _said(node: Any) -> dict[str, Any]:
    """What the marks of a test say; the nearest one wins."""
    said: dict[str, Any] = {}
    for mark in node.iter_markers("klieg"):
        said = {**mark.kwargs, **said}
    return said
