"""B: the driver dies, is interrupted, forks, execs, stops or leaves, in each phase; nothing is left, nothing hangs."""

import os
import random
import signal
import textwrap
import time

import leaks
import processes
import programs
import pytest
from sizes import SEED, cross, size

from klieg.engines.objects import AllDone, ObjectFuture
from klieg.outcome import Error

CYCLES = size(20, 1)

HEADER = """
import asyncio, klieg, os, subprocess, sys, threading, time

@klieg.remote
class Actor:
    def start_child(self):
        self.child = subprocess.Popen(["sleep", "300"])

    async def wait(self):
        await asyncio.Event().wait()

    async def items(self):
        await asyncio.Event().wait()
        yield

    async def ping(self):
        return os.getpid()

@klieg.remote
def block():
    time.sleep(300)

def start():
    global actor, refs
    klieg.init(num_cpus=2)
    actor = Actor.remote()
    klieg.get([actor.start_child.remote(), actor.ping.remote()])
    refs = [block.remote() for _ in range(3)]

def say(word):
    print(word, flush=True)
"""

PHASES = {
    "idle": "start(); say('now'); time.sleep(300)",
    "in get": "start(); ref = actor.wait.remote(); say('now'); klieg.get(ref)",
    "in await": "start(); ref = actor.wait.remote()\nasync def main():\n say('now'); await ref\nasyncio.run(main())",
    "1k in flight": "start(); refs += [actor.wait.remote() for _ in range(1000)]; say('now'); klieg.wait(refs)",
    "in init": "say('now'); start(); time.sleep(300)",
    "in shutdown": "start(); say('now'); klieg.shutdown(); time.sleep(300)",
}
ENDS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "SIGINT": signal.SIGINT}
AT_ONCE = ("in init", "in shutdown")
"""Phases that pass by themselves: the signal comes at a random moment in them."""


def assert_nothing_is_left():
    left = programs.left_after(2)
    assert [processes.command(pid) for pid in left] == []
    assert [text for text in leaks.descendants().values() if "sleep 300" in text] == []


@pytest.mark.chaos
@pytest.mark.parametrize(("phase", "end"), cross([*PHASES], [*ENDS], one_in=3))
def test_a_signal_to_the_driver_leaves_nothing(phase, end):
    chance = random.Random(f"{SEED}/{phase}/{end}")
    for _ in range(CYCLES):
        with programs.running(HEADER + PHASES[phase]) as process:
            assert programs.read_line(process) == "now"
            if phase in AT_ONCE:
                time.sleep(chance.uniform(0, 0.2 if phase == "in init" else 0.03))
            process.send_signal(ENDS[end])
            code = process.wait(programs.PATIENCE)
            assert_nothing_is_left()
        assert code in (-ENDS[end], 1) if end == "SIGINT" else code == -ENDS[end]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os._exit(4)", 4),
        ("os.abort()", -signal.SIGABRT),
        ("raise ValueError('uncaught')", 1),
        ("sys.exit(3)", 3),
        ("pass", 0),
    ],
)
def test_any_end_with_ten_thousand_calls_pending_leaves_nothing(end, code):
    program = f"{HEADER}\nstart(); refs += [actor.wait.remote() for _ in range(10_000)]; say('now')\n{end}"
    with programs.running(program) as process:
        assert programs.read_line(process) == "now"
        started = time.monotonic()
        assert programs.finish(process)[2] == code
        assert time.monotonic() - started < 5
        assert_nothing_is_left()


@pytest.mark.parametrize(
    "leave",
    [
        "threading.Thread(target=lambda: (time.sleep(0.1), say(klieg.get(actor.ping.remote()) > 0))).start()",
        "import atexit; atexit.register(lambda: say(klieg.get(actor.ping.remote()) > 0))",
        "actor = None; say(True)",
        "import gc; gc.disable(); klieg.cycle = [actor, refs]; klieg.cycle.append(klieg.cycle); say(True)",
    ],
    ids=["non-daemon thread", "atexit", "handle dropped", "in a cycle"],
)
def test_leaving_without_shutdown_is_quiet(leave):
    output, errors, code = programs.run(f"{HEADER}\nstart()\n{leave}")
    assert (output, errors, code) == ("True\n", "", 0)
    assert_nothing_is_left()


