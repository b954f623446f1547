"""CPython's own tests of executors, as installed with this interpreter, run on `klieg.Executor`.

They are the contract in another's words. Left out are those that start a program which imports the executor from
`concurrent.futures` by name; test_executor.py has their like.
"""

import importlib.util
import unittest

import pytest

import klieg

PACKAGE = "test.test_concurrent_futures"

ABOUT_OTHERS = {
    "test_hang_gh83386",
    "test_interpreter_shutdown",
    "test_submit_after_interpreter_shutdown",
    "test_hang_gh94440",
    "test_hang_issue12364",
    "test_hang_issue39205",
}
"""Programs that import an executor of the standard library, or create processes of `multiprocessing` to hang them."""


def cases():
    """(class of tests, name of one) of everything that every executor must pass."""
    if importlib.util.find_spec("test") is None or importlib.util.find_spec(PACKAGE) is None:
        return []  # distributions leave the package out, and older versions keep other names
    try:
        from test.test_concurrent_futures import test_as_completed, test_shutdown, test_wait
        from test.test_concurrent_futures.executor import ExecutorTest
    except ImportError:
        return []
    mixins = [ExecutorTest, test_wait.WaitTests, test_as_completed.AsCompletedTests, test_shutdown.ExecutorShutdownTest]
    return [
        pytest.param(mixin, name, id=f"{mixin.__name__}.{name}")
        for mixin in mixins
        for name in unittest.TestLoader().getTestCaseNames(mixin)
        if name not in ABOUT_OTHERS
    ]


CASES = cases()


@pytest.fixture
def klieg_runtime(engine, nothing_leaks):
    klieg.init(engine=engine, num_cpus=5)  # as many as the tests ask for as workers
    yield
    klieg.shutdown()


@pytest.mark.skipif(not CASES, reason="this Python was installed without its own tests of concurrent.futures")
@pytest.mark.parametrize(("mixin", "name"), CASES)
def test_cpythons_own_tests_pass(mixin, name):
    from test.test_concurrent_futures.util import BaseTestCase, ExecutorMixin

    class Case(ExecutorMixin, mixin, BaseTestCase):
        executor_type = klieg.Executor

    result = unittest.TestResult()
    Case(name).run(result)
    assert result.testsRun == 1
    assert not result.failures + result.errors, (result.failures + result.errors)[0][1]
