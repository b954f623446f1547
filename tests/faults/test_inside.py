"""F and G: what users' code does inside a worker to loops, threads and locks."""

import os
import subprocess
import sys
import textwrap

import processes
import pytest
import victims

import klieg
from klieg.exceptions import ActorDiedError, TaskError


@klieg.remote
class Loop:
    """Does to its loop what nobody should."""

    async def ping(self):
        return os.getpid()

    async def run(self, code):
        import asyncio

        scope = {"asyncio": asyncio, "loop": asyncio.get_running_loop()}
        exec(textwrap.dedent(code), scope)
        await asyncio.sleep(0)
        return scope.get("result")


RUDE = {
    "closes the loop": "loop.close()",
    "runs a loop inside": "asyncio.run(asyncio.sleep(0))",
    "runs the loop again": "loop.run_forever()",
    "raises in a callback": "loop.call_soon(lambda: 1 / 0); loop.call_later(0.001, lambda: 1 / 0)",
    "sets another policy": "asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())",
    "calls a hundred thousand times": "for _ in range(100_000): loop.call_soon(int)",
    "leaks a task that raises": "async def f(): raise ValueError\nresult = None; loop.create_task(f())",
    "waits for uvloop": "import importlib.util; result = importlib.util.find_spec('uvloop') is None",
}


@pytest.mark.parametrize("rude", RUDE)
def test_what_a_method_does_to_its_loop_is_its_own_error_and_the_actor_answers_on(runtime, rude):
    actor = Loop.remote()
    ref = actor.run.remote(RUDE[rude])
    if rude.startswith(("closes", "runs")):
        with pytest.raises(TaskError) as caught:
            klieg.get(ref, timeout=20)
        assert isinstance(caught.value.cause, RuntimeError)
    else:
        klieg.get(ref, timeout=20)
    assert klieg.get(actor.ping.remote(), timeout=20) > 0


def test_a_method_that_stops_the_loop_ends_the_actor_or_nothing_but_never_hangs(runtime):
    actor = Loop.remote()
    refs = [actor.run.remote("loop.stop()"), actor.ping.remote()]
    ready, _ = klieg.wait(refs, num_returns=2, timeout=20)
    assert len(ready) == 2


def test_a_task_left_behind_is_cancelled_when_the_actor_leaves_and_nothing_is_printed():
    program = """
    import klieg, asyncio, sys

    @klieg.remote
    class Actor:
        async def leave_behind(self, path):
            async def linger():
                try:
                    await asyncio.sleep(300)
                finally:
                    open(path, "w").write("cleaned up")
            self.task = asyncio.create_task(linger())
            await asyncio.sleep(0)

    klieg.init(num_cpus=1)
    actor = Actor.remote()
    klieg.get(actor.leave_behind.remote(sys.argv[1]))
    try:
        klieg.get(actor.__ray_terminate__.remote())
    except klieg.exceptions.ActorDiedError:
        print(open(sys.argv[1]).read())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), os.path.join(os.environ["TMPDIR"], "left")],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    os.unlink(os.path.join(os.environ["TMPDIR"], "left"))
    assert (done.stdout, done.stderr) == ("cleaned up\n", "")


@klieg.remote(max_concurrency=2)
class Threads:
    """Blocks its pool, its lock, its exit."""

    def __init__(self):
        import threading

        self.lock = threading.Lock()

    def ping(self):
        return os.getpid()

    def lock_twice(self):
        with self.lock:
            self.lock.acquire()

    def start_thread(self, gate, daemon):
        import threading

        threading.Thread(target=gate.wait, daemon=daemon).start()
        return os.getpid()

    def set_handler(self):
        import signal

        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_a_pool_whose_every_thread_hangs_in_a_users_lock_can_be_killed(runtime):
    actor = Threads.remote()
    pid = klieg.get(actor.ping.remote(), timeout=20)
    refs = [actor.lock_twice.remote() for _ in range(3)]
    klieg.kill(actor)
    for ref in refs:
        with pytest.raises(ActorDiedError):
            klieg.get(ref, timeout=20)
    processes.wait_until_ended(pid)


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_of_the_users_do_not_keep_an_actor_that_leaves(runtime, gate, daemon):
    actor = Threads.remote()
    pid = klieg.get(actor.start_thread.remote(gate, daemon), timeout=20)
    del actor
    processes.wait_until_ended(pid)


def test_a_signal_handler_in_a_pool_thread_is_refused_by_python_and_the_error_comes_home(runtime):
    actor = Threads.remote()
    with pytest.raises(ValueError, match="main thread"):
        klieg.get(actor.set_handler.remote(), timeout=20)
    assert klieg.get(actor.ping.remote(), timeout=20) > 0


def test_a_dependency_of_several_calls_that_is_cancelled_fails_them_all_and_nobody_else(runtime, gate):
    slow = klieg.remote(victims.wait_at).remote(gate)
    dependants = [klieg.remote(victims.echo).remote(slow) for _ in range(3)]
    other = klieg.remote(victims.echo).remote(5)
    klieg.cancel(slow)
    gate.open()
    for ref in dependants:
        with pytest.raises(klieg.exceptions.TaskCancelledError):
            klieg.get(ref, timeout=20)
    assert klieg.get(other, timeout=20) == 5
