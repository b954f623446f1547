"""`klieg.util.multiprocessing.Pool` against the contract of `multiprocessing.Pool`."""

import asyncio
import gc
import itertools
import multiprocessing
import os
import threading
import warnings
import weakref

import gates
import pytest

import klieg
from klieg.exceptions import ActorDiedError, BlockingGetError, RuntimeShutdownError
from klieg.util.multiprocessing import Pool, TimeoutError


def square(x):
    return x * x


def fail(x):
    raise ValueError(x)


def add(x, y=0):
    return x + y


def pass_gate(gate, value=None):
    gate.wait()
    return value


@pytest.fixture
def pool():
    pool = Pool(2)
    yield pool
    pool.terminate()
    pool.join()


def test_apply_returns_the_result(pool):
    assert pool.apply(square, (5,)) == 25
    assert pool.apply(add, (1,), {"y": 2}) == 3


def test_lambdas_closures_and_methods_work(pool):
    offset = 10
    assert pool.map(lambda x: x + offset, range(3)) == [10, 11, 12]
    assert pool.map("a{}".format, range(2)) == ["a0", "a1"]


def test_map_and_starmap_keep_the_order(pool):
    assert pool.map(square, range(100)) == [x * x for x in range(100)]
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(add, zip(range(5), range(5), strict=True)).get() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_any_chunksize_gives_the_same(pool, chunksize):
    assert pool.map(square, iter(range(50)), chunksize) == [x * x for x in range(50)]
    assert list(pool.imap(square, range(50), chunksize or 1)) == [x * x for x in range(50)]


def test_an_empty_map_is_ready_at_once(pool):
    called = []
    result = pool.map_async(square, [], callback=called.append)
    assert result.get(10) == []
    assert called == [[]]
    assert list(pool.imap(square, [])) == []


def test_imap_gives_results_in_order_and_imap_unordered_as_they_come(pool, gate):
    work = [(gate, "slow"), (None, "quick")]
    run = lambda item: (item[0] and item[0].wait(), item[1])[1]  # noqa: E731  # a function of one argument
    unordered = pool.imap_unordered(run, work)
    assert next(unordered) == "quick"
    ordered = pool.imap(square, range(3))
    gate.open()
    assert next(unordered) == "slow"
    assert list(ordered) == [0, 1, 4]


def test_imap_reads_an_endless_iterable_no_faster_than_workers_become_idle(pool, gate):
    read = []

    def items():
        for i in itertools.count():
            read.append(i)
            yield gate if i else None

    def run(gate):
        if gate is not None:
            gate.wait()

    results = pool.imap(run, items())
    next(results)
    assert gates.soon(lambda: len(read) == 3)  # one done, and one in the hands of each worker


def test_next_waits_no_longer_than_its_timeout(pool, gate):
    results = pool.imap(pass_gate, [gate])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.05)
    gate.open()
    assert results.next() is None
    with pytest.raises(StopIteration):
        results.next()


def test_bad_arguments_are_refused(pool):
    for bad in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(bad)
    for bad in (0, -1, 0.5, "2"):
        with pytest.raises(ValueError, match="maxtasksperchild"):
            Pool(1, maxtasksperchild=bad)
    with pytest.raises(TypeError, match="initializer"):
        Pool(1, initializer=1)
    for method in (pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match="Chunksize"):
            method(square, [1], 0)


def test_an_exception_comes_as_its_own_type_with_the_remote_traceback(pool):
    with pytest.raises(ValueError, match="no") as caught:
        pool.apply(fail, ("no",))
    assert type(caught.value) is ValueError
    assert "in fail" in str(caught.value.__cause__)


def test_a_map_that_fails_tries_everything_and_raises_the_first_error(pool, journal):
    def run(x):
        journal.note(x)
        if x == 0:
            raise ValueError(x)

    with pytest.raises(ValueError, match="0"):
        pool.map(run, range(4), 1)
    assert sorted(journal.take(4)) == ["0", "1", "2", "3"]


