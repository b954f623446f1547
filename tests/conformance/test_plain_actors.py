"""Plain actors: one call at a time, strictly in the order of submission."""

import os
import threading

import pytest

import klieg
from klieg.exceptions import ActorDiedError


@klieg.remote
class Counter:
    """Counts."""

    STEP = 1

    def __init__(self, start=0):
        self.value = start

    def add(self, amount=1):
        self.value += amount
        return self.value

    def read(self):
        return self.value

    def thread(self):
        return threading.get_ident(), threading.current_thread() is threading.main_thread()

    def wait_at(self, gate):
        gate.wait()

    def fail(self):
        raise ValueError("no")


def test_an_actor_keeps_its_state_between_calls():
    counter = Counter.remote(5)
    counter.add.remote()
    assert klieg.get(counter.add.remote(2)) == 8


def test_two_actors_of_a_class_share_nothing():
    first, second = Counter.remote(), Counter.remote(100)
    klieg.get(first.add.remote())
    assert klieg.get([first.read.remote(), second.read.remote()]) == [1, 100]


def test_calls_run_in_the_order_of_submission():
    counter = Counter.remote()
    assert klieg.get([counter.add.remote() for _ in range(500)]) == list(range(1, 501))


def test_calls_run_one_at_a_time(gate, journal):
    @klieg.remote
    class Actor:
        def run(self, name, gate):
            journal.note("start", name)
            gate.wait()
            journal.note("end", name)

    actor = Actor.remote()
    refs = [actor.run.remote(name, gate) for name in "ab"]
    assert journal.next() == "start a"
    assert klieg.wait(refs, timeout=0.05)[0] == []
    assert journal.unread() == []
    gate.open()
    klieg.get(refs)
    assert journal.take(3) == ["end a", "start b", "end b"]


def test_constructor_and_methods_run_on_one_thread(engine):
    @klieg.remote
    class Actor:
        def __init__(self):
            self.made_on = threading.get_ident()

        def threads(self):
            return self.made_on, threading.get_ident(), threading.main_thread().ident

    made_on, ran_on, main = klieg.get(Actor.remote().threads.remote())
    assert made_on == ran_on
    assert (ran_on == main) == (engine == "local")


def test_remote_returns_before_the_constructor_has_run(gate):
    @klieg.remote
    class Slow:
        def __init__(self, gate):
            gate.wait()

        def ready(self):
            return True

    ref = Slow.remote(gate).ready.remote()
    assert klieg.wait([ref], timeout=0)[0] == []
    gate.open()
    assert klieg.get(ref) is True


def test_late_arguments_hold_back_later_calls(gate, journal):
    @klieg.remote
    def slow(gate):
        gate.wait()
        return "late"

    @klieg.remote
    class Actor:
        def note(self, word):
            journal.note(word)

    actor = Actor.remote()
    actor.note.remote(slow.remote(gate))
    last = actor.note.remote("after")
    assert klieg.wait([last], timeout=0.05)[0] == []
    gate.open()
    klieg.get(last)
    assert journal.take(2) == ["late", "after"]


def test_a_failed_argument_does_not_hold_back_later_calls():
    @klieg.remote
    def fail():
        raise ValueError("no")

    counter = Counter.remote()
    failed = counter.add.remote(fail.remote())
    assert klieg.get(counter.add.remote()) == 1
    with pytest.raises(ValueError, match="no"):
        klieg.get(failed)


def test_an_error_in_a_method_leaves_the_actor_alive():
    counter = Counter.remote(3)
    with pytest.raises(ValueError, match="no"):
        klieg.get(counter.fail.remote())
    assert klieg.get(counter.read.remote()) == 3


def test_an_error_in_the_constructor_shows_at_the_first_call():
    @klieg.remote
    class Broken:
        def __init__(self):
            raise KeyError("the reason")

        def ping(self):
            return True

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(ActorDiedError, match="the reason") as caught:
            klieg.get(broken.ping.remote())
        assert caught.value.actor_init_failed
        assert not isinstance(caught.value, KeyError)
        assert "Traceback" in str(caught.value)


def test_a_ref_given_to_the_constructor_is_resolved_first(gate):
    @klieg.remote
    def slow(gate):
        gate.wait()
        return 40

    counter = Counter.remote(slow.remote(gate))
    ref = counter.add.remote(2)
    gate.open()
    assert klieg.get(ref) == 42


