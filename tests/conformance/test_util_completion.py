"""`as_completed`, `map_unordered` and `wait_async`: results as they come, for threads and for coroutines."""

import asyncio
import itertools
import threading

import pytest

import klieg
from klieg.exceptions import BlockingGetError, GetTimeoutError
from klieg.util import as_completed, map_unordered, wait_async


@klieg.remote
def echo(x):
    return x


@klieg.remote
def fail(message):
    raise ValueError(message)


@klieg.remote
def wait_at(gate, value=None):
    gate.wait()
    return value


@klieg.remote
class Turns:
    """Methods that end in the order in which a test wants them to."""

    def __init__(self):
        self.turns = {}

    async def wait(self, name):
        await self.turns.setdefault(name, asyncio.Event()).wait()
        return name

    def allow(self, name):
        self.turns.setdefault(name, asyncio.Event()).set()


async def take(iterator):
    return [value async for value in iterator]


def test_as_completed_gives_all_values():
    assert sorted(as_completed([echo.remote(i) for i in range(50)])) == list(range(50))


def test_as_completed_gives_values_in_the_order_in_which_they_come():
    turns = Turns.remote()
    values = as_completed([turns.wait.remote(name) for name in "abc"])
    for name in "bca":
        turns.allow.remote(name)
        assert next(values) == name
    assert next(values, None) is None


def test_as_completed_holds_no_value_back_for_a_chunk(gate):
    values = as_completed([wait_at.remote(gate), echo.remote(1)], chunk_size=2)
    assert next(values) == 1


def test_async_for_gives_values_in_the_order_in_which_they_come():
    turns = Turns.remote()

    async def main():
        values = as_completed([turns.wait.remote(name) for name in "abc"])
        for name in "bca":
            turns.allow.remote(name)
            assert await anext(values) == name
        return await take(values)

    assert asyncio.run(main()) == []


def test_as_completed_can_give_refs():
    refs = [echo.remote(1), echo.remote(2)]
    assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)


def test_the_refs_that_as_completed_gives_are_ready():
    assert [ref.result() for ref in as_completed([echo.remote(1)], yield_obj_refs=True)] == [1]


def test_an_error_is_raised_in_its_turn_and_the_iteration_can_go_on():
    good, bad = klieg.put(1), fail.remote("no")
    klieg.wait([bad])
    values = as_completed([bad, good])
    with pytest.raises(ValueError, match="no"):
        next(values)
    assert list(values) == [1]


def test_as_completed_takes_any_iterable_and_none_at_all():
    assert list(as_completed(klieg.put(i) for i in range(3))) == [0, 1, 2]
    assert list(as_completed([])) == []
    assert asyncio.run(take(as_completed([]))) == []


def test_a_ref_that_is_given_twice_comes_twice():
    ref = echo.remote(1)
    assert list(as_completed([ref, ref])) == [1, 1]


def test_as_completed_refuses_what_is_no_ref():
    with pytest.raises(TypeError, match="int"):
        as_completed([1])
    with pytest.raises(ValueError, match="chunk_size"):
        as_completed([], chunk_size=0)
    with pytest.raises(ValueError, match="timeout"):
        as_completed([], timeout=-1)


def test_as_completed_gives_up_at_its_timeout(gate):
    values = as_completed([klieg.put(1), wait_at.remote(gate)], timeout=0.2)
    assert next(values) == 1
    with pytest.raises(GetTimeoutError):
        next(values)


def test_async_for_gives_up_at_its_timeout(gate):
    async def main():
        return await take(as_completed([wait_at.remote(gate)], timeout=0.2))

    with pytest.raises(GetTimeoutError):
        asyncio.run(main())


def test_several_coroutines_can_share_one_iterator():
    async def main():
        values = as_completed([echo.remote(i) for i in range(20)])
        shares = await asyncio.gather(*(take(values) for _ in range(5)))
        return sorted(itertools.chain(*shares))

    assert asyncio.run(main()) == list(range(20))


def test_several_threads_can_share_one_iterator():
    values, taken = as_completed([echo.remote(i) for i in range(20)]), []
    threads = [threading.Thread(target=lambda: taken.extend(values)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(20))


def test_a_cancelled_anext_loses_no_value(gate):
    async def main():
        values = as_completed([wait_at.remote(gate, 1)])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(values), 0.05)
        gate.open()
        return await anext(values)

    assert asyncio.run(main()) == 1