def test_an_imap_goes_on_after_an_error(pool):
    results = pool.imap(lambda x: 1 // x, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [1]


def test_an_error_of_the_iterable_comes_in_its_turn(pool):
    def items():
        yield 1
        yield 2
        raise KeyError("broken")

    results = pool.imap(square, items())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == []
    with pytest.raises(KeyError):
        pool.map(square, items())


def test_what_cannot_be_pickled_fails_its_call_and_no_other(pool):
    with pytest.raises(TypeError, match="pickle"):
        pool.apply(square, (threading.Lock(),))
    with pytest.raises(TypeError, match="pickle"):
        pool.apply(threading.Lock)
    assert pool.map(square, [1, 2]) == [1, 4]


def test_an_async_result_follows_its_call(pool, gate):
    result = pool.apply_async(pass_gate, (gate, 7))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)
    result.wait(0.05)
    gate.open()
    assert result.get() == 7
    assert (result.ready(), result.successful()) == (True, True)
    failed = pool.apply_async(fail, (1,))
    failed.wait()
    assert not failed.successful()


def test_callbacks_have_run_when_the_result_is_there(pool):
    called, failed = [], []
    assert pool.apply_async(square, (3,), callback=called.append).get() == 9
    assert pool.map_async(square, [1, 2], callback=called.append).get() == [1, 4]
    with pytest.raises(ValueError):
        pool.apply_async(fail, (1,), callback=called.append, error_callback=failed.append).get()
    assert called == [9, [1, 4]]
    assert [type(error) for error in failed] == [ValueError]


def test_results_can_be_awaited(pool):
    async def main():
        return await pool.map_async(square, range(3)), [x async for x in pool.imap(square, range(3))]

    assert asyncio.run(main()) == ([0, 1, 4], [0, 1, 4])
    with pytest.raises(ValueError):
        asyncio.run(asyncio.wait_for(_awaited(pool.apply_async(fail, (1,))), 10))


async def _awaited(result):
    return await result


def test_the_initializer_runs_once_in_each_worker(journal):
    def initialize(name, value):
        os.environ[name] = value
        journal.note("initialized")

    with Pool(2, initialize, ("KLIEG_TEST_INITIALIZED", "yes")) as pool:
        assert pool.map(lambda _: os.environ["KLIEG_TEST_INITIALIZED"], range(8), 1) == ["yes"] * 8
        assert journal.take(2) == ["initialized"] * 2
    assert journal.unread() == []
    os.environ.pop("KLIEG_TEST_INITIALIZED", None)  # where the workers are threads of this process


def test_an_initializer_that_fails_fails_the_work_and_does_not_hang():
    def initialize():
        raise RuntimeError("bad start")

    with Pool(2, initialize) as pool, pytest.raises(ActorDiedError, match="bad start"):
        pool.map(square, range(4))


@pytest.mark.needs_process("workers are told apart by their processes")
def test_there_are_as_many_workers_as_asked_for(gate):
    def run(_):
        gate.wait()
        return os.getpid()

    with Pool(3) as pool:
        results = pool.map_async(run, range(3), 1)
        gate.open()
        assert len(set(results.get())) == 3


@pytest.mark.needs_process("workers are told apart by their processes")
def test_a_worker_is_replaced_after_its_share_of_pieces():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(6)]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]
    assert len(set(pids)) == 3


@pytest.mark.needs_process("a worker is killed")
def test_a_worker_that_dies_fails_its_piece_and_is_replaced(pool):
    results = pool.map_async(lambda x: os._exit(7) if x == 1 else x, range(3), 1)
    with pytest.raises(ActorDiedError):
        results.get(timeout=20)
    assert pool.map(square, range(4), 1) == [0, 1, 4, 9]


