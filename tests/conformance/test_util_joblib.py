"""joblib's calls in klieg's workers."""

import os

import pytest

import klieg

joblib = pytest.importorskip("joblib", reason="joblib is not installed (it is in the extra 'test')")

from klieg.util.joblib import register_klieg, register_ray  # noqa: E402  # needs joblib

register_klieg()
register_ray()


def square(x):
    return x * x


@pytest.mark.parametrize("name", ["klieg", "ray"])
def test_parallel_calls_give_their_results_in_order(name):
    with joblib.parallel_config(backend=name, n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(square)(i) for i in range(50)) == [i * i for i in range(50)]


def test_lambdas_and_closures_work():
    offset = 3
    with joblib.parallel_config(backend="klieg", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(lambda x: x + offset)(i) for i in range(5)) == [3, 4, 5, 6, 7]


def test_results_can_come_one_by_one():
    parallel = joblib.Parallel(n_jobs=2, backend="klieg", return_as="generator")
    assert list(parallel(joblib.delayed(square)(i) for i in range(10))) == [i * i for i in range(10)]


def test_an_error_is_raised_and_the_backend_can_be_used_again():
    with joblib.parallel_config(backend="klieg", n_jobs=2):
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(divmod)(1, i) for i in range(3))
        assert joblib.Parallel()(joblib.delayed(square)(i) for i in range(3)) == [0, 1, 4]
        with joblib.Parallel() as parallel:
            with pytest.raises(ZeroDivisionError):
                parallel(joblib.delayed(divmod)(1, i) for i in range(3))
            assert parallel(joblib.delayed(square)(i) for i in range(3)) == [0, 1, 4]


def test_a_negative_number_of_jobs_counts_from_the_runtimes_cpus():
    with joblib.parallel_config(backend="klieg"):
        assert [joblib.effective_n_jobs(n) for n in (-1, -2, -9, 2)] == [4, 3, 1, 2]
        with pytest.raises(ValueError, match="n_jobs"):
            joblib.effective_n_jobs(0)


def test_one_job_runs_here():
    with joblib.parallel_config(backend="klieg", n_jobs=1):
        assert set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(3))) == {os.getpid()}


@pytest.mark.needs_process("a worker is killed")
def test_a_worker_that_dies_fails_the_call_instead_of_hanging():
    with joblib.parallel_config(backend="klieg", n_jobs=2), pytest.raises(klieg.exceptions.ActorDiedError):
        joblib.Parallel(batch_size=1)(joblib.delayed(os._exit)(7) for _ in range(2))
