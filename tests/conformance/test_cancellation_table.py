"""The table of cancellation: what `cancel` does to each kind of call in each state. docs/cancellation.md shows it."""

import asyncio
import re
import time
from pathlib import Path

import pytest

import klieg
from klieg.exceptions import ActorDiedError, KliegError, TaskCancelledError

PAGE = Path(__file__).parents[2] / "docs" / "cancellation.md"


@klieg.remote
class Async:
    def __init__(self, journal, gate=None):
        self.journal = journal
        if gate is not None:
            gate.wait()

    async def run(self, word, gate=None):
        self.journal.note(word)
        try:
            await asyncio.Event().wait()
        finally:
            self.journal.note("ended", word)

    async def quick(self, *ignored):
        return "done"

    async def stream(self, word):
        self.journal.note(word)
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.journal.note("ended", word)


@klieg.remote
class Sync:
    def __init__(self, journal, gate=None):
        self.journal = journal
        if gate is not None:
            gate.wait()

    def run(self, word, gate=None):
        self.journal.note(word)
        while not klieg.get_runtime_context().is_canceled():
            if gate is not None:
                gate.wait()
                break
            time.sleep(0.001)
        self.journal.note("ended", word)

    def quick(self, *ignored):
        return "done"

    def stream(self, word):
        self.journal.note(word)
        yield 1
        while not klieg.get_runtime_context().is_canceled():
            time.sleep(0.001)
        self.journal.note("ended", word)


@klieg.remote
def run(journal, word):
    journal.note(word)
    while not klieg.get_runtime_context().is_canceled():
        time.sleep(0.001)
    journal.note("ended", word)


@klieg.remote
def stream(journal, word):
    journal.note(word)
    yield 1
    while not klieg.get_runtime_context().is_canceled():
        time.sleep(0.001)


@klieg.remote
def wait_at(gate):
    gate.wait()


KINDS = {
    "async": lambda journal, **options: Async.options(**options).remote(journal),
    "plain": lambda journal, **options: Sync.options(**options).remote(journal),
    "threaded": lambda journal, **options: Sync.options(max_concurrency=2, **options).remote(journal),
}


def error_of(ref):
    with pytest.raises(KliegError) as caught:
        klieg.get(ref, timeout=10)
    return caught.value


def assert_cancelled(ref):
    error = error_of(ref)
    assert isinstance(error, TaskCancelledError) or isinstance(error.cause, TaskCancelledError), repr(error)


@pytest.fixture(params=[*KINDS, "task"])
def kind(request):
    return request.param


def wait_for_argument(kind, journal, gate):
    """A call that waits for an argument, and what shows afterwards that others still run."""
    argument = wait_at.remote(gate)
    if kind == "task":
        return run.remote(journal, argument)
    return KINDS[kind](journal).run.remote(argument)


def queue_behind(kind, journal, gate):
    """A call that waits in its actor's mailbox, or for a worker."""
    if kind == "task":
        for _ in range(4):  # the runtime of the tests has four CPUs
            wait_at.remote(gate)
        return run.remote(journal, "queued")
    if kind == "async":
        actor = Async.options(max_concurrency=1).remote(journal)
        actor.run.remote("first")
        journal.next()
    else:
        actor = KINDS[kind](journal)
        for _ in range(2 if kind == "threaded" else 1):
            actor.run.remote("first", gate)
            journal.next()
    return actor.run.remote("queued")


def before_its_actor(kind, journal, gate):
    """A call to an actor whose constructor has not returned."""
    if kind == "task":
        pytest.skip("a task has no actor to wait for")
    if kind == "async":
        return Async.remote(journal, gate).run.remote("early")
    options = {"max_concurrency": 2} if kind == "threaded" else {}
    return Sync.options(**options).remote(journal, gate).run.remote("early")


@pytest.mark.parametrize("state", [wait_for_argument, queue_behind, before_its_actor])
def test_what_has_not_started_never_does_and_fails_at_once(kind, state, journal, gate):
    ref = state(kind, journal, gate)
    klieg.cancel(ref)
    assert_cancelled(ref)  # while the gate is still shut
    gate.open()
    assert "queued" not in journal.unread()


def test_what_runs_is_told_and_fails_when_it_has_ended(kind, journal):
    ref = run.remote(journal, "in") if kind == "task" else KINDS[kind](journal).run.remote("in")
    assert journal.next() == "in"
    klieg.cancel(ref)
    assert_cancelled(ref)
    if kind != "task":  # a task may have been interrupted before it could say more
        assert journal.next() == "ended in"


def test_a_generator_ends_with_the_error_as_its_last_ref(kind, journal):
    items = (stream.remote(journal, "in")) if kind == "task" else KINDS[kind](journal).stream.remote("in")
    assert klieg.get(next(items)) == 1
    klieg.cancel(items)
    assert_cancelled(next(items))
    with pytest.raises(StopIteration):
        next(items)


def test_what_has_finished_keeps_its_value(kind, journal):
    quick = klieg.remote(lambda: "done") if kind == "task" else KINDS[kind](journal).quick
    ref = quick.remote()
    klieg.wait([ref])
    klieg.cancel(ref)
    assert klieg.get(ref) == "done"


def test_what_was_cancelled_stays_cancelled(kind, journal, gate):
    ref = wait_for_argument(kind, journal, gate)
    klieg.cancel(ref)
    klieg.cancel(ref)
    assert_cancelled(ref)


def test_what_has_failed_keeps_its_error(kind, journal):
    if kind == "task":
        ref = klieg.remote(lambda: 1 / 0).remote()
    else:
        ref = KINDS[kind](journal).__ray_call__.remote(lambda actor: 1 / 0)
    klieg.wait([ref])
    klieg.cancel(ref)
    assert isinstance(error_of(ref), ZeroDivisionError)


@pytest.mark.parametrize("kind", [*KINDS])
def test_a_call_of_a_dead_actor_keeps_that_error(kind, journal, gate):
    actor = KINDS[kind](journal)
    ref = actor.run.remote("in", gate)
    journal.next()
    klieg.kill(actor)
    klieg.cancel(ref)
    assert isinstance(error_of(ref), ActorDiedError)


@pytest.mark.needs_process("an actor of this process does not die by a signal")
@pytest.mark.parametrize("kind", [*KINDS])
def test_a_call_that_waits_for_a_restart_never_starts(kind, journal, tmp_path):
    actor = KINDS[kind](journal, max_restarts=3, max_task_retries=3)
    klieg.get(actor.quick.remote())
    klieg.kill(actor, no_restart=False)
    ref = actor.run.remote("late")
    klieg.cancel(ref)
    assert_cancelled(ref)
    assert klieg.get(actor.quick.remote(), timeout=20) == "done"


@pytest.mark.needs_process("a thread cannot be ended")
def test_force_ends_the_worker_of_a_task_in_any_state(journal, gate):
    running = run.remote(journal, "in")
    journal.next()
    waiting = run.remote(journal, wait_at.remote(gate))
    for ref in running, waiting:
        klieg.cancel(ref, force=True)
        assert_cancelled(ref)


@pytest.mark.parametrize("kind", [*KINDS])
def test_force_is_refused_for_a_method(kind, journal):
    ref = KINDS[kind](journal).run.remote("in")
    with pytest.raises(ValueError, match="force"):
        klieg.cancel(ref, force=True)
    klieg.cancel(ref)
    assert_cancelled(ref)


def test_the_page_names_a_test_for_each_row_and_each_exists():
    rows = re.findall(r"^\|.*`(test_\w+)` *\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 10
    assert not [name for name in rows if name not in globals()]