def test_a_failed_constructor_argument_fails_the_actor():
    @klieg.remote
    def fail():
        raise ValueError("the argument")

    counter = Counter.remote(fail.remote())
    with pytest.raises(ActorDiedError, match="the argument"):
        klieg.get(counter.read.remote())


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1, 2), {}, "too many positional arguments"),
        ((), {"zz": 1}, "got an unexpected keyword argument 'zz'"),
    ],
    ids=["too many", "unexpected"],
)
def test_wrong_arguments_raise_at_the_call(args, kwargs, message):
    counter = Counter.remote()
    with pytest.raises(TypeError, match=message):
        Counter.remote(*args, **kwargs)
    with pytest.raises(TypeError, match=message):
        counter.add.remote(*args, **kwargs)


def test_a_class_without_a_constructor_takes_no_arguments():
    @klieg.remote
    class Empty:
        def ping(self):
            return True

    with pytest.raises(TypeError):
        Empty.remote(1)
    assert klieg.get(Empty.remote().ping.remote()) is True


def test_an_actor_can_be_killed():
    counter = Counter.remote()
    klieg.get(counter.add.remote())
    assert klieg.kill(counter) is None
    with pytest.raises(ActorDiedError, match="killed"):
        klieg.get(counter.add.remote())


def test_kill_fails_what_runs_and_what_waits(gate, journal):
    @klieg.remote
    class Actor:
        def run(self, gate):
            journal.note("runs")
            gate.wait()

    actor = Actor.remote()
    refs = [actor.run.remote(gate) for _ in range(3)]
    journal.next()
    klieg.kill(actor)
    for ref in refs:
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=10)


def test_kill_keeps_finished_results_and_may_be_repeated():
    counter = Counter.remote()
    ref = counter.add.remote()
    klieg.wait([ref])
    klieg.kill(counter)
    klieg.kill(counter)
    assert klieg.get(ref) == 1


def test_kill_before_the_constructor_has_run(gate):
    @klieg.remote
    class Slow:
        def __init__(self, gate):
            gate.wait()

        def ping(self):
            return True

    slow = Slow.remote(gate)
    klieg.kill(slow)
    with pytest.raises(ActorDiedError):
        klieg.get(slow.ping.remote(), timeout=10)


def test_only_an_actor_can_be_killed():
    for wrong in (Counter, klieg.put(1), 3):
        with pytest.raises(ValueError, match="actor"):
            klieg.kill(wrong)


def test_a_call_right_after_kill_never_runs(journal):
    @klieg.remote
    class Actor:
        def run(self):
            journal.note("ran")

        def ping(self):
            return True

    actor = Actor.remote()
    klieg.get(actor.ping.remote())
    klieg.kill(actor)
    with pytest.raises(ActorDiedError):
        klieg.get(actor.run.remote())
    assert journal.unread() == []


@pytest.mark.needs_process("threads of one process share its pid")
def test_each_actor_has_a_process_of_its_own():
    @klieg.remote
    class Actor:
        def pid(self):
            return os.getpid()

    actors = [Actor.remote() for _ in range(3)]
    pids = klieg.get([a.pid.remote() for a in actors])
    assert len({*pids, os.getpid()}) == 4


def test_more_actors_than_cpus_run_at_once():
    counters = [Counter.remote(i) for i in range(8)]
    assert klieg.get([c.read.remote() for c in counters]) == list(range(8))


def test_two_callers_each_keep_their_order(journal):
    @klieg.remote
    class Log:
        def __init__(self):
            self.lines = []

        def note(self, who, number):
            self.lines.append((who, number))

        def read(self):
            return self.lines

    @klieg.remote
    def write(log, who):
        klieg.get([log.note.remote(who, i) for i in range(50)])

    log = Log.remote()
    klieg.get([write.remote(log, who) for who in "ab"])
    lines = klieg.get(log.read.remote())
    for who in "ab":
        assert [n for w, n in lines if w == who] == list(range(50))


def test_an_actor_is_ready_when_its_constructor_has_run():
    assert klieg.get(Counter.remote().__ray_ready__.remote()) is True


def test_any_function_can_be_run_on_an_actor():
    counter = Counter.remote(4)
    assert klieg.get(counter.__ray_call__.remote(lambda self, x: self.value + x, 3)) == 7


def test_thousand_calls_in_flight_all_come_home():
    counter = Counter.remote()
    assert klieg.get([counter.add.remote() for _ in range(1000)])[-1] == 1000
