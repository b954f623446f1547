"""How actors and workers end: by will, by accident, by force; and what their callers are told."""

import asyncio
import os
import select
import signal
import sys
import threading

import gates
import pytest

import klieg
from klieg.exceptions import ActorDiedError, TaskError, WorkerCrashedError

dies = pytest.mark.needs_process("the test's own process would die")


@klieg.remote
class Plain:
    def run(self, function, *args):
        return function(*args)

    def ping(self):
        return "pong"


@klieg.remote
class Async:
    async def run(self, function, *args):
        return function(*args)

    async def ping(self):
        return "pong"


KINDS = {"plain": (Plain, {}), "threaded": (Plain, {"max_concurrency": 2}), "async": (Async, {})}


@pytest.fixture(params=KINDS)
def actor(request):
    """An actor of each kind that runs what it is sent."""
    actor_class, options = KINDS[request.param]
    return actor_class.options(**options).remote()


def assert_dead(actor):
    with pytest.raises(ActorDiedError):
        klieg.get(actor.ping.remote(), timeout=10)


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_ends_the_actor(actor, code):
    with pytest.raises(ActorDiedError, match=str(code)):
        klieg.get(actor.run.remote(sys.exit, code), timeout=10)
    assert_dead(actor)


def test_exit_actor_ends_the_actor(actor):
    with pytest.raises(ActorDiedError, match="exit_actor"):
        klieg.get(actor.run.remote(klieg.actor.exit_actor), timeout=10)
    assert_dead(actor)


def test_swallowing_the_exit_does_not_help(actor):
    def stay():
        try:
            klieg.actor.exit_actor()
        except BaseException:
            return "stayed"

    with pytest.raises(ActorDiedError):
        klieg.get(actor.run.remote(stay), timeout=10)
    assert_dead(actor)


def test_a_keyboard_interrupt_in_a_method_is_an_error_and_the_actor_lives(actor):
    def interrupt():
        raise KeyboardInterrupt("the text")

    with pytest.raises(TaskError) as caught:
        klieg.get(actor.run.remote(interrupt), timeout=10)
    assert isinstance(caught.value.cause, KeyboardInterrupt)
    assert klieg.get(actor.ping.remote()) == "pong"


def test_calls_that_run_at_the_exit_finish_first(gate, journal):
    @klieg.remote(max_concurrency=3)
    class Actor:
        def run(self, gate):
            journal.note("runs")
            gate.wait()
            return "finished"

        def leave(self):
            journal.note("leaves")
            klieg.actor.exit_actor()

    actor = Actor.remote()
    running = actor.run.remote(gate)
    assert journal.next() == "runs"
    leaving = actor.leave.remote()
    assert journal.next() == "leaves"
    gate.open()
    assert klieg.get(running, timeout=10) == "finished"
    with pytest.raises(ActorDiedError):
        klieg.get(leaving, timeout=10)


def test_calls_that_wait_at_the_exit_fail(gate):
    plain = Plain.remote()

    def wait_and_leave(gate):
        gate.wait()
        klieg.actor.exit_actor()

    leaving = plain.run.remote(wait_and_leave, gate)
    waiting = [plain.ping.remote() for _ in range(3)]
    gate.open()
    for ref in [leaving, *waiting]:
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=10)


def test_terminate_is_queued_behind_earlier_calls(actor):
    before = actor.ping.remote()
    klieg.wait([actor.__ray_terminate__.remote()], timeout=10)
    assert klieg.get(before) == "pong"
    assert_dead(actor)


def test_an_actor_that_left_is_never_restarted():
    plain = Plain.options(max_restarts=-1).remote()
    with pytest.raises(ActorDiedError):
        klieg.get(plain.run.remote(klieg.actor.exit_actor), timeout=10)
    assert_dead(plain)


def test_exit_actor_in_the_driver_is_a_type_error():
    with pytest.raises(TypeError, match="actor"):
        klieg.actor.exit_actor()


def test_exit_actor_in_a_task_is_a_type_error():
    with pytest.raises(TypeError, match="actor"):
        klieg.get(klieg.remote(lambda: klieg.actor.exit_actor()).remote())


def test_exit_actor_in_the_constructor_ends_the_actor():
    @klieg.remote
    class Actor:
        def __init__(self):
            klieg.actor.exit_actor()

        def ping(self):
            return "pong"

    assert_dead(Actor.remote())