def test_shutdown_releases_whoever_waits_in_other_threads():
    program = """
    start()
    results = []
    def wait(how):
        try:
            how()
        except BaseException as error:
            results.append(type(error).__name__)
    ref = actor.wait.remote()
    ways = [
        lambda: klieg.get(ref),
        lambda: klieg.get([ref, *refs]),
        lambda: ref.future().result(),
        lambda: asyncio.run(asyncio.wait_for(ref, 20)),
        lambda: klieg.get(next(iter(actor.items.options(num_returns="streaming").remote()))),
    ]
    threads = [threading.Thread(target=wait, args=[way]) for way in ways]
    for thread in threads: thread.start()
    time.sleep(0.3)
    klieg.shutdown()
    for thread in threads: thread.join(10)
    print(len(results), set(results))
    """
    output, errors, code = programs.run(HEADER + textwrap.dedent(program))
    assert (output, errors, code) == ("5 {'RuntimeShutdownError'}\n", "", 0)


def test_ctrl_c_twice_in_shutdown_still_ends_it():
    program = f"{HEADER}\nstart(); say('now')\nklieg.shutdown()\nsay('ended')"
    with programs.running(program) as process:
        assert programs.read_line(process) == "now"
        started = time.monotonic()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        programs.finish(process)
        assert time.monotonic() - started < 3
        assert_nothing_is_left()


def test_a_storm_of_ctrl_c_during_calls_loses_no_call():
    program = """
    klieg.init(num_cpus=2)

    @klieg.remote
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

    counter = Counter.remote()
    klieg.get(counter.add.remote())
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), over.set())).start()
    say('now')
    refs, interrupts = [], 0

    def call_until_over():
        while not over.is_set():
            for _ in range(100):
                refs.append(counter.add.remote())
            klieg.get(refs[-1])

    while True:
        try:
            call_until_over()
            break
        except KeyboardInterrupt:
            interrupts += 1
    values = klieg.get(refs)
    print(interrupts > 5, values == sorted(set(values)), klieg.get(counter.add.remote()) >= len(values) + 2)
    """
    with programs.running(HEADER + textwrap.dedent(program)) as process:
        assert programs.read_line(process) == "now"
        for _ in range(20):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        time.sleep(0.05)  # until the last has arrived
        process.stdin.write("\n")
        output, errors, code = programs.finish(process)
    assert (output, errors, code) == ("True True True\n", "", 0)


FORKED = {
    "uses the api": ("klieg.get(actor.ping.remote(), timeout=5)", "RuntimeError"),
    "puts": ("klieg.put(1)", "RuntimeError"),
    "gets a ref": ("klieg.get(ref, timeout=5)", "RuntimeError"),
    "awaits a ref": ("asyncio.run(asyncio.wait_for(ref, 5))", "RuntimeError"),
    "takes a future": ("ref.future().result(5)", "RuntimeError"),
    "initialises": ("klieg.init()", "RuntimeError"),
    "shuts down": ("klieg.shutdown()", "nothing"),
    "drops everything": ("globals().update(actor=None, refs=None, ref=None); import gc; gc.collect()", "nothing"),
}


@pytest.mark.parametrize("use", FORKED)
def test_a_forked_child_is_told_at_once_and_harms_nothing(use):
    code, raises = FORKED[use]
    program = f"""
{HEADER}
start()
ref = actor.wait.remote()
pid = os.fork()
if pid == 0:
    try:
        {code}
        say("nothing")
    except BaseException as error:
        say(type(error).__name__)
    os._exit(0)
os.waitpid(pid, 0)
say(klieg.get([actor.ping.remote() for _ in range(100)])[0] > 0)
"""
    output, errors, status = programs.run(program)
    assert (output, errors, status) == (f"{raises}\nTrue\n", "", 0)


