"""`init` and `shutdown`: once, twice, again, at once; and what is left of refs and handles."""

import asyncio
import os
import threading

import gates
import leaks
import pytest

import klieg
from klieg.exceptions import KliegError, RuntimeShutdownError


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks):
    """These tests start their runtimes themselves; whatever runs at their end is shut down."""
    yield
    klieg.shutdown()


@klieg.remote
def echo(x):
    return x


@klieg.remote
class Counter:
    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value


@klieg.remote
class Waiter:
    async def wait(self):
        await asyncio.Event().wait()

    async def ping(self):
        return True


def test_init_and_shutdown_tell_whether_it_runs(engine):
    assert not klieg.is_initialized()
    klieg.init(engine=engine)
    assert klieg.is_initialized()
    klieg.shutdown()
    assert not klieg.is_initialized()


def test_a_second_init_is_refused(engine):
    klieg.init(engine=engine)
    with pytest.raises(RuntimeError, match="ignore_reinit_error"):
        klieg.init(engine=engine)
    assert klieg.get(echo.remote(1)) == 1


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_a_second_init_can_be_ignored(engine):
    klieg.init(engine=engine, num_cpus=3)
    klieg.init(engine=engine, num_cpus=7, ignore_reinit_error=True)
    assert klieg.cluster_resources()["CPU"] == 3


def test_shutdown_may_be_repeated_and_needs_no_init(engine):
    klieg.shutdown()
    klieg.init(engine=engine)
    klieg.shutdown()
    klieg.shutdown()


def test_init_is_a_context_manager(engine):
    with klieg.init(engine=engine):
        assert klieg.get(echo.remote(1)) == 1
    assert not klieg.is_initialized()


def test_what_init_returns_can_be_asked(engine):
    context = klieg.init(engine=engine)
    assert dict(context.address_info)
    assert context["node_id"]
    context.disconnect()
    assert not klieg.is_initialized()


def test_functions_and_classes_survive_a_new_runtime(engine):
    for _ in range(3):
        klieg.init(engine=engine)
        counter = Counter.remote()
        assert klieg.get([echo.remote(1), counter.add.remote()]) == [1, 1]
        klieg.shutdown()


def test_many_threads_may_shut_down_at_once(engine):
    klieg.init(engine=engine)
    Counter.remote()
    start = threading.Barrier(8)
    errors = []

    def stop():
        start.wait(10)
        try:
            klieg.shutdown()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not klieg.is_initialized()


def test_of_many_threads_that_call_init_one_starts_it(engine):
    start = threading.Barrier(8)
    results = []

    def begin():
        start.wait(10)
        try:
            klieg.init(engine=engine)
            results.append("started")
        except RuntimeError:
            results.append("refused")

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * 7 + ["started"]


def test_init_works_in_another_thread(engine):
    thread = threading.Thread(target=klieg.init, kwargs={"engine": engine})
    thread.start()
    thread.join()
    assert klieg.get(echo.remote(1)) == 1


def test_a_getter_in_another_thread_is_told_of_the_shutdown(engine):
    klieg.init(engine=engine)
    waiter = Waiter.remote()
    ref = waiter.wait.remote()
    klieg.get(waiter.ping.remote())
    errors = []

    def wait():
        try:
            klieg.get(ref)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    klieg.shutdown()
    for thread in threads:
        thread.join(10)
    assert [isinstance(error, KliegError) for error in errors] == [True] * 4


def test_an_awaiter_is_told_of_the_shutdown(engine):
    klieg.init(engine=engine)

    async def main():
        waiter = Waiter.remote()
        asyncio.get_running_loop().call_later(0.01, klieg.shutdown)
        with pytest.raises(KliegError):
            await waiter.wait.remote()

    asyncio.run(main())


def test_a_future_is_told_of_the_shutdown(engine):
    klieg.init(engine=engine)
    future = Waiter.remote().wait.remote().future()
    klieg.shutdown()
    assert isinstance(future.exception(10), KliegError)


def test_running_and_queued_tasks_do_not_hold_up_the_shutdown(engine, tmp_path, gate):
    klieg.init(engine=engine, num_cpus=1)

    @klieg.remote
    def wait_at(gate):
        gate.wait()

    refs = [wait_at.remote(gate) for _ in range(5)]
    opener = threading.Timer(0.2 if engine == "inline" else 60, gate.open)
    opener.start()
    klieg.shutdown()
    opener.cancel()
    opener.join()
    for ref in refs:
        with pytest.raises(RuntimeShutdownError):
            klieg.get(ref, timeout=10)


def test_a_stale_ref_raises_and_never_hangs(engine):
    klieg.init(engine=engine)
    waiter = Waiter.remote()
    ref = waiter.wait.remote()
    klieg.shutdown()
    with pytest.raises((KliegError, ValueError)):
        klieg.get(ref, timeout=10)
    klieg.init(engine=engine)
    with pytest.raises((KliegError, ValueError)):
        klieg.get(ref, timeout=10)


