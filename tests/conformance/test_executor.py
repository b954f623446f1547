"""`klieg.Executor` against the contract of `concurrent.futures`, over tasks and over an actor."""

import asyncio
import concurrent.futures
import functools
import itertools
import os
import threading

import programs
import pytest

import klieg
from klieg.exceptions import ActorDiedError, RuntimeShutdownError, WorkerCrashedError


def square(x):
    return x * x


def fail(message):
    raise ValueError(message)


def pass_gate(gate, value=None):
    gate.wait()
    return value


def note(journal, value):
    journal.note(value)
    return value


@klieg.remote
def remote_square(x):
    return x * x


@klieg.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self, n=1):
        self.count += n
        return self.count

    def wait_at(self, gate, value=None):
        gate.wait()
        return value


@pytest.fixture
def executor():
    with klieg.Executor(max_workers=2) as executor:
        yield executor


def test_a_call_gives_a_future_of_its_result(executor):
    future = executor.submit(pow, 2, 8)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 256
    assert (future.done(), future.cancelled(), future.exception()) == (True, False, None)


def test_arguments_of_any_name_reach_the_function(executor):
    def capture(*args, **kwargs):
        return args, kwargs

    assert executor.submit(capture, 1, self=2, fn=3, timeout=4).result() == ((1,), {"self": 2, "fn": 3, "timeout": 4})
    with pytest.raises(TypeError):
        executor.submit(fn=capture, arg=1)


@pytest.mark.parametrize(
    "function", [square, lambda x: x * x, functools.partial(pow, exp=2), (2).__mul__, remote_square], ids=repr
)
def test_every_kind_of_callable_can_be_submitted(executor, function):
    assert executor.submit(function, 2).result() == 4


def test_a_closure_is_taken_as_it_is_at_each_call(executor):
    def add(x):
        return x + offset

    offset = 1
    assert executor.submit(add, 1).result() == 2
    offset = 10
    assert executor.submit(add, 1).result() == 11


def test_an_exception_comes_as_its_own_type_with_the_remote_traceback(executor):
    future = executor.submit(fail, "no")
    with pytest.raises(ValueError, match="no") as caught:
        future.result()
    assert type(caught.value) is ValueError
    assert "in fail" in str(caught.value.__cause__)
    assert future.exception() is caught.value


def test_wrong_arguments_fail_the_future_not_the_submission(executor):
    with pytest.raises(TypeError):
        executor.submit(square).result()


def test_what_cannot_be_pickled_fails_the_future(executor):
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(square, threading.Lock()).result()
    with pytest.raises(TypeError, match="pickle"):
        executor.submit(threading.Lock).result()
    assert executor.submit(square, 2).result() == 4


def test_a_coroutine_function_is_refused(executor):
    async def f():
        return 1

    with pytest.raises(ValueError, match="async def"):
        executor.submit(f)


def test_a_result_can_be_waited_for_in_vain(executor, gate):
    future = executor.submit(pass_gate, gate, 1)
    for wait in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            wait(timeout=0.01)
    gate.open()
    assert future.result() == 1


def test_no_more_calls_run_than_there_are_workers(executor, gate, journal):
    def run(i):
        journal.note("started", i)
        gate.wait()

    futures = [executor.submit(run, i) for i in range(4)]
    assert sorted(journal.take(2)) == ["started 0", "started 1"]
    assert [future.running() for future in futures] == [True, True, False, False]
    gate.open()
    assert sorted(journal.take(2)) == ["started 2", "started 3"]


def test_a_pending_future_can_be_cancelled_and_a_running_one_cannot(executor, gate, journal):
    running = [executor.submit(pass_gate, gate) for _ in range(2)]
    pending = executor.submit(note, journal, "never")
    assert pending.cancel()
    assert pending.cancelled()
    assert not running[0].cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        pending.result()
    gate.open()
    assert executor.submit(note, journal, "last").result() == "last"
    assert journal.unread() == ["last"]


def test_callbacks_are_called_with_the_future(executor):
    seen, called = [], threading.Event()

    def callback(future):
        seen.append(future)
        called.set()

    future = executor.submit(square, 3)
    future.add_done_callback(callback)
    assert called.wait(10)
    assert seen == [future]


def test_futures_work_with_wait_and_as_completed(executor, gate):
    slow, quick = executor.submit(pass_gate, gate, "slow"), executor.submit(square, 2)
    done, rest = concurrent.futures.wait([slow, quick], return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, rest) == ({quick}, {slow})
    completed = concurrent.futures.as_completed([slow, quick])
    assert next(completed) is quick
    gate.open()
    assert next(completed) is slow


