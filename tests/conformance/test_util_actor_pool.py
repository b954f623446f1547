"""`ActorPool`: a fixed set of actors that share work, with Ray's rules for order, errors and timeouts."""

import asyncio

import pytest

import klieg
from klieg.util import ActorPool


@klieg.remote
class Worker:
    def double(self, x):
        return 2 * x

    def fail(self, message):
        raise ValueError(message)

    def wait_at(self, gate, value):
        gate.wait()
        return value

    def pair(self, x):
        return x, -x


def double(actor, x):
    return actor.double.remote(x)


def fail(actor, message):
    return actor.fail.remote(message)


def wait_at(actor, gate_and_value):
    return actor.wait_at.remote(*gate_and_value)


def pool_of(count):
    return ActorPool([Worker.remote() for _ in range(count)])


def test_map_keeps_the_order_of_the_values():
    assert list(pool_of(2).map(double, range(10))) == [2 * x for x in range(10)]


def test_map_unordered_gives_every_result():
    assert sorted(pool_of(2).map_unordered(double, range(10))) == [2 * x for x in range(10)]


def test_map_can_be_iterated_by_a_coroutine():
    async def main():
        pool = pool_of(2)
        ordered = [x async for x in pool.map(double, range(6))]
        return ordered, sorted([x async for x in pool.map_unordered(double, range(6))])

    assert asyncio.run(main()) == ([0, 2, 4, 6, 8, 10],) * 2


def test_results_come_in_the_order_of_submission():
    pool = pool_of(2)
    for x in range(5):
        pool.submit(double, x)
    taken = []
    while pool.has_next():
        taken.append(pool.get_next())
    assert taken == [0, 2, 4, 6, 8]


def test_unordered_results_come_as_they_are_ready(gate):
    pool = pool_of(2)
    pool.submit(wait_at, (gate, "slow"))
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    gate.open()
    assert pool.get_next_unordered() == "slow"


def test_taking_from_an_empty_pool_raises_stop_iteration():
    pool = pool_of(1)
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_get_next_after_a_later_result_was_taken_unordered_is_refused(gate):
    pool = pool_of(2)
    pool.submit(wait_at, (gate, 1))
    pool.submit(double, 1)
    pool.get_next_unordered()
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()


@pytest.mark.parametrize("take", [ActorPool.get_next, ActorPool.get_next_unordered])
def test_a_timeout_leaves_the_call_to_be_taken_later(gate, take):
    pool = pool_of(1)
    pool.submit(wait_at, (gate, 1))
    with pytest.raises(TimeoutError):
        take(pool, timeout=0.05)
    gate.open()
    assert take(pool) == 1


@pytest.mark.parametrize("take", [ActorPool.get_next, ActorPool.get_next_unordered])
def test_a_timed_out_call_can_be_dropped(gate, take):
    pool = pool_of(2)
    pool.submit(wait_at, (gate, 1))
    with pytest.raises(TimeoutError, match="ignored"):
        take(pool, timeout=0.05, ignore_if_timedout=True)
    assert not pool.has_next()
    assert pool.has_free()


@pytest.mark.parametrize("take", [ActorPool.get_next, ActorPool.get_next_unordered])
def test_an_error_is_raised_once_and_its_actor_goes_on(take):
    pool = pool_of(1)
    pool.submit(fail, "no")
    pool.submit(double, 4)
    with pytest.raises(ValueError, match="no"):
        take(pool)
    assert take(pool) == 8


def test_the_iteration_goes_on_after_an_error():
    results = pool_of(1).map(lambda actor, x: actor.double.remote(x) if x else actor.fail.remote("no"), [0, 1])
    with pytest.raises(ValueError, match="no"):
        next(results)
    assert list(results) == [2]


def test_an_actor_is_busy_until_its_result_is_taken():
    pool = pool_of(1)
    pool.submit(double, 1)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    pool.get_next()
    assert pool.has_free()


def test_an_idle_actor_can_be_taken_out_and_put_back():
    pool = pool_of(1)
    actor = pool.pop_idle()
    assert pool.pop_idle() is None
    pool.submit(double, 1)
    pool.push(actor)
    assert pool.get_next() == 2


def test_an_actor_cannot_be_in_the_pool_twice():
    actor = Worker.remote()
    pool = ActorPool([actor])
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)
    pool.submit(double, 1)
    with pytest.raises(ValueError, match="already"):
        pool.push(actor)


def test_map_drops_what_was_submitted_before():
    pool = pool_of(1)
    pool.submit(fail, "dropped")
    pool.submit(double, 1)
    assert list(pool.map(double, [5, 6])) == [10, 12]


def test_a_call_with_several_results_gives_them_as_a_list():
    pool = pool_of(2)
    results = pool.map(lambda actor, x: actor.pair.options(num_returns=2).remote(x), [1, 2])
    assert list(results) == [[1, -1], [2, -2]]
    assert list(pool.map_unordered(lambda actor, x: actor.pair.options(num_returns=2).remote(x), [1])) == [[1, -1]]


def test_a_submission_that_raises_leaves_its_actor_idle():
    pool = pool_of(1)
    with pytest.raises(TypeError):
        pool.submit(lambda actor, x: actor.double.remote(), 1)
    assert pool.has_free()


def test_what_a_dead_actor_is_given_fails():
    actor = Worker.remote()
    pool = ActorPool([actor])
    klieg.kill(actor)
    pool.submit(double, 1)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        pool.get_next()


def test_an_async_actor_can_use_a_pool():
    @klieg.remote
    class Boss:
        async def work(self, workers):
            return [x async for x in ActorPool(workers).map(double, range(4))]

    assert klieg.get(Boss.remote().work.remote([Worker.remote(), Worker.remote()])) == [0, 2, 4, 6]
