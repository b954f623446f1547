"""Whole programs: scripts without a main guard, `-c`, stdin, prints, signals, sudden ends."""

import os
import signal
import subprocess
import sys
import time

import leaks
import programs
import pytest

pytestmark = pytest.mark.not_on_ray("how a driver starts and ends there is Ray's affair, and takes seconds")


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks):
    """The programs start their runtimes themselves."""


PAGE = """
import asyncio
import klieg

klieg.init(engine={engine!r}, num_cpus=2)

class Point:
    def __init__(self, x):
        self.x = x

@klieg.remote
def double(point):
    return Point(2 * point.x)

@klieg.remote
class AsyncActor:
    async def run(self, x):
        await asyncio.sleep(0)
        return x

print(klieg.get(double.remote(Point(21))).x)
actor = AsyncActor.remote()
print(klieg.get([actor.run.remote(i) for i in range(3)]))
"""


def test_a_script_needs_no_main_guard(engine, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PAGE.format(engine=engine))
    result = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=programs.PATIENCE,
        env=programs.environment(),
    )
    assert (result.stdout, result.stderr, result.returncode) == ("42\n[0, 1, 2]\n", "", 0)


def test_a_program_on_the_command_line_works(engine):
    assert programs.run(PAGE.format(engine=engine)) == ("42\n[0, 1, 2]\n", "", 0)


def test_a_program_on_stdin_works(engine):
    result = subprocess.run(
        [sys.executable, "-"],
        input=PAGE.format(engine=engine),
        capture_output=True,
        text=True,
        timeout=programs.PATIENCE,
        env=programs.environment(),
    )
    assert (result.stdout, result.stderr, result.returncode) == ("42\n[0, 1, 2]\n", "", 0)


@pytest.mark.parametrize("options", [("-O",), ("-W", "error"), ("-X", "dev")], ids=" ".join)
def test_a_program_works_under_pythons_options(engine, options):
    output, errors, code = programs.run(PAGE.format(engine=engine), *options)
    assert (output, errors, code) == ("42\n[0, 1, 2]\n", "", 0)


@pytest.mark.needs_process("the engine that starts by itself is the local one")
def test_the_first_use_starts_the_runtime():
    program = """
    import klieg
    print(klieg.is_initialized(), klieg.get(klieg.put(1)), klieg.is_initialized())
    """
    assert programs.run(program) == ("False 1 True\n", "", 0)


def test_a_program_that_ends_with_calls_running_ends_quickly_and_quietly(engine):
    program = f"""
    import klieg, threading
    klieg.init(engine={engine!r})

    @klieg.remote
    class Actor:
        async def wait(self):
            import asyncio
            await asyncio.Event().wait()

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    refs = [actor.wait.remote() for _ in range(100)]
    print(klieg.get(actor.ping.remote()))
    """
    started = time.monotonic()
    assert programs.run(program) == ("pong\n", "", 0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("os._exit(4)", 4), ("raise ValueError('uncaught')", 1)],
)
def test_any_end_of_the_program_leaves_nothing(engine, end, code):
    program = f"""
    import klieg, os, sys
    klieg.init(engine={engine!r})

    @klieg.remote
    class Actor:
        def ping(self):
            return "pong"

    actor = Actor.remote()
    klieg.get(actor.ping.remote())
    {end}
    """
    output, errors, found = programs.run(program)
    assert (output, found) == ("", code)
    assert ("uncaught" in errors) == ("uncaught" in end)
    assert programs.left_after(2) == []


HELD = """
import klieg, os, sys, threading, time
klieg.init(engine="local", num_cpus=2)

@klieg.remote
class Actor:
    async def wait(self):
        import asyncio
        await asyncio.Event().wait()

    async def pid(self):
        return os.getpid()

@klieg.remote
def block():
    time.sleep(60)

actor = Actor.remote()
refs = [actor.wait.remote() for _ in range(20)] + [block.remote()]
print(klieg.get(actor.pid.remote()), flush=True)
"""


