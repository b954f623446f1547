"""Restarts of actors, retries of calls and tasks. Most need processes that can die."""

import asyncio
import itertools
import os
import time

import gates
import pytest

import klieg
from klieg.exceptions import ActorDiedError, ActorUnavailableError, WorkerCrashedError

dies = pytest.mark.needs_process("the test's own process would die")


@klieg.remote
class Counter:
    def __init__(self, journal=None):
        self.value = 0
        if journal is not None:
            journal.note("made")

    def add(self):
        self.value += 1
        return self.value

    def die(self):
        os._exit(1)

    def die_at_first(self, path):
        if not os.path.exists(path):
            open(path, "w").close()
            os._exit(1)
        return "second time"

    def restarted(self):
        return klieg.get_runtime_context().was_current_actor_reconstructed

    def fail_at_first(self, path):
        if not os.path.exists(path):
            open(path, "w").close()
            raise ValueError("first time")
        return "second time"


def get_when_available(make_call):
    """Ask again while the actor restarts, for as long as a test has patience."""
    deadline = time.monotonic() + gates.PATIENCE
    while True:
        try:
            return klieg.get(make_call(), timeout=10)
        except ActorUnavailableError:
            assert time.monotonic() < deadline, "the actor does not come back"


@dies
def test_without_restarts_a_dead_actor_stays_dead():
    counter = Counter.remote()
    for call in (counter.die, counter.add):
        with pytest.raises(ActorDiedError):
            klieg.get(call.remote(), timeout=10)


@dies
def test_a_restarted_actor_has_a_fresh_state(journal):
    counter = Counter.options(max_restarts=1).remote(journal)
    assert klieg.get([counter.add.remote() for _ in range(3)]) == [1, 2, 3]
    with pytest.raises(ActorUnavailableError):
        klieg.get(counter.die.remote(), timeout=10)
    assert get_when_available(counter.add.remote) == 1
    assert journal.take(2) == ["made", "made"]


@dies
def test_calls_in_flight_at_a_crash_are_unavailable():
    counter = Counter.options(max_restarts=1).remote()
    refs = [counter.die.remote()] + [counter.add.remote() for _ in range(5)]
    for ref in refs:
        with pytest.raises(ActorUnavailableError):
            klieg.get(ref, timeout=10)
    assert get_when_available(counter.add.remote) == 1


@dies
def test_restarts_run_out():
    counter = Counter.options(max_restarts=2).remote()
    for _ in range(2):
        get_when_available(counter.add.remote)
        with pytest.raises(ActorUnavailableError):
            klieg.get(counter.die.remote(), timeout=10)
    get_when_available(counter.add.remote)
    with pytest.raises(ActorDiedError):
        klieg.get(counter.die.remote(), timeout=10)
    with pytest.raises(ActorDiedError):
        klieg.get(counter.add.remote(), timeout=10)


@dies
def test_a_restarted_actor_can_tell():
    counter = Counter.options(max_restarts=1).remote()
    assert klieg.get(counter.restarted.remote()) is False
    with pytest.raises(ActorUnavailableError):
        klieg.get(counter.die.remote(), timeout=10)
    assert get_when_available(counter.restarted.remote) is True


@dies
def test_a_call_with_retries_is_made_again_after_a_restart(tmp_path):
    counter = Counter.options(max_restarts=1, max_task_retries=1).remote()
    assert klieg.get(counter.die_at_first.remote(str(tmp_path / "x")), timeout=10) == "second time"


@dies
def test_retries_can_be_set_for_one_call(tmp_path):
    counter = Counter.options(max_restarts=1).remote()
    ref = counter.die_at_first.options(max_task_retries=1).remote(str(tmp_path / "x"))
    assert klieg.get(ref, timeout=10) == "second time"


@dies
def test_a_poison_call_uses_up_the_restarts():
    counter = Counter.options(max_restarts=1, max_task_retries=1).remote()
    refs = [counter.die.remote()] + [counter.add.remote() for _ in range(5)]
    for ref in refs:
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=10)


@dies
def test_without_restarts_retries_change_nothing(tmp_path):
    counter = Counter.options(max_task_retries=3).remote()
    with pytest.raises(ActorDiedError):
        klieg.get(counter.die_at_first.remote(str(tmp_path / "x")), timeout=10)


