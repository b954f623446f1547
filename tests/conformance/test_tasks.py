"""Tasks: functions that run elsewhere."""

import asyncio
import os
import sys
import threading

import pytest

import klieg

FACTOR = 7


@klieg.remote
def add(a, b=10, *, c=0):
    return a + b + c


@klieg.remote
def get_pid():
    return os.getpid()


def test_a_task_returns_its_value():
    assert klieg.get(add.remote(1, 2)) == 3


def test_defaults_and_keywords_reach_the_function():
    assert klieg.get([add.remote(1), add.remote(1, c=5), add.remote(b=2, a=1)]) == [11, 16, 3]


def test_remote_returns_before_the_task_has_run(gate, journal):
    @klieg.remote
    def wait_at(gate, journal):
        gate.wait()
        journal.note("ran")

    ref = wait_at.remote(gate, journal)
    assert journal.unread() == []
    gate.open()
    klieg.get(ref)
    assert journal.next() == "ran"


def test_tasks_run_at_the_same_time(gate, journal):
    @klieg.remote
    def meet(gate, journal):
        journal.note("here")
        gate.wait()

    refs = [meet.remote(gate, journal) for _ in range(4)]
    assert journal.take(4) == ["here"] * 4
    gate.open()
    klieg.get(refs)


def test_no_more_tasks_run_than_there_are_cpus(gate, journal):
    @klieg.remote(num_cpus=2)
    def hold_two(number, gate, journal):
        journal.note(number)
        gate.wait()

    refs = [hold_two.remote(i, gate, journal) for i in range(4)]
    assert sorted(journal.take(2)) == ["0", "1"]
    assert klieg.wait(refs, timeout=0.05) == ([], refs)
    assert journal.unread() == []
    gate.open()
    klieg.get(refs)


@pytest.mark.needs_process("threads of one process share its pid")
def test_a_task_runs_in_another_process():
    assert klieg.get(get_pid.remote()) != os.getpid()


def test_options_make_a_copy_and_leave_the_original_alone():
    named = add.options(num_cpus=2, name="other")
    assert klieg.get([named.remote(1, 1), add.remote(1, 1)]) == [2, 2]


def test_options_of_options_add_up():
    @klieg.remote
    def pair():
        return 1, 2

    assert len(pair.options(num_returns=2).options(name="x").remote()) == 2


def test_remote_can_be_called_on_a_function():
    def double(x):
        return 2 * x

    assert klieg.get(klieg.remote(double).remote(4)) == 8
    assert klieg.get(klieg.remote(num_cpus=1)(double).remote(5)) == 10


def test_a_remote_function_keeps_its_name_and_docstring():
    @klieg.remote
    def documented():
        """What it does."""

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "What it does."


def test_lambdas_and_closures_are_tasks_too():
    offset = 5
    assert klieg.get(klieg.remote(lambda x: x + offset).remote(1)) == 6


def test_globals_of_the_defining_module_are_there():
    @klieg.remote
    def multiply(x):
        return x * FACTOR

    assert klieg.get(multiply.remote(3)) == 21


@pytest.mark.needs_process("threads of one process share its globals")
def test_globals_are_captured_once_at_the_first_call():
    values = {"x": 1}

    @klieg.remote
    def read():
        return values["x"]

    assert klieg.get(read.remote()) == 1
    values["x"] = 2
    assert klieg.get(read.remote()) == 1


def test_a_direct_call_is_refused():
    with pytest.raises(TypeError, match=r"Remote functions cannot be called directly.*add\.remote"):
        add(1, 2)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"zz": 1}, "got an unexpected keyword argument 'zz'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
    ids=["missing", "too many", "unexpected", "twice"],
)
def test_wrong_arguments_raise_at_the_call(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        add.remote(*args, **kwargs)


def test_a_missing_keyword_only_argument_raises_at_the_call():
    @klieg.remote
    def strict(*, key):
        return key

    with pytest.raises(TypeError, match=r"missing a required .*argument: 'key'"):
        strict.remote()
    assert klieg.get(strict.remote(key=1)) == 1


def test_a_task_may_take_any_arguments():
    @klieg.remote
    def collect(*args, **kwargs):
        return args, kwargs

    assert klieg.get(collect.remote(1, 2, x=3)) == ((1, 2), {"x": 3})


def test_an_async_function_is_refused_and_both_cures_are_named():
    with pytest.raises(ValueError, match="async def") as caught:

        @klieg.remote
        async def f():
            pass

    assert "asyncio.run" in str(caught.value)
    assert "max_concurrency" in str(caught.value)


def test_an_async_function_with_options_is_refused_too():
    async def f():
        pass

    with pytest.raises(ValueError, match="async def"):
        klieg.remote(num_cpus=1)(f)


def test_the_wrapper_of_the_page_runs_an_async_function():
    async def f():
        await asyncio.sleep(0)
        return 42

    @klieg.remote
    def wrapper():
        return asyncio.run(f())

    assert klieg.get(wrapper.remote()) == 42


def test_a_thing_that_is_neither_function_nor_class_is_refused():
    with pytest.raises(TypeError):
        klieg.remote(3)


def test_a_positional_option_is_refused():
    with pytest.raises(TypeError):
        klieg.remote(1, 2)


def test_a_remote_function_can_be_passed_to_a_task():
    @klieg.remote
    def run(function, x):
        return klieg.get(function.remote(x))

    assert klieg.get(run.remote(add, 1)) == 11


def test_two_returns_give_two_refs():
    @klieg.remote(num_returns=2)
    def pair():
        return 1, 2

    first, second = pair.remote()
    assert (klieg.get(second), klieg.get(first)) == (2, 1)


def test_no_returns_give_none():
    assert add.options(num_returns=0).remote(1) is None


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((1, 2), ValueError, "Task returned 2 objects, but num_returns=3"),
        ((1, 2, 3, 4), ValueError, "Task returned 4 objects, but num_returns=3"),
        (5, TypeError, "int"),
    ],
    ids=["too few", "too many", "a scalar"],
)
def test_a_result_that_does_not_fit_num_returns_fails_every_ref(value, error, message):
    @klieg.remote(num_returns=3)
    def wrong():
        return value

    for ref in wrong.remote():
        with pytest.raises(error, match=message):
            klieg.get(ref)


