"""Refs as asyncio futures: awaited by any loop, any number of times, in all asyncio's patterns."""

import asyncio
import threading

import pytest

import klieg


@klieg.remote
def echo(x):
    return x


@klieg.remote
def fail(message="no"):
    raise ValueError(message)


@klieg.remote
def wait_at(gate, value=None):
    gate.wait()
    return value


def test_a_ref_can_be_awaited():
    async def main():
        return await echo.remote(1)

    assert asyncio.run(main()) == 1


def test_a_ref_that_is_ready_can_be_awaited():
    async def main():
        ref = echo.remote(1)
        klieg.wait([ref])
        return await ref

    assert asyncio.run(main()) == 1


def test_a_put_value_can_be_awaited():
    async def main():
        return await klieg.put([1, 2])

    assert asyncio.run(main()) == [1, 2]


def test_a_ref_can_be_awaited_many_times():
    async def main():
        ref = echo.remote([1])
        return [await ref for _ in range(3)]

    assert asyncio.run(main()) == [[1]] * 3


def test_each_await_gives_a_fresh_copy():
    async def main():
        ref = echo.remote([1])
        (await ref).append(2)
        return await ref

    assert asyncio.run(main()) == [1]


def test_a_ref_can_be_awaited_by_many_coroutines_at_once(gate):
    async def main():
        ref = wait_at.remote(gate, 5)

        async def read():
            return await ref

        tasks = [asyncio.create_task(read()) for _ in range(5)]
        await asyncio.sleep(0)
        gate.open()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [5] * 5


def test_a_ref_can_be_awaited_in_two_loops_in_a_row():
    ref = echo.remote(1)

    async def main():
        return await ref

    assert [asyncio.run(main()), asyncio.run(main())] == [1, 1]


def test_a_ref_can_be_awaited_in_two_loops_at_once(gate):
    ref = wait_at.remote(gate, 7)
    waiting = threading.Barrier(3)
    found = []

    async def main():
        asyncio.get_running_loop().call_later(0, waiting.wait)
        found.append(await ref)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    waiting.wait(10)
    gate.open()
    for thread in threads:
        thread.join(10)
    assert found == [7, 7]


def test_an_error_is_raised_at_the_await_each_time():
    async def main():
        ref = fail.remote()
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                await ref

    asyncio.run(main())


def test_wait_takes_refs_and_gives_them_back():
    async def main():
        ref = echo.remote(1)
        done, pending = await asyncio.wait([ref])
        return done == {ref} and pending == set() and ref.result() == 1

    assert asyncio.run(main())


@pytest.mark.parametrize("return_when", [asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED])
def test_wait_knows_every_return_when(gate, return_when):
    async def main():
        failing, held = fail.remote(), wait_at.remote(gate)
        if return_when == asyncio.ALL_COMPLETED:
            gate.open()
        done, pending = await asyncio.wait([failing, held], return_when=return_when)
        gate.open()
        return [done, pending] == (
            [{failing, held}, set()] if return_when == asyncio.ALL_COMPLETED else [{failing}, {held}]
        )

    assert asyncio.run(main())


def test_a_value_does_not_end_a_wait_for_the_first_exception(gate):
    async def main():
        ready, held = echo.remote(1), wait_at.remote(gate)
        await ready
        done, pending = await asyncio.wait([ready, held], return_when=asyncio.FIRST_EXCEPTION, timeout=0.02)
        gate.open()
        return (done, pending) == ({ready}, {held})

    assert asyncio.run(main())


def test_wait_can_time_out(gate):
    async def main():
        ref = wait_at.remote(gate, 1)
        done, pending = await asyncio.wait([ref], timeout=0.02)
        gate.open()
        return (done, pending) == (set(), {ref}) and await ref == 1

    assert asyncio.run(main())


def test_wait_takes_refs_and_tasks_together():
    async def main():
        ref = echo.remote(1)
        task = asyncio.create_task(asyncio.sleep(0, 2))
        done, _ = await asyncio.wait([ref, task])
        return done == {ref, task} and sorted(future.result() for future in done) == [1, 2]

    assert asyncio.run(main())


def test_gather_keeps_the_order():
    async def main():
        return await asyncio.gather(*[echo.remote(i) for i in range(100)])

    assert asyncio.run(main()) == list(range(100))


def test_gather_raises_the_first_error():
    async def main():
        await asyncio.gather(echo.remote(1), fail.remote())

    with pytest.raises(ValueError, match="no"):
        asyncio.run(main())


def test_gather_can_return_errors():
    async def main():
        return await asyncio.gather(echo.remote(1), fail.remote(), return_exceptions=True)

    value, error = asyncio.run(main())
    assert value == 1
    assert isinstance(error, ValueError)


def test_wait_for_gives_the_value():
    async def main():
        return await asyncio.wait_for(echo.remote(1), 10)

    assert asyncio.run(main()) == 1


def test_wait_for_times_out_and_the_call_goes_on(gate):
    async def main():
        ref = wait_at.remote(gate, "done")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref, 0.02)
        gate.open()
        return await ref

    assert asyncio.run(main()) == "done"


def test_a_timeout_block_ends_the_wait_only(gate):
    async def main():
        ref = wait_at.remote(gate, "done")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ref
        gate.open()
        return await ref

    assert asyncio.run(main()) == "done"


def test_cancelling_the_awaiting_task_ends_the_wait_only(gate):
    async def main():
        ref = wait_at.remote(gate, "done")

        async def read():
            return await ref

        first, second = asyncio.create_task(read()), asyncio.create_task(read())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open()
        return await second, await ref

    assert asyncio.run(main()) == ("done", "done")