def test_a_closed_pool_does_what_it_has_and_takes_no_more(gate):
    pool = Pool(1)
    results = [pool.apply_async(pass_gate, (gate, i)) for i in range(3)]
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for method in (pool.apply, pool.apply_async):
        with pytest.raises(ValueError, match="not running"):
            method(square, (1,))
    for method in (pool.map, pool.map_async, pool.starmap, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match="not running"):
            method(square, [1])
    gate.open()
    pool.join()
    assert [result.get(timeout=0) for result in results] == [0, 1, 2]


def test_join_waits_for_what_nobody_has_taken(journal):
    pool = Pool(2)
    pool.imap(journal.note, range(5))
    pool.close()
    pool.join()
    assert sorted(journal.unread()) == ["0", "1", "2", "3", "4"]


def test_a_terminated_pool_leaves_nobody_waiting(gate):
    pool = Pool(1)
    running, waiting = pool.apply_async(pass_gate, (gate,)), pool.map_async(square, [1, 2])
    results = pool.imap(square, [1, 2])
    pool.terminate()
    for result in (running, waiting):
        with pytest.raises(multiprocessing.ProcessError, match="terminated"):
            result.get(timeout=10)
    with pytest.raises(multiprocessing.ProcessError):
        next(results)
    assert list(results) == []
    pool.terminate()
    pool.join()


def test_leaving_the_context_terminates():
    with Pool(1) as pool:
        assert pool.apply(square, (2,)) == 4
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (2,))
    with pytest.raises(ValueError, match="not running"):
        pool.__enter__()


def test_a_pool_cannot_be_passed_on(pool):
    with pytest.raises(TypeError, match="cannot be passed between processes"):
        pool.apply(id, (pool,))


def test_a_pool_that_is_dropped_while_it_runs_warns_and_goes(pool):
    dropped = Pool(1)
    assert dropped.apply(square, (2,)) == 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del dropped
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]


def test_a_pool_lives_as_long_as_its_results_are_awaited(gate):
    pool = Pool(1)
    result = pool.apply_async(pass_gate, (gate, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del pool
        gc.collect()
        gate.open()
        assert result.get(timeout=10) == 5
        del result
        gc.collect()


def test_an_object_that_was_sent_is_not_kept(pool):
    class Thing:
        pass

    things = [Thing() for _ in range(3)]
    kept = [weakref.ref(thing) for thing in things]
    pool.map(id, things)
    del things
    assert gates.soon(lambda: gc.collect() is not None and not any(ref() for ref in kept))


def test_the_end_of_the_runtime_ends_everything(gate):
    pool = Pool(1)
    result = pool.apply_async(pass_gate, (gate,))
    klieg.shutdown()
    with pytest.raises(RuntimeShutdownError):
        result.get(timeout=10)
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (1,))
    pool.join()
    assert not klieg.is_initialized()


def test_many_threads_can_share_a_pool(pool):
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(pool.map(square, range(i, i + 5)))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [[x * x for x in range(i, i + 5)] for i in range(8)]


def test_a_task_can_use_a_pool():
    @klieg.remote
    def outer():
        with Pool(2) as pool:
            return pool.map(square, range(3))

    assert klieg.get(outer.remote()) == [0, 1, 4]


def test_an_async_actor_awaits_a_pools_results():
    @klieg.remote
    class Boss:
        async def block(self):
            with Pool(1) as pool:
                return pool.map(square, range(3))

        async def wait(self):
            with Pool(1) as pool:
                return await pool.map_async(square, range(3))

    boss = Boss.remote()
    with pytest.raises(BlockingGetError):
        klieg.get(boss.block.remote())
    assert klieg.get(boss.wait.remote()) == [0, 1, 4]


def test_rays_arguments_are_accepted():
    with Pool(1, ray_address="local", ray_remote_args={"num_cpus": 1}) as pool:
        assert pool.apply(square, (2,)) == 4
        assert klieg.available_resources()["CPU"] == 3