def test_map_gives_the_results_in_order(executor):
    assert list(executor.map(pow, range(10), range(10))) == [i**i for i in range(10)]
    assert list(executor.map(pow, [1, 2, 3], [2, 2])) == [1, 4]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_in_chunks_gives_the_same(executor, chunksize):
    assert list(executor.map(square, range(10), chunksize=chunksize)) == [i * i for i in range(10)]
    assert list(executor.map(remote_square, range(10), chunksize=chunksize)) == [i * i for i in range(10)]


def test_chunks_run_together(executor):
    pids = list(executor.map(lambda _: (os.getpid(), threading.get_ident()), range(4), chunksize=4))
    assert len(set(pids)) == 1


def test_map_submits_at_once_and_without_being_asked(executor, journal):
    results = executor.map(note, itertools.repeat(journal), range(3))
    assert sorted(journal.take(3)) == ["0", "1", "2"]
    assert list(results) == [0, 1, 2]


def test_map_raises_an_error_in_its_turn(executor):
    results = executor.map(divmod, [1, 1, 1], [2, 0, 5])
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results, "over") == "over"


def test_map_gives_up_at_its_timeout(executor, gate):
    results = executor.map(pass_gate, [gate], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)


def test_closing_a_map_cancels_what_has_not_started(executor, gate, journal):
    blocked = [executor.submit(pass_gate, gate) for _ in range(2)]
    results = executor.map(note, [journal] * 3, "abc")
    results.close()  # it has not begun, so it has nothing to clean up
    started = executor.map(note, [journal] * 3, "xyz", timeout=0)
    with pytest.raises(TimeoutError):
        next(started)
    gate.open()
    concurrent.futures.wait(blocked)
    executor.shutdown()
    assert sorted(journal.unread()) == ["a", "b", "c"]


def test_a_map_with_a_buffer_submits_no_further_ahead(executor):
    read = []

    def items():
        for i in itertools.count():
            read.append(i)
            yield i

    results = executor.map(square, items(), buffersize=3)
    assert read == [0, 1, 2]
    assert next(results) == 0
    assert read == [0, 1, 2, 3]
    assert [next(results) for _ in range(5)] == [1, 4, 9, 16, 25]


def test_map_refuses_bad_sizes(executor):
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(square, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize"):
        executor.map(square, [1], buffersize=1.5)


def test_the_context_manager_waits_for_everything(journal):
    with klieg.Executor(1) as executor:
        futures = [executor.submit(note, journal, i) for i in range(5)]
    assert all(future.done() for future in futures)
    assert journal.unread() == ["0", "1", "2", "3", "4"]


def test_nothing_can_be_submitted_after_shutdown():
    executor = klieg.Executor()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(executor.map(square, [1]))


def test_shutdown_without_waiting_lets_everything_finish(gate):
    executor = klieg.Executor(1)
    futures = [executor.submit(pass_gate, gate, i) for i in range(3)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result() for future in futures] == [0, 1, 2]


def test_shutdown_can_cancel_what_has_not_started(gate):
    executor = klieg.Executor(1)
    first, *others = [executor.submit(pass_gate, gate, i) for i in range(4)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in others)
    assert concurrent.futures.wait(others).done == set(others)
    gate.open()
    assert first.result() == 0


def test_shutdown_returns_after_the_callbacks(executor):
    called = []
    for i in range(5):
        executor.submit(square, i).add_done_callback(lambda future: called.append(future.result()))
    executor.shutdown()
    assert sorted(called) == [0, 1, 4, 9, 16]


def test_a_bad_executor_is_refused_when_it_is_made():
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            klieg.Executor(number)
    with pytest.raises(ValueError, match="nonsense"):
        klieg.Executor(nonsense=1)
    with pytest.raises(ValueError, match="num_cpus"):
        klieg.Executor(actor=Counter.remote(), num_cpus=1)


def test_without_a_number_as_many_run_as_there_are_cpus(gate):
    with klieg.Executor() as executor:
        futures = [executor.submit(pass_gate, gate) for _ in range(6)]
        assert sum(future.running() for future in futures) == 4
        gate.open()
    with klieg.Executor(num_cpus=2) as executor:
        futures = [executor.submit(pass_gate, gate) for _ in range(6)]
        assert sum(future.running() for future in futures) <= 2


def test_run_in_executor_works_with_asyncio(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, square, i) for i in range(5)))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_a_cancelled_awaiter_cancels_the_pending_call(executor, gate, journal):
    async def main():
        loop = asyncio.get_running_loop()
        blocked = [loop.run_in_executor(executor, pass_gate, gate) for _ in range(2)]
        pending = loop.run_in_executor(executor, note, journal, "never")
        pending.cancel()
        await asyncio.wait([pending])
        gate.open()
        await asyncio.gather(*blocked)

    asyncio.run(main())
    executor.shutdown()
    assert journal.unread() == []


