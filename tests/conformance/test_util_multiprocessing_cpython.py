"""CPython's own tests of `multiprocessing.Pool`, as installed with this interpreter, run on klieg's."""

import importlib.util
import multiprocessing
import unittest

import pytest

from klieg.util.multiprocessing import Pool

NOT_OURS = {
    "test_make_pool": "counts the workers in a private attribute",
    "test_resource_warning": "sets a private attribute; test_util_multiprocessing.py has its like",
    "test_map_unplicklable": "klieg says what cannot be pickled: a TypeError, whose cause is the error expected there",
    "test_traceback": "wants the cause to be of the standard library's private class",
}
"""Tests left out, and why."""

ABANDONED_INLINE = {"test_async_timeout", "test_terminate"}
"""Calls sleep on when their pool is terminated, which only a process can be kept from."""


def cases():
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test._test_multiprocessing") is None:
        return []
    from test import _test_multiprocessing as theirs

    return [
        pytest.param(theirs._TestPool, name, id=name)
        for name in unittest.TestLoader().getTestCaseNames(theirs._TestPool)
        if name not in NOT_OURS
    ]


CASES = cases()


@pytest.mark.skipif(not CASES, reason="this Python was installed without its own tests of multiprocessing")
@pytest.mark.parametrize(("mixin", "name"), CASES)
def test_cpythons_own_tests_pass(engine, mixin, name):
    if engine == "inline" and name in ABANDONED_INLINE:
        pytest.skip("not inline: a thread cannot be killed")

    class Case(mixin, unittest.TestCase):
        TYPE = "processes"
        Pool = staticmethod(Pool)
        TimeoutError = multiprocessing.TimeoutError
        setUpClass = tearDownClass = classmethod(lambda cls: None)

        def setUp(self):
            self.pool = Pool(4)

        def tearDown(self):
            self.pool.terminate()
            self.pool.join()

    result = unittest.TestResult()
    Case(name).run(result)
    assert result.testsRun == 1
    assert not result.failures + result.errors, (result.failures + result.errors)[0][1]