def test_kill_does_not_restart():
    counter = Counter.options(max_restarts=-1).remote()
    klieg.get(counter.add.remote())
    klieg.kill(counter)
    with pytest.raises(ActorDiedError):
        klieg.get(counter.add.remote(), timeout=10)


@pytest.mark.parametrize("limit", [1, 2], ids=["plain", "threaded"])
def test_kill_restarts_when_asked_to(limit):
    counter = Counter.options(max_restarts=1, max_concurrency=limit).remote()
    assert klieg.get([counter.add.remote() for _ in range(2)]) == [1, 2]
    klieg.kill(counter, no_restart=False)
    assert get_when_available(counter.add.remote) == 1
    assert klieg.get(counter.restarted.remote()) is True
    klieg.kill(counter, no_restart=False)
    with pytest.raises(ActorDiedError):
        klieg.get(counter.add.remote(), timeout=10)


@klieg.remote
class Held:
    """Notes each of its lives, and what runs in them."""

    def __init__(self, journal, value=None):
        self.journal, self.value = journal, value
        journal.note("made")

    def hold(self, gate):
        self.journal.note("holds")
        gate.wait()
        return "held"

    def note(self, number):
        self.journal.note(number)
        return number

    def read(self):
        return self.value

    def make_child(self):
        self.child = Counter.remote()
        klieg.get(self.child.add.remote())
        return self.child

    def __ray_shutdown__(self):
        self.journal.note("farewell")


def test_what_runs_and_what_waits_is_unavailable_when_an_actor_is_killed_to_restart(gate, journal):
    held = Held.options(max_restarts=1).remote(journal)
    refs = [held.hold.remote(gate), *(held.note.remote(i) for i in range(3))]
    assert journal.take(2) == ["made", "holds"]
    klieg.kill(held, no_restart=False)
    for ref in refs:
        with pytest.raises(ActorUnavailableError):
            klieg.get(ref, timeout=10)
    assert get_when_available(lambda: held.note.remote("again")) == "again"
    assert journal.take(2) == ["made", "again"]


def test_calls_with_retries_are_made_again_in_order_after_a_kill(gate, journal):
    held = Held.options(max_restarts=1, max_task_retries=1).remote(journal)
    refs = [held.hold.remote(gate), *(held.note.remote(i) for i in range(3))]
    assert journal.take(2) == ["made", "holds"]
    klieg.kill(held, no_restart=False)
    assert journal.take(2) == ["made", "holds"]
    gate.open()
    assert klieg.get(refs, timeout=10) == ["held", 0, 1, 2]
    assert journal.take(3) == ["0", "1", "2"]


def test_a_life_that_follows_a_kill_has_name_limits_and_constructor_refs(journal):
    held = Held.options(name="held", max_restarts=1, max_concurrency=2).remote(journal, klieg.put([1, 2]))
    held.resize(max_concurrency=5)
    assert klieg.get(held.read.remote()) == [1, 2]
    klieg.kill(held, no_restart=False)
    assert get_when_available(klieg.get_actor("held").read.remote) == [1, 2]
    assert held.stats()["default"]["limit"] == 5
    assert journal.unread() == ["made"] * 2  # and no farewell: a kill runs no hooks


def test_the_children_of_a_life_end_with_it(journal):
    held = Held.options(max_restarts=1).remote(journal)
    child = klieg.get(held.make_child.remote())
    klieg.kill(held, no_restart=False)
    gates.soon_raises(ActorDiedError, lambda: klieg.get(child.add.remote(), timeout=10))
    assert get_when_available(held.read.remote) is None


def test_an_async_actor_is_killed_to_restart_in_the_middle_of_its_calls(journal):
    @klieg.remote(max_restarts=1)
    class Async:
        def __init__(self, journal):
            self.journal, self.door = journal, asyncio.Event()

        async def wait(self):
            self.journal.note("waits")
            await self.door.wait()

        async def open(self):
            self.door.set()
            return True

    actor = Async.remote(journal)
    refs = [actor.wait.remote() for _ in range(3)]
    journal.take(3)
    klieg.kill(actor, no_restart=False)
    for ref in refs:
        with pytest.raises(ActorUnavailableError):
            klieg.get(ref, timeout=10)
    assert get_when_available(actor.open.remote) is True


