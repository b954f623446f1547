"""Threaded actors: `max_concurrency=N` without async methods gives up to N threads."""

import signal
import threading

import pytest

import klieg


@klieg.remote
class Threaded:
    """Calls meet in it."""

    def __init__(self, parties=2):
        self.barrier = threading.Barrier(parties)
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.made_on = threading.get_ident()

    def meet(self):
        self.barrier.wait(10)
        return threading.get_ident()

    def come_and_go(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        threading.Event().wait(0.001)
        with self.lock:
            self.inside -= 1

    def most_inside(self):
        return self.most

    def ident(self):
        return threading.get_ident()

    def made_where(self):
        return self.made_on

    def thread_count(self):
        return threading.active_count()


def test_the_pages_example_runs():
    @klieg.remote
    class ThreadedActor:
        def task_1(self):
            return threading.get_ident()

        def task_2(self):
            return threading.get_ident()

    actor = ThreadedActor.options(max_concurrency=2).remote()
    assert len(klieg.get([actor.task_1.remote(), actor.task_2.remote()])) == 2


@pytest.mark.parametrize("size", [2, 5, 16])
def test_as_many_calls_run_at_once_as_the_limit_says(size):
    actor = Threaded.options(max_concurrency=size).remote(size)
    threads = klieg.get([actor.meet.remote() for _ in range(size)])
    assert len(set(threads)) == size


@pytest.mark.parametrize("size", [2, 5])
def test_never_more_calls_run_than_the_limit_says(size):
    actor = Threaded.options(max_concurrency=size).remote()
    klieg.get([actor.come_and_go.remote() for _ in range(20 * size)])
    assert 1 < klieg.get(actor.most_inside.remote()) <= size


def test_without_a_limit_calls_run_one_at_a_time():
    actor = Threaded.remote()
    klieg.get([actor.come_and_go.remote() for _ in range(20)])
    assert klieg.get(actor.most_inside.remote()) == 1


def test_threads_are_made_only_when_needed():
    @klieg.remote(max_concurrency=1000)
    class Actor:
        def threads(self):
            return threading.active_count()

    actor = Actor.remote()
    for _ in range(20):
        count = klieg.get(actor.threads.remote())
    assert count < 20


def test_a_thread_is_used_again():
    actor = Threaded.options(max_concurrency=8).remote()
    assert len({klieg.get(actor.ident.remote()) for _ in range(20)}) <= 2


def test_thread_locals_persist_on_a_thread():
    @klieg.remote(max_concurrency=2)
    class Actor:
        def __init__(self):
            self.local = threading.local()

        def count(self):
            self.local.calls = getattr(self.local, "calls", 0) + 1
            return self.local.calls

    actor = Actor.remote()
    assert max(klieg.get(actor.count.remote()) for _ in range(10)) > 1


def test_methods_run_beside_the_main_thread():
    @klieg.remote(max_concurrency=2)
    class Actor:
        def in_main_thread(self):
            return threading.current_thread() is threading.main_thread()

        def set_handler(self):
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)

    actor = Actor.remote()
    assert klieg.get(actor.in_main_thread.remote()) is False
    with pytest.raises(ValueError, match="main thread"):
        klieg.get(actor.set_handler.remote())


@pytest.mark.not_on_ray("a worker's main thread is Ray's own")
@pytest.mark.needs_process("the main thread of this process is the test's")
def test_the_constructor_runs_in_the_main_thread():
    @klieg.remote(max_concurrency=2)
    class Actor:
        def __init__(self):
            self.made_in_main = threading.current_thread() is threading.main_thread()

        def read(self):
            return self.made_in_main

    assert klieg.get(Actor.remote().read.remote()) is True


def test_the_constructor_does_not_run_on_a_pool_thread():
    actor = Threaded.options(max_concurrency=2).remote()
    threads = klieg.get([actor.meet.remote(), actor.meet.remote()])
    assert klieg.get(actor.made_where.remote()) not in threads


def test_pool_threads_have_names():
    @klieg.remote(max_concurrency=2)
    class Named:
        def name(self):
            return threading.current_thread().name

    assert "Named" in klieg.get(Named.remote().name.remote())


def test_a_blocking_get_in_a_pool_thread_is_fine():
    @klieg.remote(max_concurrency=2)
    class Actor:
        def outer(self, me):
            return klieg.get(me.inner.remote())

        def inner(self):
            return "inner"

    actor = Actor.remote()
    assert klieg.get(actor.outer.remote(actor)) == "inner"


def test_a_thread_of_the_user_can_call_and_get():
    @klieg.remote
    def double(x):
        return 2 * x

    @klieg.remote(max_concurrency=2)
    class Actor:
        def run(self):
            found = []
            thread = threading.Thread(target=lambda: found.append(klieg.get(double.remote(4))))
            thread.start()
            thread.join()
            return found

    assert klieg.get(Actor.remote().run.remote()) == [8]


def test_a_late_argument_is_overtaken(gate):
    @klieg.remote
    def slow(gate):
        gate.wait()
        return "late"

    @klieg.remote(max_concurrency=2)
    class Actor:
        def echo(self, x):
            return x

    actor = Actor.remote()
    late = actor.echo.remote(slow.remote(gate))
    assert klieg.get(actor.echo.remote("early")) == "early"
    gate.open()
    assert klieg.get(late) == "late"


def test_errors_leave_the_pool_whole():
    @klieg.remote(max_concurrency=2)
    class Actor:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def fail(self):
            raise ValueError("no")

        def meet(self):
            self.barrier.wait(10)
            return True

    actor = Actor.remote()
    for ref in [actor.fail.remote() for _ in range(10)]:
        with pytest.raises(ValueError, match="no"):
            klieg.get(ref)
    assert klieg.get([actor.meet.remote(), actor.meet.remote()]) == [True, True]


def test_a_killed_threaded_actor_fails_what_is_inside(gate, journal):
    @klieg.remote(max_concurrency=4)
    class Actor:
        def block(self, gate):
            journal.note("in")
            gate.wait()

    actor = Actor.remote()
    refs = [actor.block.remote(gate) for _ in range(6)]
    journal.take(4)
    klieg.kill(actor)
    for ref in refs:
        with pytest.raises(klieg.exceptions.ActorDiedError):
            klieg.get(ref, timeout=10)
