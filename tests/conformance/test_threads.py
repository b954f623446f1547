"""Everything may be called from any thread."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import klieg

THREADS = 16


@klieg.remote
def echo(x):
    return x


@klieg.remote
def pass_gate(gate):
    gate.wait()


@klieg.remote
class Counter:
    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value


@klieg.remote
class AsyncCounter:
    def __init__(self):
        self.value = 0

    async def add(self):
        self.value += 1
        return self.value


def in_threads(function, count=THREADS):
    """Run `function(i)` on so many threads at once and give back what each returned."""
    start = threading.Barrier(count)

    def run(number):
        start.wait(10)
        return function(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_many_threads_call_and_get_tasks():
    def work(number):
        return klieg.get([echo.remote((number, i)) for i in range(20)])

    assert in_threads(work) == [[(n, i) for i in range(20)] for n in range(THREADS)]


def test_many_threads_call_one_actor():
    for actor_class in (Counter, AsyncCounter):
        counter = actor_class.remote()
        found = in_threads(lambda _, c=counter: klieg.get([c.add.remote() for _ in range(20)]))
        assert sorted(x for part in found for x in part) == list(range(1, 20 * THREADS + 1))


def test_many_threads_put_get_and_wait():
    def work(number):
        refs = [klieg.put((number, i)) for i in range(20)] + [echo.remote((number, 20))]
        ready, rest = klieg.wait(refs, num_returns=len(refs), timeout=20)
        assert rest == []
        return klieg.get(ready)

    assert in_threads(work) == [[(n, i) for i in range(21)] for n in range(THREADS)]


def test_many_threads_create_and_kill_actors():
    def work(number):
        counter = Counter.remote()
        value = klieg.get(counter.add.remote())
        klieg.kill(counter)
        return value

    assert in_threads(work, 6) == [1] * 6


def test_many_threads_get_the_same_ref(gate):
    @klieg.remote
    def wait_at(gate):
        gate.wait()
        return "value"

    ref = wait_at.remote(gate)
    opener = threading.Timer(0.01, gate.open)
    opener.start()
    assert in_threads(lambda _: klieg.get(ref, timeout=20)) == ["value"] * THREADS
    opener.join()


def test_one_thread_waits_while_another_calls(gate):
    @klieg.remote
    def wait_at(gate):
        gate.wait()
        return "late"

    found = []
    ref = wait_at.remote(gate)
    waiter = threading.Thread(target=lambda: found.append(klieg.get(ref)))
    waiter.start()
    assert klieg.get([echo.remote(i) for i in range(50)]) == list(range(50))
    gate.open()
    waiter.join(10)
    assert found == ["late"]


def test_the_runtime_may_be_started_and_ended_by_another_thread(engine):
    def work(number):
        klieg.shutdown()
        klieg.init(engine=engine)
        return klieg.get(echo.remote(number))

    assert in_threads(work, 1) == [0]
    assert klieg.get(echo.remote(1)) == 1


def test_a_process_pool_of_pythons_own_works_beside():
    import subprocess
    import sys

    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\n"
    assert klieg.get(echo.remote(1)) == 1


def test_a_call_that_another_thread_cancels_before_it_was_sent_wakes_who_waits_for_it(gate):
    late = pass_gate.remote(gate)
    held = echo.remote(late)
    canceller = threading.Timer(0.1, klieg.cancel, [held])
    canceller.start()
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(held, timeout=10)
    canceller.join()


@pytest.fixture
def collecting_all_the_time():
    """The collector runs at almost every object that is made, so finalizers run in the middle of anything."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


def test_calls_of_many_threads_survive_a_collector_that_always_runs(collecting_all_the_time):
    @klieg.remote
    class Collecting:
        def __init__(self):
            gc.set_threshold(1)
            self.value = 0

        async def add(self, refs):
            self.value += 1
            return self.value

    counter = Collecting.remote()

    def work(number):
        found = []
        for i in range(20):
            garbage = [klieg.put(i), counter]  # a ref and a handle that only the collector can drop
            garbage.append(garbage)
            found.append(klieg.get(counter.add.remote(garbage[:1])))
            assert klieg.get(echo.remote(i)) == i
        return found

    found = in_threads(work)
    assert sorted(value for part in found for value in part) == list(range(1, 20 * THREADS + 1))
    gc.set_threshold(700)
    klieg.kill(counter)
