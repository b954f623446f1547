"""What goes wrong silently elsewhere is told: a held loop, a full limit without progress, a swallowed cancellation."""

import asyncio
import re
import threading
import time

import gates
import pytest

import klieg

SOON = 0.05
"""Seconds, instead of one and ten, after which the runtimes of these tests warn."""


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks, warnings):
    """A runtime whose watchdogs are quick to warn."""
    warnings.init(engine=engine, num_cpus=4, loop_warning=SOON, stall_warning=SOON)
    yield
    klieg.shutdown()


@klieg.remote
class Async:
    def hold_sync(self, gate):
        gate.wait()

    async def hold_async(self, gate):
        gate.wait()

    async def hold_in_task(self, gate):
        async def child():
            gate.wait()

        await asyncio.create_task(child())

    async def hold_in_callback(self, gate):
        asyncio.get_running_loop().call_soon(gate.wait)
        await asyncio.sleep(0)

    async def wait(self):
        await asyncio.Event().wait()

    async def ping(self):
        return True


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
@pytest.mark.parametrize("method", ["hold_sync", "hold_async"])
def test_a_method_that_holds_the_loop_is_named_with_its_stack(gate, warnings, method):
    actor = Async.remote()
    ref = getattr(actor, method).remote(gate)
    text = warnings.wait_for("has held the event loop of Async")
    assert f"Async.{method}() has held" in text
    assert re.search(rf"in {method}\n +gate\.wait\(\)", text)
    assert "to_thread" in text
    gate.open()
    klieg.get(ref)


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_a_method_that_holds_the_loop_again_is_not_named_again(gate, warnings, tmp_path):
    actor = Async.remote()
    held = actor.hold_sync.remote(gate)
    warnings.wait_for("Async.hold_sync() has held")
    gate.open()
    klieg.get(held)
    other = gates.Gate(tmp_path / "other")
    refs = [actor.hold_sync.remote(other), actor.hold_async.remote(other)]
    time.sleep(3 * SOON)
    other.open()
    klieg.get(refs)
    assert warnings.text().count("Async.hold_sync() has held") == 1


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_a_task_of_a_call_that_holds_the_loop_is_named(gate, warnings):
    actor = Async.remote()
    ref = actor.hold_in_task.remote(gate)
    text = warnings.wait_for("has held the event loop of Async")
    assert "child() " in text.replace(",", "")
    gate.open()
    klieg.get(ref)


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_a_callback_that_holds_the_loop_is_named(gate, warnings):
    actor = Async.remote()
    ref = actor.hold_in_callback.remote(gate)
    assert "A callback, " in warnings.wait_for("has held the event loop of Async")
    gate.open()
    klieg.get(ref)


def test_a_loop_with_much_to_do_in_small_steps_is_not_reported(warnings):
    @klieg.remote
    class Busy:
        async def work(self):
            end = time.monotonic() + 4 * SOON
            while time.monotonic() < end:
                await asyncio.sleep(0)

    klieg.get([Busy.remote().work.remote() for _ in range(3)])
    assert warnings.text() == ""


def test_a_constructor_may_take_its_time(warnings):
    @klieg.remote
    class Slow:
        def __init__(self):
            time.sleep(4 * SOON)

        async def ping(self):
            return True

    assert klieg.get(Slow.remote().ping.remote())
    assert warnings.text() == ""


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_a_full_limit_without_progress_is_reported_with_who_holds_it(warnings):
    @klieg.remote(max_concurrency=2)
    class Stuck:
        def __init__(self):
            self.door = asyncio.Event()

        async def outer(self):
            await self.inner()

        async def inner(self):
            await self.door.wait()

        async def open(self):
            self.door.set()

    stuck = Stuck.remote()
    refs = [stuck.outer.remote(), stuck.outer.remote(), stuck.open.remote()]
    text = warnings.wait_for("the limit of 2 of the concurrency group 'default' has been reached")
    assert "1 wait" in text
    assert text.count("Stuck.outer #") == 2
    assert "await self.door.wait()" in text
    klieg.kill(stuck)
    klieg.wait(refs, num_returns=3, timeout=10)


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_a_full_group_of_threads_is_reported_with_its_stacks(gate, warnings):
    @klieg.remote(max_concurrency=2)
    class Pool:
        def work(self, gate):
            gate.wait()

    pool = Pool.remote()
    refs = [pool.work.remote(gate) for _ in range(5)]
    text = warnings.wait_for("the limit of 2 of the concurrency group 'default' has been reached")
    assert "3 wait" in text
    assert "in work\n" in text
    gate.open()
    klieg.get(refs)
    assert warnings.text().count("has been reached") == 1


def test_a_full_limit_that_makes_progress_is_not_reported(warnings):
    @klieg.remote(max_concurrency=2)
    class Pool:
        def work(self):
            time.sleep(SOON / 10)

    pool = Pool.remote()
    klieg.get([pool.work.remote() for _ in range(60)])
    assert "has been reached" not in warnings.text()


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_a_cancelled_call_that_goes_on_is_reported(warnings, journal):
    @klieg.remote
    class Stubborn:
        async def work(self):
            journal.note("in")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()

    stubborn = Stubborn.remote()
    ref = stubborn.work.remote()
    journal.next()
    klieg.cancel(ref)
    text = warnings.wait_for("after it was cancelled")
    assert "Stubborn.work() is still running" in text
    assert "in work\n" in text
    klieg.kill(stubborn)


def test_a_cancelled_call_that_ends_is_not_reported(warnings, journal):
    @klieg.remote
    class Obedient:
        async def work(self):
            journal.note("in")
            await asyncio.Event().wait()

        async def stay(self):
            await asyncio.sleep(6 * SOON)

    obedient = Obedient.remote()
    ref = obedient.work.remote()
    journal.next()
    klieg.cancel(ref)
    klieg.get(obedient.stay.remote())
    assert warnings.text() == ""


def test_warnings_can_be_turned_off(engine, gate, warnings):
    klieg.shutdown()
    warnings.init(engine=engine, loop_warning=0, stall_warning=0)
    actor = Async.options(max_concurrency=1).remote()
    refs = [actor.hold_sync.remote(gate), actor.ping.remote()]
    timer = threading.Timer(4 * SOON, gate.open)
    timer.start()
    klieg.get(refs)
    timer.join()
    assert warnings.text() == ""


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError)])
def test_a_threshold_that_is_no_number_of_seconds_is_refused(engine, wrong, error):
    klieg.shutdown()
    for name in ("loop_warning", "stall_warning"):
        with pytest.raises(error, match=name):
            klieg.init(engine=engine, **{name: wrong})


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
def test_the_environment_sets_the_thresholds(engine, gate, warnings, monkeypatch):
    klieg.shutdown()
    monkeypatch.setenv("KLIEG_LOOP_WARNING", "0.05")
    warnings.init(engine=engine)
    ref = Async.remote().hold_sync.remote(gate)
    warnings.wait_for("Async.hold_sync() has held")
    gate.open()
    klieg.get(ref)