@dies
def test_a_restart_has_the_constructors_refs():
    @klieg.remote
    class Holder:
        def __init__(self, value):
            self.value = value

        def read(self):
            return self.value

        def die(self):
            os._exit(1)

    holder = Holder.options(max_restarts=1).remote(klieg.put([1, 2]))
    with pytest.raises(ActorUnavailableError):
        klieg.get(holder.die.remote(), timeout=10)
    assert get_when_available(holder.read.remote) == [1, 2]


@dies
def test_a_named_actor_keeps_its_name_over_a_restart():
    counter = Counter.options(name="counter", max_restarts=1).remote()
    with pytest.raises(ActorUnavailableError):
        klieg.get(counter.die.remote(), timeout=10)
    assert get_when_available(klieg.get_actor("counter").add.remote) == 1


@dies
def test_a_task_is_run_four_times_before_it_is_given_up(journal):
    @klieg.remote
    def die(journal):
        journal.note("ran")
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        klieg.get(die.remote(journal), timeout=20)
    assert journal.unread() == ["ran"] * 4


@dies
@pytest.mark.parametrize("retries", [0, 1])
def test_max_retries_says_how_often_a_task_is_run_again(journal, retries):
    @klieg.remote(max_retries=retries)
    def die(journal):
        journal.note("ran")
        os._exit(1)

    with pytest.raises(WorkerCrashedError):
        klieg.get(die.remote(journal), timeout=20)
    assert journal.unread() == ["ran"] * (1 + retries)


@dies
def test_a_task_whose_worker_died_once_succeeds(tmp_path):
    path = str(tmp_path / "x")

    @klieg.remote
    def die_at_first():
        if not os.path.exists(path):
            open(path, "w").close()
            os._exit(1)
        return "second time"

    assert klieg.get(die_at_first.remote(), timeout=10) == "second time"


def test_a_task_that_raises_is_not_retried(journal):
    @klieg.remote
    def fail(journal):
        journal.note("ran")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        klieg.get(fail.remote(journal))
    assert journal.unread() == ["ran"]


@pytest.mark.parametrize("retry", [True, [ValueError], [KeyError, ValueError]], ids=str)
def test_retry_exceptions_retries_what_it_names(journal, retry):
    @klieg.remote(max_retries=2, retry_exceptions=retry)
    def fail(journal):
        journal.note("ran")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        klieg.get(fail.remote(journal))
    assert journal.unread() == ["ran"] * 3


def test_retry_exceptions_does_not_retry_what_it_does_not_name(journal):
    @klieg.remote(max_retries=2, retry_exceptions=[KeyError])
    def fail(journal):
        journal.note("ran")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        klieg.get(fail.remote(journal))
    assert journal.unread() == ["ran"]


def test_a_method_that_raises_is_retried_when_both_options_say_so(tmp_path):
    counter = Counter.options(max_task_retries=1).remote()
    retrying = counter.fail_at_first.options(retry_exceptions=True)
    assert klieg.get(retrying.remote(str(tmp_path / "x"))) == "second time"


def test_a_method_that_raises_is_not_retried_without_max_task_retries(tmp_path):
    counter = Counter.remote()
    retrying = counter.fail_at_first.options(retry_exceptions=True)
    with pytest.raises(ValueError, match="first time"):
        klieg.get(retrying.remote(str(tmp_path / "x")))


@dies
def test_an_actor_that_dies_again_and_again_is_started_ever_more_slowly(journal):
    @klieg.remote(max_restarts=4)
    class Dies:
        def __init__(self, journal):
            journal.note(time.monotonic())
            os._exit(1)

        def call(self):
            pass

    dies = Dies.remote(journal)
    made = [float(line) for line in journal.take(5)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(made)]
    assert [pause >= least for pause, least in zip(pauses, [0, 0.1, 0.2, 0.4], strict=True)] == [True] * 4
    with pytest.raises(ActorDiedError):
        get_when_available(dies.call.remote)
