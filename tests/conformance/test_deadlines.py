"""Deadlines: `.options(timeout=s)` ends a call that is not done in time."""

import asyncio
import time

import pytest

import klieg
from klieg.exceptions import KliegError


@klieg.remote
class Actor:
    """Notes what its calls go through."""

    def __init__(self, journal):
        self.journal = journal

    async def wait(self, word="in"):
        self.journal.note(word)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.journal.note("cancelled", word)
            raise

    async def echo(self, x):
        return x

    async def call(self, other):
        return await other.wait.remote("inner")


def started(actor):
    """The actor, once its constructor has returned: from then on a deadline measures the call alone."""
    klieg.get(actor.__ray_ready__.remote())
    return actor


def raises_timeout(ref):
    """Assert that the call fails by its deadline, which is also a TimeoutError."""
    with pytest.raises(KliegError) as caught:
        klieg.get(ref, timeout=10)
    assert isinstance(caught.value, TimeoutError), repr(caught.value)
    assert not isinstance(caught.value, klieg.exceptions.GetTimeoutError)


def test_a_call_that_is_done_in_time_is_not_touched(journal):
    actor = Actor.remote(journal)
    assert klieg.get(actor.echo.options(timeout=10).remote(1)) == 1


def test_a_running_async_call_is_cancelled_at_its_deadline(journal):
    actor = started(Actor.remote(journal))
    raises_timeout(actor.wait.options(timeout=0.05).remote())
    assert journal.take(2) == ["in", "cancelled in"]
    assert klieg.get(actor.echo.remote(1)) == 1


def test_a_queued_call_never_starts_after_its_deadline(journal):
    actor = Actor.options(max_concurrency=1).remote(journal)
    running = actor.wait.remote("running")
    assert journal.next() == "running"
    raises_timeout(actor.wait.options(timeout=0.05).remote("queued"))
    klieg.cancel(running)
    assert klieg.get(actor.echo.remote(1)) == 1
    assert journal.take(1) == ["cancelled running"]
    assert journal.unread() == []


def test_a_call_that_waits_for_its_argument_expires(journal, gate):
    @klieg.remote
    def wait_at(gate):
        gate.wait()

    actor = Actor.remote(journal)
    raises_timeout(actor.echo.options(timeout=0.05).remote(wait_at.remote(gate)))


def test_a_nested_call_inherits_what_is_left(journal):
    outer, inner = started(Actor.remote(journal)), started(Actor.remote(journal))
    raises_timeout(outer.call.options(timeout=0.2).remote(inner))
    assert journal.take(2) == ["inner", "cancelled inner"]


def test_the_deadline_counts_from_the_submission(journal):
    actor = Actor.remote(journal)
    started = time.monotonic()
    raises_timeout(actor.wait.options(timeout=0.2).remote())
    assert 0.2 <= time.monotonic() - started < 2


@pytest.mark.needs_process("a thread cannot be interrupted")
def test_a_task_asleep_is_interrupted_at_its_deadline():
    @klieg.remote
    def sleep():
        time.sleep(20)

    started = time.monotonic()
    raises_timeout(sleep.options(timeout=0.1).remote())
    assert time.monotonic() - started < 2


def test_a_sync_method_sees_the_flag_at_its_deadline(journal):
    @klieg.remote
    class Sync:
        def watch(self):
            while not klieg.get_runtime_context().is_canceled():
                time.sleep(0.001)
            journal.note("saw it")

    raises_timeout(started(Sync.remote()).watch.options(timeout=0.05).remote())
    assert journal.next() == "saw it"


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_a_queued_task_never_starts_after_its_deadline(engine, gate, journal):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1)

    @klieg.remote
    def run(word, gate):
        journal.note(word)
        gate.wait()

    running = run.remote("running", gate)
    assert journal.next() == "running"
    raises_timeout(run.options(timeout=0.05).remote("queued", gate))
    gate.open()
    klieg.get(running)
    assert journal.unread() == []


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_timeout_must_be_positive(wrong):
    with pytest.raises(ValueError, match="timeout"):
        klieg.remote(len).options(timeout=wrong)


def test_a_timeout_can_be_declared_on_the_method():
    @klieg.remote
    class Declared:
        @klieg.method(timeout=0.05)
        async def wait(self):
            await asyncio.Event().wait()

    raises_timeout(Declared.remote().wait.remote())