@pytest.mark.needs_process("a thread that the user starts belongs to no actor there")
def test_exit_actor_in_a_thread_of_the_users_ends_the_actor():
    def leave_in_thread():
        def leave():
            try:
                klieg.actor.exit_actor()
            except BaseException:  # SystemExit, or what an async actor raises in its place
                return

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()

    plain = Plain.remote()
    ref = plain.run.remote(leave_in_thread)
    klieg.wait([ref], timeout=10)
    assert_dead(plain)


def test_sys_exit_in_a_task_is_a_crash_of_its_worker():
    @klieg.remote(max_retries=0)
    def leave():
        sys.exit(3)

    with pytest.raises(WorkerCrashedError):
        klieg.get(leave.remote(), timeout=10)


def test_sys_exit_in_the_constructor_ends_the_actor():
    @klieg.remote
    class Actor:
        def __init__(self):
            sys.exit(3)

        def ping(self):
            return "pong"

    assert_dead(Actor.remote())


def test_a_handle_in_another_process_learns_of_the_death():
    plain = Plain.remote()

    @klieg.remote
    class Holder:
        def __init__(self, plain):
            self.plain = plain

        def ask(self):
            return klieg.get(self.plain.ping.remote())

    holder = Holder.remote(plain)
    assert klieg.get(holder.ask.remote()) == "pong"
    klieg.kill(plain)
    with pytest.raises(ActorDiedError):
        klieg.get(holder.ask.remote(), timeout=10)


def test_an_actor_can_be_killed_by_a_task():
    plain = Plain.remote()
    klieg.get(klieg.remote(klieg.kill).remote(plain))
    assert_dead(plain)


@pytest.mark.not_on_ray("Ray does not say how a process ended")
@dies
@pytest.mark.parametrize("code", [0, 7])
def test_os_exit_ends_the_actor_and_the_code_is_told(actor, code):
    with pytest.raises(ActorDiedError, match=f"exit code {code}"):
        klieg.get(actor.run.remote(os._exit, code), timeout=10)
    assert_dead(actor)


SIGNALS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTERM]


@pytest.mark.not_on_ray("Ray does not say how a process ended")
@dies
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_that_ends_the_actor_is_named(actor, number):
    def die(number):
        import faulthandler
        import resource

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), number)
        threading.Event().wait(10)

    with pytest.raises(ActorDiedError, match=number.name):
        klieg.get(actor.run.remote(die, int(number)), timeout=10)
    assert_dead(actor)


@dies
def test_a_crash_of_c_code_is_told():
    def crash():
        import ctypes
        import faulthandler
        import resource

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)

    with pytest.raises(ActorDiedError, match="SIGSEGV"):
        klieg.get(Plain.remote().run.remote(crash), timeout=10)


@dies
def test_all_calls_inside_an_async_actor_fail_when_it_dies():
    @klieg.remote
    class Actor:
        async def wait(self):
            await asyncio.Event().wait()

        async def die(self):
            os._exit(7)

    actor = Actor.remote()
    refs = [actor.wait.remote() for _ in range(10)] + [actor.die.remote()]
    for ref in refs:
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=10)


@pytest.mark.not_on_ray("Ray does not say how a process ended")
@dies
def test_a_death_between_calls_shows_at_the_next():
    plain = Plain.remote()
    pid = klieg.get(plain.run.remote(os.getpid))
    os.kill(pid, signal.SIGKILL)
    error = gates.soon_raises(ActorDiedError, lambda: klieg.get(plain.ping.remote()))
    assert "SIGKILL" in str(error)


@pytest.mark.not_on_ray("Ray does not say how a process ended")
@dies
def test_a_death_in_the_constructor_is_told():
    @klieg.remote
    class Actor:
        def __init__(self):
            os._exit(9)

        def ping(self):
            return "pong"

    with pytest.raises(ActorDiedError, match="exit code 9"):
        klieg.get(Actor.remote().ping.remote(), timeout=10)


@dies
def test_a_result_that_came_before_the_death_stays():
    plain = Plain.remote()
    ref = plain.ping.remote()
    klieg.wait([ref])
    with pytest.raises(ActorDiedError):
        klieg.get(plain.run.remote(os._exit, 1), timeout=10)
    assert klieg.get(ref) == "pong"


