"""Refs as `concurrent.futures.Future` objects."""

import concurrent.futures
import threading

import pytest

import klieg


@klieg.remote
def echo(x):
    return x


@klieg.remote
def fail():
    raise ValueError("no")


@klieg.remote
def wait_at(gate, value=None):
    gate.wait()
    return value


def test_a_ref_gives_a_genuine_future():
    future = echo.remote(1).future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(10) == 1


def test_each_future_is_a_new_one():
    ref = echo.remote(1)
    first, second = ref.future(), ref.future()
    assert first is not second
    assert [first.result(10), second.result(10)] == [1, 1]


def test_the_pages_loop_over_as_completed():
    refs = [echo.remote(i) for i in range(4)]
    found = []
    for future in concurrent.futures.as_completed([ref.future() for ref in refs]):
        assert future.done()
        found.append(future.result())
    assert sorted(found) == [0, 1, 2, 3]


def test_as_completed_yields_as_results_come(gate):
    late, early = wait_at.remote(gate, "late").future(), echo.remote("early").future()
    completed = concurrent.futures.as_completed([late, early], timeout=10)
    assert next(completed) is early
    gate.open()
    assert next(completed) is late


@pytest.mark.parametrize("return_when", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_wait_knows_every_return_when(gate, return_when):
    failing, held = fail.remote().future(), wait_at.remote(gate).future()
    if return_when == "ALL_COMPLETED":
        gate.open()
    done, pending = concurrent.futures.wait([failing, held], 10, return_when)
    gate.open()
    expected = {failing, held} if return_when == "ALL_COMPLETED" else {failing}
    assert done == expected
    assert done | pending == {failing, held}


def test_an_error_comes_as_itself():
    future = fail.remote().future()
    error = future.exception(10)
    assert isinstance(error, ValueError)
    assert isinstance(error, klieg.exceptions.TaskError)
    with pytest.raises(ValueError, match="no"):
        future.result()


def test_result_times_out_as_the_builtin_says(gate):
    ref = wait_at.remote(gate, 1)
    with pytest.raises(TimeoutError):
        ref.future().result(0.02)
    gate.open()
    assert klieg.get(ref) == 1


def test_cancel_affects_neither_the_call_nor_other_futures(gate):
    ref = wait_at.remote(gate, 1)
    cancelled, other = ref.future(), ref.future()
    assert cancelled.cancel()
    gate.open()
    assert other.result(10) == 1
    assert klieg.get(ref) == 1
    assert cancelled.cancelled()


def test_a_finished_future_cannot_be_cancelled():
    future = echo.remote(1).future()
    future.result(10)
    assert future.cancel() is False


def test_a_future_never_says_that_it_runs(gate):
    future = wait_at.remote(gate).future()
    assert future.running() is False
    gate.open()
    future.result(10)


def test_a_future_keeps_the_value_when_the_ref_is_gone():
    ref = echo.remote([1, 2])
    future = ref.future()
    del ref
    assert future.result(10) == [1, 2]


def test_callbacks_can_use_the_api():
    done = threading.Event()
    found = []

    def then(future):
        found.append(klieg.get(echo.remote(future.result() + 1)))
        done.set()

    echo.remote(1).future().add_done_callback(then)
    assert done.wait(10)
    assert found == [2]


def test_a_callback_runs_at_once_if_the_value_is_there():
    ref = echo.remote(1)
    klieg.wait([ref])
    future = ref.future()
    future.result(10)
    called = []
    future.add_done_callback(called.append)
    assert called == [future]


def test_the_future_of_a_killed_actors_call_fails(gate, journal):
    @klieg.remote
    class Actor:
        def run(self, gate):
            journal.note("in")
            gate.wait()

    actor = Actor.remote()
    future = actor.run.remote(gate).future()
    journal.next()
    klieg.kill(actor)
    assert isinstance(future.exception(10), klieg.exceptions.ActorDiedError)


def test_a_future_of_a_put_value_is_done():
    assert klieg.put(3).future().result(10) == 3


def test_an_executors_map_can_collect_futures():
    futures = [echo.remote(i).future() for i in range(10)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda f: f.result(10), futures)) == list(range(10))


def test_nobody_needs_to_poll_for_a_future_to_finish():
    done = threading.Event()
    echo.remote(1).future().add_done_callback(lambda future: done.set())
    assert done.wait(10)