def test_as_completed_yields_as_results_come(gate):
    async def main():
        refs = [wait_at.remote(gate, "late"), echo.remote("early")]
        found = []
        for future in asyncio.as_completed(refs):
            found.append(await future)
            gate.open()
        return found

    assert asyncio.run(main()) == ["early", "late"]


def test_shield_protects_nothing_that_needs_it_and_works(gate):
    async def main():
        ref = wait_at.remote(gate, 1)
        shielded = asyncio.shield(ref)
        shielded.cancel()
        gate.open()
        return await asyncio.shield(ref)

    assert asyncio.run(main()) == 1


def test_a_task_group_takes_refs_through_a_coroutine():
    async def read(ref):
        return await ref

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(echo.remote(i))) for i in range(3)]
        return [task.result() for task in tasks]

    assert asyncio.run(main()) == [0, 1, 2]


def test_ensure_future_makes_a_future():
    async def main():
        future = asyncio.ensure_future(echo.remote(1))
        return asyncio.isfuture(future), await future

    assert asyncio.run(main()) == (True, 1)


def test_run_until_complete_takes_a_ref():
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        assert loop.run_until_complete(echo.remote(1)) == 1


def test_create_task_and_run_want_coroutines():
    async def main():
        with pytest.raises(TypeError):
            await asyncio.create_task(echo.remote(1))

    asyncio.run(main())
    with pytest.raises((ValueError, TypeError)):
        asyncio.run(echo.remote(1))


def test_as_future_gives_an_asyncio_future():
    async def main():
        future = echo.remote(1).as_future()
        return isinstance(future, asyncio.Future), await future

    assert asyncio.run(main()) == (True, 1)


def test_as_future_needs_a_running_loop():
    with pytest.raises(RuntimeError, match="loop"):
        echo.remote(1).as_future()


def test_cancelling_the_asyncio_future_leaves_the_call_alone(gate):
    async def main():
        ref = wait_at.remote(gate, 1)
        future = ref.as_future()
        future.cancel()
        await asyncio.wait([future])
        gate.open()
        return future.cancelled(), await ref

    assert asyncio.run(main()) == (True, 1)


def test_wrap_future_takes_what_the_ref_gives():
    async def main():
        future = asyncio.wrap_future(echo.remote(1).future())
        return isinstance(future, asyncio.Future), await future

    assert asyncio.run(main()) == (True, 1)


def test_a_ref_is_no_asyncio_future_itself():
    assert not asyncio.isfuture(echo.remote(1))


def test_a_loop_that_closes_before_the_result_hears_nothing(gate):
    async def main():
        ref = wait_at.remote(gate, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref, 0.02)
        return ref

    ref = asyncio.run(main())
    gate.open()
    assert klieg.get(ref) == 1


def test_a_callback_of_a_closed_loop_is_dropped(gate):
    async def main():
        ref = wait_at.remote(gate, 1)
        ref.add_done_callback(lambda ref: None)
        return ref

    ref = asyncio.run(main())
    gate.open()
    assert klieg.get(ref) == 1


def test_done_result_and_exception_tell_the_state(gate):
    good, bad, held = echo.remote(1), fail.remote(), wait_at.remote(gate)
    klieg.wait([good, bad], num_returns=2)
    assert (good.done(), good.result(), good.exception()) == (True, 1, None)
    assert isinstance(bad.exception(), ValueError)
    with pytest.raises(ValueError, match="no"):
        bad.result()
    assert (held.done(), held.cancelled()) == (False, False)
    with pytest.raises(asyncio.InvalidStateError):
        held.result()
    with pytest.raises(asyncio.InvalidStateError):
        held.exception()


def test_a_done_callback_gets_the_ref_on_the_loop():
    async def main():
        ref = echo.remote(1)
        called = asyncio.get_running_loop().create_future()
        ref.add_done_callback(called.set_result)
        return await called is ref

    assert asyncio.run(main())


def test_a_done_callback_can_be_taken_back(gate):
    async def main():
        ref = wait_at.remote(gate)
        called = []
        ref.add_done_callback(called.append)
        removed = ref.remove_done_callback(called.append)
        gate.open()
        await ref
        await asyncio.sleep(0)
        return removed, called

    assert asyncio.run(main()) == (1, [])


def test_a_loop_goes_on_while_a_ref_is_awaited(gate):
    async def main():
        ref = wait_at.remote(gate, "done")
        waiter = asyncio.ensure_future(ref)
        steps = 0
        while steps < 100:
            await asyncio.sleep(0)
            steps += 1
        gate.open()
        return steps, await waiter

    assert asyncio.run(main()) == (100, "done")


def test_a_blocking_get_in_a_drivers_coroutine_is_allowed():
    async def main():
        return klieg.get(echo.remote(1))

    assert asyncio.run(main()) == 1


def test_a_thousand_awaits_at_once():
    @klieg.remote
    class Actor:
        async def echo(self, x):
            await asyncio.sleep(0)
            return x

    async def main():
        actor = Actor.remote()
        return await asyncio.gather(*[actor.echo.remote(i) for i in range(1000)])

    assert asyncio.run(main()) == list(range(1000))


def test_a_cancelled_error_raised_by_user_code_never_cancels_the_awaiter():
    @klieg.remote
    def raise_cancelled():
        raise asyncio.CancelledError("mine")

    async def main():
        with pytest.raises(klieg.exceptions.KliegError) as caught:
            await raise_cancelled.remote()
        return isinstance(caught.value, asyncio.CancelledError), asyncio.current_task().cancelling()

    assert asyncio.run(main()) == (False, 0)
