"""Tasks that are coroutines: `@remote(max_concurrency=N)` has N of them at a time share one loop."""

import asyncio
import threading

import pytest

import klieg


@klieg.remote(max_concurrency=3)
async def meet(count, here=[]):  # noqa: B006  # the loop that the calls share has one list
    """Wait for so many calls; the thread and the most that were there at once."""
    here.append(None)
    while len(here) < count:
        await asyncio.sleep(0.001)
    return threading.get_ident()


def test_calls_share_one_loop():
    refs = [meet.remote(3) for _ in range(3)]
    assert len(set(klieg.get(refs, timeout=30))) == 1


def test_no_more_calls_run_at_a_time_than_the_limit_says():
    @klieg.remote(max_concurrency=3)
    async def run(running=[]):  # noqa: B006
        running.append(None)
        most = len(running)
        await asyncio.sleep(0.001)
        running.pop()
        return most

    assert max(klieg.get([run.remote() for _ in range(30)])) <= 3


def test_a_call_that_waits_for_resources_runs_when_they_are_free(gate):
    @klieg.remote(num_cpus=4)
    def hold_all(gate):
        gate.wait()

    @klieg.remote(max_concurrency=2)
    async def f(x):
        return x

    holding = hold_all.remote(gate)
    refs = [f.remote(x) for x in range(5)]
    assert klieg.wait(refs, num_returns=5, timeout=0.1)[0] == []
    gate.open()
    assert klieg.get([holding, *refs]) == [None, 0, 1, 2, 3, 4]


def test_a_call_that_waits_for_resources_can_be_cancelled(gate):
    @klieg.remote(num_cpus=4)
    def hold_all(gate):
        gate.wait()

    @klieg.remote(max_concurrency=2)
    async def f():
        return "ran"

    holding = hold_all.remote(gate)
    cancelled, kept = f.remote(), f.remote()
    klieg.cancel(cancelled)
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(cancelled)
    gate.open()
    assert klieg.get([holding, kept]) == [None, "ran"]


def test_a_running_call_is_cancelled_at_its_await(journal):
    @klieg.remote(max_concurrency=2)
    async def f(journal):
        journal.note("started")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            journal.note("cancelled")
            raise

    ref = f.remote(journal)
    assert journal.next() == "started"
    klieg.cancel(ref)
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(ref)
    assert journal.next() == "cancelled"


def test_all_resources_are_free_again_afterwards():
    assert klieg.get([meet.options(max_concurrency=2).remote(1) for _ in range(10)])

    @klieg.remote(num_cpus=4)
    def needs_all():
        return "ran"

    assert klieg.get(needs_all.remote(), timeout=30) == "ran"


def test_an_error_comes_home():
    @klieg.remote(max_concurrency=2)
    async def f():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        klieg.get(f.remote())


def test_a_blocking_get_is_refused_and_an_await_is_not():
    @klieg.remote
    def one():
        return 1

    @klieg.remote(max_concurrency=2)
    async def wrong():
        return klieg.get(one.remote())

    @klieg.remote(max_concurrency=2)
    async def right():
        return await one.remote()

    with pytest.raises(klieg.exceptions.BlockingGetError, match="await"):
        klieg.get(wrong.remote())
    assert klieg.get(right.remote()) == 1


@pytest.mark.not_on_ray("an autoscaler may still bring the resource: Ray waits for it, and says so in its log")
def test_a_call_that_asks_for_more_than_there_is_fails():
    @klieg.remote(max_concurrency=2, num_cpus=1000)
    async def f():
        return "ran"

    with pytest.raises(klieg.exceptions.TaskUnschedulableError, match="1000"):
        klieg.get(f.remote())