@pytest.mark.needs_process("inline there are no processes to leave behind")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_driver_that_is_killed_leaves_nothing(number):
    with programs.running(HELD + "klieg.get(refs)") as process:
        programs.read_line(process)
        process.send_signal(number)
        assert process.wait(programs.PATIENCE) == -number
        assert programs.left_after(2) == []


@pytest.mark.needs_process("inline there are no processes to leave behind")
def test_a_driver_that_is_killed_while_it_starts_leaves_nothing():
    program = "import klieg\nprint('starts', flush=True)\nklieg.init()\nimport time\ntime.sleep(60)"
    with programs.running(program) as process:
        programs.read_line(process)
        process.kill()
        process.wait(programs.PATIENCE)
        assert programs.left_after(2) == []


INTERRUPTED = """
import asyncio, klieg, os, time
klieg.init(engine={engine!r}, num_cpus=2)

@klieg.remote
class Actor:
    def __init__(self):
        self.door = asyncio.Event()

    async def wait(self):
        await self.door.wait()
        return "value"

    async def open(self):
        self.door.set()

actor = Actor.remote()
ref = actor.wait.remote()

async def main():
    print("waits", flush=True)
    await ref

def wait_by_get():
    print("waits", flush=True)
    klieg.get(ref)

def wait_by_wait():
    print("waits", flush=True)
    klieg.wait([ref])

try:
    {wait}
except KeyboardInterrupt:
    print("interrupted", time.monotonic(), flush=True)
actor.open.remote()
print(klieg.get(ref), flush=True)
"""


@pytest.mark.parametrize("wait", ["wait_by_get()", "wait_by_wait()", "asyncio.run(main())"])
def test_ctrl_c_ends_the_wait_at_once_and_the_ref_stays_good(engine, wait):
    program = INTERRUPTED.format(engine=engine, wait=wait)
    with programs.running(program) as process:
        assert programs.read_line(process) == "waits"
        time.sleep(0.05)  # until it does; there is no event for being asleep
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        word, at = programs.read_line(process).split()
        assert word == "interrupted"
        assert float(at) - sent < 0.3
        output, errors, code = programs.finish(process)
        assert (output, errors, code) == ("value\n", "", 0)


@pytest.mark.needs_process("inline there are no workers")
def test_ctrl_c_at_the_terminal_does_not_reach_the_workers():
    program = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n" + HELD
    program += "input()\nprint(klieg.get(actor.pid.remote()), flush=True)"
    with programs.running(program, process_group=0) as process:
        pid = programs.read_line(process)
        os.killpg(process.pid, signal.SIGINT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert programs.read_line(process) == pid


@pytest.mark.needs_process("inline there is one stdout")
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["", "unbuffered"])
def test_prints_of_workers_reach_the_drivers_output_whole(variables):
    program = """
    import klieg, sys
    klieg.init(engine="local", num_cpus=2)

    @klieg.remote
    class Actor:
        def __init__(self):
            print("made")

        def talk(self, x):
            print("line", x, "α" * 200)
            print("wrong", x, file=sys.stderr)

    @klieg.remote
    def task(x):
        print("task", x)

    actor = Actor.remote()
    klieg.get([actor.talk.remote(i) for i in range(50)] + [task.remote(i) for i in range(5)])
    """
    output, errors, code = programs.run(program, env=programs.environment(**variables))
    expected = [
        "made",
        *(f"line {i} {'α' * 200}" for i in range(50)),
        *(f"task {i}" for i in range(5)),
    ]
    assert sorted(output.splitlines()) == sorted(expected)
    assert errors.splitlines() == [f"wrong {i}" for i in range(50)]
    assert code == 0


@pytest.mark.needs_process("inline there is one stdout")
def test_a_print_is_there_before_the_result():
    program = """
    import klieg
    klieg.init(engine="local")

    @klieg.remote
    def talk(x):
        print("said", x)

    for i in range(20):
        klieg.get(talk.remote(i))
        print("got", i, flush=True)
    """
    output, _, _ = programs.run(program)
    assert output.split("\n")[:-1] == [f"{word} {i}" for i in range(20) for word in ("said", "got")]