def test_a_forked_child_that_exits_leaves_the_runtime_alone():
    program = f"{HEADER}\nstart()\npid = os.fork()\nif pid == 0: sys.exit(0)\nos.waitpid(pid, 0)\n"
    program += "say(klieg.get(actor.ping.remote()) > 0)"
    assert programs.run(program) == ("True\n", "", 0)


def test_a_pool_of_forked_processes_works_beside_the_runtime():
    program = f"""{HEADER}
import multiprocessing
start()
with multiprocessing.get_context("fork").Pool(2) as pool:
    say(pool.map(abs, [-1, -2]) == [1, 2] and klieg.get(actor.ping.remote()) > 0)
"""
    output, errors, code = programs.run("import warnings; warnings.simplefilter('ignore')\n" + program)
    assert (output, errors, code) == ("True\n", "", 0)


def test_a_forked_child_that_lives_on_does_not_keep_a_dead_drivers_runtime():
    program = (
        f"{HEADER}\nstart()\npid = os.fork()\nif pid == 0: time.sleep(300)\nsay(pid)\nklieg.get(actor.wait.remote())"
    )
    with programs.running(program) as process:
        child = int(programs.read_line(process))
        process.kill()
        process.wait()
        try:
            workers = [pid for pid in programs.left_after(2) if pid != child]
            assert [processes.command(pid) for pid in workers] == []
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_of_a_worker_does_not_hide_its_death():
    program = f"""{HEADER}
@klieg.remote
class Parent:
    def fork(self):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(300)
        return os.getpid(), pid

    def wait(self):
        time.sleep(300)

klieg.init(num_cpus=2)
parent = Parent.remote()
pid, child = klieg.get(parent.fork.remote())
ref = parent.wait.remote()
os.kill(pid, 9)
try:
    klieg.get(ref, timeout=5)
except Exception as error:
    say(type(error).__name__)
os.kill(child, 9)
"""
    assert programs.run(program)[0] == "ActorDiedError\n"


def test_exec_in_the_driver_ends_the_runtime():
    program = f"{HEADER}\nstart(); say('now'); os.execv('/bin/sleep', ['sleep', '30'])"
    with programs.running(program) as process:
        assert programs.read_line(process) == "now"
        left = programs.left_after(2)
        assert [pid for pid in left if pid != process.pid and processes.state(pid) != "Z"] == []


@pytest.mark.chaos
def test_a_stopped_driver_loses_nothing():
    program = f"{HEADER}\nstart(); say('now'); time.sleep(0.05)\n"
    program += "say(klieg.get([actor.ping.remote() for _ in range(10)])[0] > 0); os._exit(0)"
    with programs.running(program) as process:
        assert programs.read_line(process) == "now"
        process.send_signal(signal.SIGSTOP)
        time.sleep(size(30, 2))  # the time that it is stopped is the fault
        process.send_signal(signal.SIGCONT)
        assert programs.read_line(process) == "True"


def test_a_signal_handler_may_shut_down_while_a_get_waits():
    program = """
    import signal
    start()
    signal.signal(signal.SIGALRM, lambda *_: klieg.shutdown())
    ref = actor.wait.remote()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        klieg.get(ref)
    except Exception as error:
        say(type(error).__name__)
    """
    started = time.monotonic()
    assert programs.run(HEADER + textwrap.dedent(program)) == ("RuntimeShutdownError\n", "", 0)
    assert time.monotonic() - started < 8


def test_what_a_waiter_was_told_once_stays_true():
    good, bad = ObjectFuture(1), ObjectFuture(2)
    ready = AllDone([good, bad])
    assert not ready()
    bad.resolve(Error(b""))
    assert [ready(), ready()] == [True, True]
    bad.outcome.unread = False