def test_many_threads_can_share_an_executor(executor):
    results = []

    def work(start):
        results.extend(executor.map(square, range(start, start + 10)))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 80, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [i * i for i in range(80)]


def test_an_executor_in_a_task_gives_its_cpu_to_its_calls():
    @klieg.remote(num_cpus=4)
    def outer():
        with klieg.Executor() as executor:
            return sum(executor.map(square, range(5)))

    assert klieg.get(outer.remote()) == 30


def test_a_method_of_an_actor_can_be_submitted():
    counter = Counter.remote()
    with klieg.Executor(actor=counter) as executor:
        assert list(executor.map(counter.add, [1, 2, 3])) == [1, 3, 6]
        assert executor.submit(counter.add, n=4).result() == 10


def test_a_plain_function_runs_in_the_executors_actor():
    @klieg.remote
    class Place:
        def where(self):
            return os.getpid()

    place = Place.remote()
    with klieg.Executor(actor=place) as executor:
        assert executor.submit(os.getpid).result() == executor.submit(place.where).result()
        assert list(executor.map(square, range(10), chunksize=3)) == [i * i for i in range(10)]
        assert executor.submit(place.__ray_call__, lambda self, x: self.where() and x, 5).result() == 5


def test_coroutines_run_in_an_async_actor():
    @klieg.remote
    class Loop:
        async def ping(self):
            return 1

    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    with klieg.Executor(actor=Loop.remote()) as executor:
        assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]


def test_an_actor_runs_no_more_calls_than_its_limit(gate):
    threaded = Counter.options(max_concurrency=3).remote()
    with klieg.Executor(actor=threaded) as executor:
        futures = [executor.submit(threaded.wait_at, gate) for _ in range(5)]
        assert [future.running() for future in futures] == [True] * 3 + [False] * 2
        gate.open()


def test_a_dead_actor_breaks_its_executor(gate):
    counter = Counter.remote()
    executor = klieg.Executor(actor=counter)
    running, *pending = [executor.submit(counter.wait_at, gate) for _ in range(3)]
    klieg.kill(counter)
    for future in (running, *pending):
        with pytest.raises(concurrent.futures.BrokenExecutor) as caught:
            future.result()
        assert isinstance(caught.value.__cause__, ActorDiedError)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        executor.submit(counter.add)
    executor.shutdown()


def test_another_actors_death_breaks_nothing():
    counter, other = Counter.remote(), Counter.remote()
    klieg.kill(other)
    with klieg.Executor(actor=counter) as executor:
        with pytest.raises(ActorDiedError):
            executor.submit(other.add).result()
        assert executor.submit(counter.add).result() == 1


@pytest.mark.needs_process("a worker is killed")
def test_a_worker_that_dies_fails_its_call_and_no_other():
    with klieg.Executor(max_retries=0) as executor:
        with pytest.raises(WorkerCrashedError):
            executor.submit(os._exit, 7).result()
        assert executor.submit(square, 3).result() == 9


def test_the_end_of_the_runtime_ends_every_future_and_starts_no_other_runtime(gate):
    executor = klieg.Executor(1)
    futures = [executor.submit(pass_gate, gate) for _ in range(4)]
    klieg.shutdown()
    for future in futures:
        with pytest.raises(concurrent.futures.BrokenExecutor) as caught:
            future.result(timeout=10)
        assert isinstance(caught.value.__cause__, RuntimeShutdownError)
    executor.shutdown()
    assert not klieg.is_initialized()


PROGRAM = """
    import sys, time, klieg

    klieg.init(engine={engine!r}, num_cpus=1)

    def slowly(word):
        time.sleep(0.2)
        print(word, flush=True)

    executor = klieg.Executor()
    for word in ("first", "second", "third"):
        executor.submit(slowly, word)
    {end}
"""


@pytest.mark.not_on_ray("how a driver starts and ends there is Ray's affair, and takes seconds")
@pytest.mark.parametrize("end", ["", "sys.exit(0)", "executor.shutdown(wait=False)"])
def test_a_program_ends_when_everything_submitted_is_done(engine, end):
    output, errors, code = programs.run(PROGRAM.format(engine=engine, end=end))
    assert (output.split(), errors, code) == (["first", "second", "third"], "", 0)


@pytest.mark.not_on_ray("how a driver starts and ends there is Ray's affair, and takes seconds")
def test_nothing_can_be_submitted_at_the_interpreters_end(engine):
    program = f"""
        import atexit

        @atexit.register
        def last():  # registered before klieg's own end, hence called after it
            try:
                executor.submit(abs, 1)
            except RuntimeError as error:
                print(error)

        import klieg

        klieg.init(engine={engine!r})
        executor = klieg.Executor()
        print(executor.submit(abs, -1).result(), flush=True)
    """
    assert programs.run(program) == ("1\ncannot schedule new futures after interpreter shutdown\n", "", 0)