@pytest.mark.needs_process("inline there is one stdout")
def test_output_of_workers_can_be_silenced():
    program = """
    import klieg
    klieg.init(engine="local", log_to_driver=False)
    klieg.get(klieg.remote(lambda: print("said")).remote())
    """
    assert programs.run(program) == ("", "", 0)


@pytest.mark.needs_process("inline there is one stdout")
def test_a_flood_of_output_is_no_deadlock():
    program = """
    import klieg
    klieg.init(engine="local")
    klieg.get(klieg.remote(lambda: print("x" * 1_000_000)).remote())
    """
    output, errors, code = programs.run(program)
    assert (len(output), errors, code) == (1_000_001, "", 0)


def test_an_error_nobody_read_is_reported_once(engine):
    program = f"""
    import klieg
    klieg.init(engine={engine!r})

    @klieg.remote
    def fail():
        raise ValueError("nobody reads this")

    @klieg.remote
    def ping():
        return 1

    ref = fail.remote()
    klieg.wait([ref])
    del ref
    klieg.get([ping.remote() for _ in range(10)])
    """
    output, errors, code = programs.run(program)
    assert errors.count("ValueError: nobody reads this") == 1
    assert (output, code) == ("", 0)


def test_an_error_that_was_read_is_not_reported(engine):
    program = f"""
    import klieg
    klieg.init(engine={engine!r})

    @klieg.remote
    def fail():
        raise ValueError("somebody reads this")

    try:
        klieg.get(fail.remote())
    except ValueError:
        print("read")
    """
    assert programs.run(program) == ("read\n", "", 0)


def test_a_fork_of_the_driver_may_not_use_the_runtime(engine):
    program = f"""
    import klieg, os
    klieg.init(engine={engine!r})
    ref = klieg.put(1)
    pid = os.fork()
    if pid == 0:
        try:
            klieg.get(klieg.remote(lambda: 1).remote(), timeout=5)
            print("worked", flush=True)
        except RuntimeError as error:
            print("forked" in str(error), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(klieg.get(klieg.remote(lambda: 2).remote()))
    """
    assert programs.run(program)[0] == "True\n2\n"


def test_the_exit_of_a_forked_child_leaves_the_parents_runtime_alone(engine):
    program = f"""
    import klieg, os, sys
    klieg.init(engine={engine!r})
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    print(klieg.get(klieg.remote(lambda: 2).remote()))
    """
    assert programs.run(program)[0] == "2\n"


def test_top_level_await_works(engine):
    program = f"""
    import klieg
    klieg.init(engine={engine!r})
    f = klieg.remote(lambda: 42)
    print(await f.remote())
    klieg.shutdown()
    """
    import textwrap

    result = subprocess.run(
        [sys.executable, "-q", "-m", "asyncio"],
        input=textwrap.dedent(program),
        capture_output=True,
        text=True,
        timeout=programs.PATIENCE,
        env=programs.environment(),
    )
    assert "42\n" in result.stdout
    assert "Error" not in result.stderr


def test_importing_klieg_starts_nothing():
    program = "import klieg, threading, os\nprint(threading.active_count(), klieg.is_initialized())"
    assert programs.run(program) == ("1 False\n", "", 0)
    assert leaks.runtime_processes() == []


def test_a_handler_that_the_user_installed_is_kept(engine):
    program = f"""
    import klieg, signal
    mine = lambda *_: None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, mine)
    klieg.init(engine={engine!r})
    klieg.get(klieg.put(1))
    klieg.shutdown()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    print([signal.getsignal(n) is mine for n in numbers])
    """
    assert programs.run(program) == ("[True, True, True]\n", "", 0)


def test_the_exception_of_a_signal_handler_ends_a_get(engine):
    program = f"""
    import asyncio, klieg, signal
    klieg.init(engine={engine!r})

    @klieg.remote
    class Actor:
        async def wait(self):
            await asyncio.Event().wait()

    def alarm(*_):
        raise LookupError("mine")

    signal.signal(signal.SIGALRM, alarm)
    actor = Actor.remote()
    ref = actor.wait.remote()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        klieg.get(ref)
    except LookupError as error:
        print("raised", error)
    """
    assert programs.run(program) == ("raised mine\n", "", 0)