def test_a_stale_handle_raises_and_never_hangs(engine):
    klieg.init(engine=engine)
    counter = Counter.remote()
    klieg.get(counter.add.remote())
    klieg.shutdown()
    klieg.init(engine=engine)
    with pytest.raises(KliegError):
        klieg.get(counter.add.remote(), timeout=10)
    with pytest.raises(KliegError):
        klieg.kill(counter)


def test_a_stale_handle_does_not_reach_an_actor_of_the_new_runtime(engine):
    klieg.init(engine=engine)
    old = Counter.remote()
    klieg.get(old.add.remote())
    klieg.shutdown()
    klieg.init(engine=engine)
    new = Counter.remote()
    assert klieg.get(new.add.remote()) == 1
    with pytest.raises(KliegError):
        klieg.get(old.add.remote(), timeout=10)
    assert klieg.get(new.add.remote()) == 2


def test_dropping_stale_handles_and_refs_harms_nothing(engine):
    klieg.init(engine=engine)
    counter, ref = Counter.remote(), klieg.put(1)
    klieg.shutdown()
    del counter
    klieg.init(engine=engine)
    del ref
    assert klieg.get(echo.remote(1)) == 1


def test_an_unknown_keyword_is_refused(engine):
    with pytest.raises(RuntimeError, match="no_such_keyword"):
        klieg.init(engine=engine, no_such_keyword=1)
    assert not klieg.is_initialized()


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="inline"):
        klieg.init(engine="steam")
    assert not klieg.is_initialized()


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("num_cpus", -1, ValueError),
        ("num_cpus", "2", TypeError),
        ("resources", {"lamp": -1}, ValueError),
    ],
)
def test_a_bad_value_is_refused(engine, key, value, error):
    with pytest.raises(error):
        klieg.init(engine=engine, **{key: value})
    assert not klieg.is_initialized()


@pytest.mark.parametrize(
    "options",
    [
        {"include_dashboard": False},
        {"log_to_driver": False},
        {"logging_level": "ERROR"},
        {"address": "local"},
        {"object_store_memory": 10**8},
        pytest.param(
            {"runtime_env": {"env_vars": {"A_VARIABLE": "1"}}},
            marks=pytest.mark.needs_process("an environment of its own needs one"),
        ),
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_keywords_of_rays_init_are_accepted(engine, options):
    klieg.init(engine=engine, **options)
    assert klieg.get(echo.remote(1)) == 1


def test_a_cluster_address_is_refused_clearly():
    with pytest.raises(ConnectionError):
        klieg.init(address="auto")


def test_local_mode_names_the_inline_engine():
    with pytest.raises(RuntimeError, match="inline"):
        klieg.init(local_mode=True)


def test_without_a_runtime_the_resources_are_unknown():
    with pytest.raises(KliegError, match="init"):
        klieg.cluster_resources()


def test_a_shutdown_inside_an_actor_does_not_end_the_runtime(engine):
    klieg.init(engine=engine)

    @klieg.remote
    class Actor:
        def stop(self):
            klieg.shutdown()

        def ping(self):
            return True

    actor = Actor.remote()
    klieg.wait([actor.stop.remote()], timeout=10)
    assert klieg.is_initialized()
    assert klieg.get(actor.ping.remote(), timeout=10) is True


@pytest.mark.not_on_ray("Ray starts the processes")
@pytest.mark.needs_process("inline there are no processes")
def test_every_process_of_the_runtime_carries_its_mark(engine):
    klieg.init(engine=engine, num_cpus=2)
    counter = Counter.remote()
    klieg.get([counter.add.remote(), echo.remote(1)])
    assert set(leaks.descendants()) == set(leaks.runtime_processes())
    assert len(leaks.runtime_processes()) >= 3


@pytest.mark.not_on_ray("there is no head of klieg's; Ray ends a driver whose head dies")
@pytest.mark.needs_process("inline there is no head")
def test_the_death_of_the_head_fails_what_is_pending(engine):
    klieg.init(engine=engine)
    waiter = Waiter.remote()
    ref = waiter.wait.remote()
    klieg.get(waiter.ping.remote())
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as children:
        (head,) = map(int, children.read().split())
    os.kill(head, 9)
    with pytest.raises(KliegError):
        klieg.get(ref, timeout=10)
    klieg.shutdown()
    klieg.init(engine=engine)
    assert klieg.get(echo.remote(1)) == 1


def test_a_call_that_outlives_its_runtime_starts_no_other(gate, journal):
    @klieg.remote
    def outlive(gate, journal):
        journal.note("in")
        gate.wait()
        klieg.put(1)

    outlive.remote(gate, journal)
    journal.next()
    klieg.shutdown()
    gate.open()
    assert not gates.soon(klieg.is_initialized, patience=0.1)