def test_a_generator_with_three_returns_gives_three_refs():
    @klieg.remote(num_returns=3)
    def three():
        yield from (1, 2, 3)

    assert klieg.get(three.remote()) == [1, 2, 3]


def test_a_worker_is_used_again():
    pids = {klieg.get(get_pid.remote()) for _ in range(20)}
    assert len(pids) <= 4


@pytest.mark.needs_process("the main thread of this process is the test's")
def test_a_task_runs_in_the_main_thread_of_its_worker():
    @klieg.remote
    def in_main_thread():
        return threading.current_thread() is threading.main_thread()

    assert klieg.get(in_main_thread.remote()) is True


@pytest.fixture
def only_here(tmp_path, monkeypatch):
    """A module that only a driver with this test's folder on its path can import."""
    (tmp_path / "only_here.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("only_here", None)


@klieg.remote
def import_it():
    import only_here

    return only_here.VALUE


def test_modules_on_the_drivers_path_can_be_imported(engine, only_here):
    klieg.shutdown()
    klieg.init(engine=engine)
    assert klieg.get(import_it.remote()) == 3


def test_a_path_that_is_added_later_counts_too(only_here):
    assert klieg.get(import_it.remote()) == 3


def test_a_task_sees_the_drivers_working_directory():
    @klieg.remote
    def where():
        return os.getcwd()

    assert klieg.get(where.remote()) == os.getcwd()


def test_a_thousand_tasks_in_flight_all_come_home():
    refs = [add.remote(i, 0) for i in range(1000)]
    assert klieg.get(refs) == list(range(1000))


@pytest.mark.not_on_ray("an autoscaler may still bring the resource: Ray waits for it, and says so in its log")
def test_a_resource_that_nobody_has_fails_the_task_at_once():
    ref = add.options(num_cpus=1000).remote(1)
    with pytest.raises(klieg.exceptions.TaskUnschedulableError, match="1000"):
        klieg.get(ref)


def test_custom_resources_limit_what_runs(engine, gate, journal):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=4, resources={"lamp": 1})

    @klieg.remote(resources={"lamp": 1}, num_cpus=0)
    def shine(gate, journal):
        journal.note("on")
        gate.wait()

    refs = [shine.remote(gate, journal) for _ in range(2)]
    assert journal.next() == "on"
    assert klieg.wait(refs, timeout=0.05)[0] == []
    assert journal.unread() == []
    gate.open()
    klieg.get(refs)


# Async tasks.


@klieg.remote(max_concurrency=3)
async def meet(journal, gate):
    journal.note("in", os.getpid(), id(asyncio.get_running_loop()))  # two forked workers may use one address
    await asyncio.to_thread(gate.wait)
    return "met"


def test_async_tasks_share_one_loop_up_to_their_number(gate, journal):
    refs = [meet.remote(journal, gate) for _ in range(3)]
    assert len(set(journal.take(3))) == 1
    gate.open()
    assert klieg.get(refs) == ["met"] * 3


def test_an_async_task_beyond_the_number_waits_or_has_another_worker(gate, journal, engine):
    refs = [meet.remote(journal, gate) for _ in range(4)]
    lines = journal.take(3 if engine == "inline" else 4)
    assert klieg.wait(refs, num_returns=4, timeout=0.02)[0] == []
    assert all(lines.count(line) <= 3 for line in lines)
    gate.open()
    assert klieg.get(refs) == ["met"] * 4


def test_a_cancelled_async_task_sees_a_cancelled_error(journal):
    @klieg.remote(max_concurrency=2)
    async def wait(journal):
        journal.note("in")
        try:
            await asyncio.Event().wait()
        finally:
            journal.note("cleaned up")

    ref = wait.remote(journal)
    assert journal.next() == "in"
    klieg.cancel(ref)
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(ref, timeout=10)
    assert journal.next() == "cleaned up"


def test_an_async_generator_is_refused_with_a_number_too():
    with pytest.raises(ValueError, match="async generator"):

        @klieg.remote(max_concurrency=2)
        async def stream():
            yield 1