@dies
def test_other_actors_do_not_notice_a_death():
    dying, living = Plain.remote(), Plain.remote()
    refs = [living.ping.remote() for _ in range(50)]
    with pytest.raises(ActorDiedError):
        klieg.get(dying.run.remote(os._exit, 1), timeout=10)
    assert klieg.get(refs) == ["pong"] * 50


@pytest.mark.not_on_ray("Ray does not say how a process ended")
@dies
def test_a_task_whose_worker_dies_says_how():
    @klieg.remote(max_retries=0)
    def die():
        os._exit(7)

    with pytest.raises(WorkerCrashedError, match="exit code 7"):
        klieg.get(die.remote(), timeout=10)


@dies
def test_tasks_go_on_after_a_worker_died():
    @klieg.remote(max_retries=0)
    def die():
        os._exit(7)

    @klieg.remote
    def ping():
        return "pong"

    for _ in range(3):
        with pytest.raises(WorkerCrashedError):
            klieg.get(die.remote(), timeout=10)
    assert klieg.get([ping.remote() for _ in range(10)]) == ["pong"] * 10


@dies
def test_a_killed_actors_process_is_gone():
    plain = Plain.remote()
    pid = klieg.get(plain.run.remote(os.getpid))
    descriptor = os.pidfd_open(pid)
    try:
        klieg.kill(plain)
        assert select.select([descriptor], [], [], 5)[0], "the process is still there"
    finally:
        os.close(descriptor)


@dies
def test_kill_ends_an_actor_that_never_comes_back():
    def spin():
        while True:
            pass

    plain = Plain.remote()
    pid = klieg.get(plain.run.remote(os.getpid))
    ref = plain.run.remote(spin)
    descriptor = os.pidfd_open(pid)
    try:
        klieg.kill(plain)
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=10)
        assert select.select([descriptor], [], [], 5)[0], "the process is still there"
    finally:
        os.close(descriptor)


@dies
def test_kill_runs_no_exit_hooks_and_leaving_does(journal):
    def at_exit(journal, word):
        import atexit

        atexit.register(journal.note, word)

    killed, leaving = Plain.remote(), Plain.remote()
    klieg.get(killed.run.remote(at_exit, journal, "killed"))
    klieg.get(leaving.run.remote(at_exit, journal, "left"))
    klieg.kill(killed)
    leaving.__ray_terminate__.remote()
    assert journal.next() == "left"
    assert_dead(killed)
    assert journal.unread() == []


@dies
def test_a_stopped_process_is_not_taken_for_dead():
    plain = Plain.remote()
    pid = klieg.get(plain.run.remote(os.getpid))
    os.kill(pid, signal.SIGSTOP)
    ref = plain.ping.remote()
    try:
        with pytest.raises(klieg.exceptions.GetTimeoutError):
            klieg.get(ref, timeout=0.3)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert klieg.get(ref, timeout=10) == "pong"


@pytest.mark.not_on_ray("the loop of an async actor is Ray's own")
@pytest.mark.parametrize("group", ["default", "own"])
def test_to_stop_the_loop_of_an_actor_does_not_end_it(group):
    @klieg.remote(concurrency_groups={"own": klieg.ConcurrencyGroup(10, own_loop=True)})
    class Actor:
        async def stop_the_loop(self):
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
            return "stopped"

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    refs = [getattr(actor, name).options(concurrency_group=group).remote() for name in ["stop_the_loop", "ping"] * 3]
    assert klieg.get(refs, timeout=10) == ["stopped", "pong"] * 3
    assert klieg.get(actor.ping.remote(), timeout=10) == "pong"


@pytest.mark.parametrize("how", ["close", "run"])
def test_the_loop_of_an_actor_can_be_neither_closed_nor_run_from_inside(how):
    @klieg.remote
    class Actor:
        async def close(self):
            asyncio.get_running_loop().close()

        async def run(self):
            coroutine = self.ping()
            try:
                asyncio.run(coroutine)
            finally:
                coroutine.close()

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    with pytest.raises(RuntimeError, match="running event loop"):
        klieg.get(getattr(actor, how).remote(), timeout=10)
    assert klieg.get(actor.ping.remote(), timeout=10) == "pong"