def test_a_for_loop_on_an_async_actors_loop_is_refused_and_async_for_is_not():
    @klieg.remote
    class Asker:
        async def block(self, refs):
            return list(as_completed(refs))

        async def ask(self, refs):
            return await take(as_completed(refs))

    asker, turns = Asker.remote(), Turns.remote()
    with pytest.raises(BlockingGetError):
        klieg.get(asker.block.remote([turns.wait.remote("never")]))
    assert klieg.get(asker.ask.remote([echo.remote(1)])) == [1]


def test_refs_of_another_process_can_be_taken_as_they_come():
    @klieg.remote
    def total(refs):
        return sum(as_completed(refs))

    assert klieg.get(total.remote([echo.remote(i) for i in range(5)])) == 10


def test_map_unordered_gives_a_value_for_each_item():
    assert sorted(map_unordered(echo, range(30), backpressure_size=4)) == list(range(30))


def test_map_unordered_works_with_a_method_and_async_for():
    @klieg.remote
    class Adder:
        async def add(self, x):
            return x + 1

    adder = Adder.remote()
    assert sorted(asyncio.run(take(map_unordered(adder.add, range(30), backpressure_size=4)))) == list(range(1, 31))


def test_map_unordered_reads_no_more_items_than_the_backpressure_allows():
    read = []

    def items():
        for i in itertools.count():
            read.append(i)
            yield i

    values = map_unordered(echo, items(), backpressure_size=3)
    assert read == []
    next(values)
    assert read == [0, 1, 2]
    next(values)
    assert read == [0, 1, 2, 3]


def test_map_unordered_without_backpressure_reads_all_at_once():
    items = iter(range(200))
    next(map_unordered(echo, items, backpressure_size=None))
    assert list(items) == []


def test_map_unordered_can_give_refs():
    assert sorted(klieg.get(list(map_unordered(echo, [1, 2], yield_obj_refs=True)))) == [1, 2]


def test_an_error_of_the_items_leaves_the_calls_under_way_to_be_taken():
    def items():
        yield 1
        raise KeyError("broken")

    values = map_unordered(echo, items())
    with pytest.raises(KeyError):
        next(values)
    assert list(values) == [1]


def test_map_unordered_refuses_what_is_not_remote():
    with pytest.raises(TypeError, match="remote function"):
        map_unordered(lambda x: x, [1])
    with pytest.raises(ValueError, match="backpressure_size"):
        map_unordered(echo, [1], backpressure_size=0)
    with pytest.raises(TypeError, match="one value"):
        next(map_unordered(echo.options(num_returns=2), [1]))


def test_wait_async_splits_refs_as_wait_does(gate):
    async def main():
        slow, quick = wait_at.remote(gate), echo.remote(1)
        assert await wait_async([slow, quick]) == ([quick], [slow])
        assert await wait_async([slow, quick], num_returns=2, timeout=0.05) == ([quick], [slow])
        gate.open()
        assert await wait_async([slow, quick], num_returns=2) == ([slow, quick], [])

    asyncio.run(main())


def test_wait_async_gives_at_most_as_many_as_it_was_asked_for():
    async def main():
        refs = [klieg.put(i) for i in range(4)]
        return await wait_async(refs, num_returns=2), refs

    (ready, unready), refs = asyncio.run(main())
    assert (ready, unready) == (refs[:2], refs[2:])


def test_wait_async_lets_the_loop_go_on_in_an_async_actor(gate):
    @klieg.remote
    class Waiter:
        async def wait(self, refs):
            ready, _ = await wait_async(refs)
            return await ready[0]

        def ping(self):
            return "pong"

    waiter = Waiter.remote()
    waiting = waiter.wait.remote([wait_at.remote(gate, 7)])
    assert klieg.get(waiter.ping.remote()) == "pong"
    gate.open()
    assert klieg.get(waiting) == 7


def test_wait_async_makes_the_checks_of_wait():
    async def main():
        ref = klieg.put(1)
        assert await wait_async([]) == ([], [])
        with pytest.raises(ValueError, match="once"):
            await wait_async([ref, ref])
        with pytest.raises(ValueError, match="num_returns"):
            await wait_async([ref], num_returns=2)
        with pytest.raises(TypeError):
            await wait_async(ref)

    asyncio.run(main())


def test_a_cancelled_wait_async_leaves_nothing_behind_on_the_refs(gate):
    async def main():
        ref = wait_at.remote(gate, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait_async([ref]), 0.05)
        assert not ref._future._callbacks
        gate.open()
        return await ref

    assert asyncio.run(main()) == 1
