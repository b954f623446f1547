"""K, M, N, T: clocks that jump, a GIL that is held, a busy machine, restarts that fail, and very many calls."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

import gates
import leaks
import processes
import pytest
import victims
from sizes import size

import klieg
from klieg.engines import rundir, visit
from klieg.exceptions import ActorDiedError, GetTimeoutError

DAY = 86_400


@klieg.remote
class Clock:
    """Lives in another time."""

    def jump(self, seconds):
        now = time.time
        time.time = lambda: now() + seconds
        return os.getpid()

    def sleep(self, seconds):
        time.sleep(seconds)
        return "slept"


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_wall_clock_that_jumps_a_day_changes_no_timeout(runtime, monkeypatch, jump):
    actor = Clock.remote()
    klieg.get(actor.jump.remote(jump), timeout=20)
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + jump)
    slow = actor.sleep.options(timeout=20).remote(0.1)
    with pytest.raises(GetTimeoutError):
        klieg.get(slow, timeout=0.01)
    assert klieg.get(slow, timeout=20) == "slept"
    with pytest.raises(klieg.exceptions.DeadlineExceededError):
        klieg.get(klieg.remote(time.sleep).options(timeout=0.05).remote(20), timeout=20)


def hold_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "released"


def test_a_gil_that_is_held_while_six_hundred_calls_wait_is_no_death(runtime):
    @klieg.remote
    class Holder(victims.Plain):
        def hold(self, seconds):
            return hold_the_gil(seconds)

    actor = Holder.remote()
    refs = [actor.hold.remote(size(15, 1)), *[actor.add.remote() for _ in range(600)]]
    assert klieg.get(refs, timeout=60) == ["released", *range(1, 601)]


def test_a_machine_that_is_busy_with_other_things_lets_nothing_time_out(runtime):
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        actors = [victims.actor_class(kind).remote() for kind in victims.KINDS]
        assert klieg.get([actor.echo.remote(n) for n in range(200) for actor in actors], timeout=60)[-1] == 199
    finally:
        for process in busy:
            process.kill()
            process.wait()


@klieg.remote(max_restarts=2, max_task_retries=-1)
class SecondTimeUnlucky:
    """Its constructor works once."""

    def __init__(self, note):
        os.close(os.open(note, os.O_CREAT | os.O_EXCL))

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def ping(self):
        return 1


def test_a_constructor_that_fails_at_the_restart_is_the_actors_end_and_is_told(runtime, tmp_path):
    actor = SecondTimeUnlucky.remote(str(tmp_path / "note"))
    assert klieg.get(actor.ping.remote(), timeout=20) == 1
    with pytest.raises(ActorDiedError, match="FileExistsError"):
        klieg.get(actor.die.remote(), timeout=20)


def test_a_crash_loop_is_slowed_down_and_costs_next_to_nothing(runtime):
    actor = victims.actor_class("plain", max_restarts=-1).remote("exit7")
    head = processes.head()
    assert processes.load(size(5, 2), head) < 0.25  # measured: 2 to 5 %, under whatever load the tests run
    klieg.kill(actor)


def test_a_call_that_waits_for_one_of_an_actor_that_restarts_gets_its_value(runtime, tmp_path):
    actor = victims.actor_class("plain", max_restarts=1, max_task_retries=1).remote()
    pid = klieg.get(actor.ping.remote(), timeout=20)
    os.kill(pid, signal.SIGKILL)
    assert klieg.get(klieg.remote(victims.echo).remote(actor.echo.remote("again")), timeout=20) == "again"


@klieg.remote(num_cpus=4, max_restarts=-1)
class Whole:
    """Takes all CPUs there are."""

    def ping(self):
        return os.getpid()

    def kill_yourself(self):
        klieg.kill(klieg.get_runtime_context().current_actor)


def pending():
    holder, actor = Whole.remote(), Whole.remote()
    klieg.get(holder.ping.remote(), timeout=20)
    return actor, holder


def restarting():
    actor = Whole.remote()
    os.kill(klieg.get(actor.ping.remote(), timeout=20), signal.SIGKILL)
    return (actor,)


def dead():
    actor = Whole.remote()
    klieg.kill(actor)
    return (actor,)


def killed_by_itself():
    actor = Whole.remote()
    with pytest.raises(ActorDiedError):
        klieg.get(actor.kill_yourself.remote(), timeout=20)
    return (actor,)


@pytest.mark.parametrize("state", [pending, restarting, dead, killed_by_itself], ids=lambda state: state.__name__)
def test_a_kill_in_any_state_is_the_end(runtime, state):
    actor, *_ = state()
    klieg.kill(actor)
    with pytest.raises(ActorDiedError):
        klieg.get(actor.ping.remote(), timeout=20)


def lets_in(path):
    with contextlib.suppress(visit.VisitError):
        return visit.ask(path, {"want": "about"})["pid"] == os.getpid()
    return False


def test_a_thousand_connects_and_drops_at_the_door_cost_nothing(runtime):
    assert gates.soon(lambda: any(about["pid"] == os.getpid() for _, about in visit.running()))
    path, about = visit.choose(os.getpid())
    before = len(os.listdir(f"/proc/{about['head_pid']}/fd"))
    for _ in range(1000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            rundir.connect(sock, path)
    assert gates.soon(lambda: lets_in(path))  # once those who hung up are not taken for visitors any more
    assert gates.soon(lambda: len(os.listdir(f"/proc/{about['head_pid']}/fd")) <= before + 1)


@klieg.remote(max_concurrency=10_000)
class Crowd:
    def __init__(self):
        self.open = asyncio.Event()

    async def wait(self, number):
        await self.open.wait()
        return number

    async def let_in(self):
        self.open.set()


@pytest.mark.chaos
def test_t13_very_many_calls_wait_at_once_and_all_are_resolved(runtime):
    count, crowd = size(9_999, 2_000), Crowd.remote()
    refs = [crowd.wait.remote(number) for number in range(count)]
    klieg.get(crowd.let_in.remote(), timeout=30)
    assert klieg.get(refs, timeout=60) == list(range(count))


@pytest.mark.chaos
def test_t13_a_hundred_thousand_queued_calls_fit_into_memory_and_are_resolved(runtime):
    actor, count = victims.actor_class("plain").remote(), size(100_000, 10_000)
    before = processes.resident()
    refs = [actor.echo.remote(number) for number in range(count)]
    assert processes.resident() - before < 400 << 20
    assert klieg.get(refs, timeout=120) == list(range(count))


@pytest.mark.chaos
def test_t13_very_many_waiting_calls_are_cancelled_within_seconds(runtime):
    crowd = Crowd.remote()
    refs = [crowd.wait.remote(number) for number in range(size(9_999, 2_000))]
    started = time.monotonic()
    for ref in refs:
        klieg.cancel(ref)
    klieg.wait(refs, num_returns=len(refs), timeout=30)
    assert time.monotonic() - started < size(3, 3) * 3  # 3 s on a quiet machine
    for ref in refs[:: len(refs) // 20]:
        with pytest.raises(klieg.exceptions.TaskCancelledError):
            klieg.get(ref, timeout=20)


@pytest.mark.chaos
def test_t14_a_long_chain_and_a_wide_fan_in_are_no_recursion(runtime):
    actor, count, ref = victims.actor_class("async").remote(), size(10_000, 1_000), 0
    for _ in range(count):
        ref = actor.echo.remote(ref)
    assert klieg.get(ref, timeout=60) == 0
    many = [actor.echo.remote(number) for number in range(count)]
    assert klieg.get(klieg.remote(lambda *args: len(args)).remote(*many), timeout=60) == count


@pytest.mark.chaos
def test_t10_a_hundred_runtimes_one_after_another_leave_nothing():
    def once():
        klieg.init(engine="local", num_cpus=2)
        assert klieg.get(victims.actor_class("async").remote().echo.remote(1), timeout=20) == 1
        klieg.shutdown()

    once()
    before, memory = leaks.Snapshot.take(), 0
    for turn in range(size(110, 5)):
        once()
        if turn == size(10, 2):
            memory = processes.resident()
    assert leaks.leaks_after(before) == []
    assert processes.resident() - memory < size(100 * 20 << 10, 4 << 20)


@pytest.mark.chaos
def test_t11_many_actors_one_after_another_leave_nothing(runtime):
    klieg.get(victims.actor_class("plain").remote().ping.remote(), timeout=20)
    before, children = leaks.Snapshot.take(), len(processes.children(processes.head()))
    for turn in range(size(200, 12)):
        actor = victims.actor_class(victims.KINDS[turn % 3]).remote()
        assert klieg.get(actor.echo.remote(turn), timeout=20) == turn
        klieg.kill(actor)
    del actor
    assert gates.soon(lambda: len(processes.children(processes.head())) <= children + 1)
    assert [leak for leak in leaks.leaks_after(before) if not leak.startswith("process")] == []
