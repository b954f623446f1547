"""L and T22: odd ways to start, and odd surroundings; klieg works in them, or says at once what is wrong."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
import zipapp

import programs
import pytest

import klieg

WORKS = """
import klieg, os
klieg.init(num_cpus=2)

@klieg.remote
def square(x):
    return x * x

@klieg.remote
class Plain:
    def ping(self):
        return "plain"

@klieg.remote
class Async:
    async def ping(self):
        return "async"

plain, threaded, other = Plain.remote(), Plain.options(max_concurrency=2).remote(), Async.remote()
found = klieg.get([square.remote(3), plain.ping.remote(), threaded.ping.remote(), other.ping.remote()])
assert found == [9, "plain", "plain", "async"], found
klieg.shutdown()
"""

QUIET = ("works\n", "", 0)


def say_works(program=WORKS):
    return textwrap.dedent(program) + "\nprint('works')\n"


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1", "0 1 2"])
def test_it_works_with_standard_descriptors_closed(closed, tmp_path):
    done = tmp_path / "done"
    closing = " ".join(f"{n}{'<' if n == '0' else '>'}&-" for n in closed.split())
    program = f"{WORKS}\nopen({str(done)!r}, 'w').write('works')"
    subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, program],
        env=programs.environment(),
        timeout=programs.PATIENCE,
        check=True,
    )
    assert done.read_text() == "works"


def test_prints_of_workers_do_not_reach_connections_when_stdout_is_closed(tmp_path):
    done = tmp_path / "done"
    program = f"""
import klieg, os
klieg.init(num_cpus=1)

@klieg.remote
def talk():
    print("x" * 100_000)
    os.write(1, b"y" * 10_000)
    os.write(2, b"z" * 10_000)
    return os.read(0, 10)

assert klieg.get([talk.remote() for _ in range(5)]) == [b""] * 5
os.write(1, b"driver" * 1000)
assert klieg.get([talk.remote() for _ in range(5)]) == [b""] * 5
open({str(done)!r}, "w").write("works")
"""
    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program],
        env=programs.environment(),
        timeout=programs.PATIENCE,
        check=True,
    )
    assert done.read_text() == "works"


@pytest.mark.parametrize(
    "options", [("-O",), ("-OO",), ("-W", "error"), ("-X", "dev"), ("-B",), ("-u",), ("-s", "-E")], ids=" ".join
)
def test_it_works_under_pythons_options(options):
    if "-E" in options:  # then PYTHONPATH does not count, and the program must find klieg in the environment itself
        assert (
            subprocess.run(
                [sys.executable, *options, "-c", say_works()], capture_output=True, text=True, timeout=programs.PATIENCE
            ).stdout
            == "works\n"
        )
    else:
        assert programs.run(say_works(), *options) == QUIET


def test_it_works_in_isolated_mode():
    result = subprocess.run(
        [sys.executable, "-I", "-c", say_works()], capture_output=True, text=True, timeout=programs.PATIENCE
    )
    assert (result.stdout, result.stderr) == ("works\n", "")


def test_it_works_from_a_zipapp(tmp_path):
    source = tmp_path / "app"
    source.mkdir()
    (source / "helper.py").write_text("def triple(x):\n    return 3 * x\n")
    (source / "__main__.py").write_text(
        "import helper, klieg\nklieg.init(num_cpus=1)\nprint(klieg.get(klieg.remote(helper.triple).remote(3)))\n"
    )
    zipapp.create_archive(source, tmp_path / "app.pyz")
    result = subprocess.run(
        [sys.executable, tmp_path / "app.pyz"],
        capture_output=True, text=True, timeout=programs.PATIENCE, env=programs.environment(),
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("9\n", "")


def test_it_works_under_a_tracer():
    program = "import sys\nsys.settrace(lambda *_: None)\nimport threading\nthreading.settrace(lambda *_: None)\n"
    assert programs.run(program + say_works()) == QUIET


VARIABLES = {
    "no home": {"HOME": None},
    "locale C": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
    "hash seed": {"PYTHONHASHSEED": "7"},
    "long TMPDIR": {"TMPDIR": "{tmp}/" + "d" * 100 + "/" + "e" * 60},
    "missing TMPDIR": {"TMPDIR": "{tmp}/nowhere"},
    "no runtime dir": {"XDG_RUNTIME_DIR": "{tmp}/nowhere"},
    "no path": {"PATH": None},
    "dont write bytecode": {"PYTHONDONTWRITEBYTECODE": "1"},
    "unbuffered": {"PYTHONUNBUFFERED": "1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "faulthandler": {"PYTHONFAULTHANDLER": "1"},
    "asyncio debug": {"PYTHONASYNCIODEBUG": "1"},
    "malloc debug": {"PYTHONMALLOC": "debug"},
}


@pytest.mark.parametrize("case", VARIABLES)
def test_it_works_with_unusual_variables(case, tmp_path):
    variables = programs.environment()
    for key, value in VARIABLES[case].items():
        variables.pop(key, None)
        if value is not None:
            variables[key] = value.format(tmp=tmp_path)
            if key == "TMPDIR" and "missing" not in case:
                os.makedirs(variables[key])
    assert programs.run(say_works(), env=variables) == QUIET


@pytest.mark.parametrize(
    "before",
    [
        "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
        "import os; os.umask(0)",
        "import os; os.umask(0o777)",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {9, 19})",
        "import sys; sys.stdout = sys.stderr = None",
        "import sys, io; sys.stdout = io.StringIO()",
        "import sys; del sys.stdin",
        "import sys; sys.path[:] = [p for p in sys.path if 'site' in p or 'lib' in p or 'src' in p]",
        "import sys; sys.setrecursionlimit(150)",
        "import sys; sys.setswitchinterval(1e-6)",
        "import sys; sys.argv[:] = []",
        "import gc; gc.set_threshold(1, 1, 1)",
        "import gc; gc.disable()",
        "import os; os.setsid() if os.getpid() != os.getpgrp() else None",
        "import multiprocessing; multiprocessing.set_start_method('spawn')",
        "import resource; resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.RLIM_INFINITY))",
        "import threading; threading.stack_size(1 << 18)",
        "import warnings; warnings.simplefilter('error')",
        "import logging; logging.basicConfig(level=logging.DEBUG); logging.disable(logging.CRITICAL)",
        "import asyncio; asyncio.set_event_loop_policy(None)",
        "import time; time.time = lambda: 0.0",
        "import socket; socket.setdefaulttimeout(0.001)",
        "import decimal, locale; locale.setlocale(locale.LC_ALL, '')",
    ],
)
def test_it_works_after_what_a_program_may_have_done(before):
    program = f"import sys, os; out = os.dup(1)\n{before}\n{WORKS}\nos.write(out, b'works\\n')"
    output, errors, code = programs.run(program)
    assert (output, errors, code) == QUIET


def test_a_thousand_hertz_of_signals_disturb_nothing():
    program = f"""
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, .001, .001)
{WORKS.replace("klieg.shutdown()", "")}
assert klieg.get([square.remote(i) for i in range(2000)]) == [i * i for i in range(2000)]
assert klieg.get([other.ping.remote() for i in range(2000)]) == ["async"] * 2000
klieg.shutdown()
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    assert programs.run(say_works(program)) == QUIET


def test_init_in_another_thread_works():
    program = f"import threading\ndef run():\n{textwrap.indent(WORKS, '    ')}\n"
    program += "t = threading.Thread(target=run); t.start(); t.join()"
    assert programs.run(say_works(program)) == QUIET


@pytest.mark.parametrize("reap", ["os.waitpid(-1, os.WNOHANG)", "os.wait3(os.WNOHANG)"])
def test_a_program_that_reaps_every_child_is_no_trouble(reap):
    program = f"""
{WORKS.replace("klieg.shutdown()", "")}
import threading, signal
ended = []
def reap():
    while not ended:
        try:
            {reap}
        except ChildProcessError:
            pass
thread = threading.Thread(target=reap); thread.start()
assert klieg.get([square.remote(i) for i in range(100)])[3] == 9
klieg.shutdown()
ended.append(1); thread.join()
"""
    assert programs.run(say_works(program)) == QUIET


@pytest.mark.parametrize("name", ["types", "random", "socket", "json", "klieg", "cloudpickle", "asyncio", "site"])
def test_files_in_the_working_directory_do_not_stand_in_for_modules(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise ImportError('the wrong module')")
    script = tmp_path.parent / f"{tmp_path.name}-script.py"
    script.write_text(say_works())
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True,
        timeout=programs.PATIENCE, env=programs.environment(),
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("works\n", "")


MODULES = {
    "raises": ("raise ValueError('as it is imported')", "ValueError: as it is imported"),
    "exits": ("import sys; sys.exit(3)", "xit"),
    "exits hard": ("import os; os._exit(4)", "exit code 4"),
    "is missing": (None, "No module named"),
}


@pytest.mark.parametrize("kind", ["task", "actor"])
@pytest.mark.parametrize("case", MODULES)
def test_a_module_that_fails_only_in_the_worker_is_told(tmp_path, case, kind):
    source, says = MODULES[case]
    module = tmp_path / "trouble.py"
    module.write_text("def f():\n    return 1\nclass A:\n    def f(self):\n        return 1\n")
    program = f"""
import klieg, sys, os
sys.path.insert(0, {str(tmp_path)!r})
import trouble
if {source!r} is None:
    os.remove({str(module)!r})
else:
    open({str(module)!r}, "w").write({source!r})
sys.dont_write_bytecode = True
klieg.init(num_cpus=1)
try:
    if {kind!r} == "task":
        print(klieg.get(klieg.remote(trouble.f).options(max_retries=0).remote()))
    else:
        print(klieg.get(klieg.remote(trouble.A).remote().f.remote()))
except klieg.exceptions.RayError as error:
    print(error)
print(klieg.get(klieg.remote(lambda: "goes on").remote()))
"""
    output, _, code = programs.run(program, "-B")
    assert says in output
    assert output.endswith("goes on\n")
    assert code == 0


def test_a_module_that_talks_starts_threads_and_takes_its_time_is_fine(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import threading, time\nprint('imported')\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "time.sleep(0.5)\ndef f():\n    return 1\n"
    )
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport klieg\nklieg.init(num_cpus=1)\n"
    program += "def g():\n    import slow\n    return slow.f()\nprint(klieg.get(klieg.remote(g).remote()))"
    output, errors, code = programs.run(program)
    assert (sorted(output.splitlines()), errors, code) == (["1", "imported"], "", 0)


def test_a_worker_can_read_no_input_of_the_drivers():
    program = """
    import klieg, subprocess
    klieg.init(num_cpus=1)

    @klieg.remote
    def ask():
        try:
            return input()
        except EOFError:
            return subprocess.run(["cat"], capture_output=True, text=True).stdout or "nothing"

    print(klieg.get(ask.remote()), input())
    """
    process = programs.start(program)
    with process:
        output, errors = process.communicate("for the driver\n", timeout=programs.PATIENCE)
    assert (output, errors) == ("nothing for the driver\n", "")


def test_output_to_a_pipe_that_does_not_block_is_not_lost():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    program = """
    import klieg
    klieg.init(num_cpus=1, log_to_driver=True)
    klieg.get(klieg.remote(lambda: print("x" * 1_000_000)).remote())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=writing, env=programs.environment()
    )
    os.close(writing)
    with process:
        count = 0
        while data := os.read(reading, 65536):
            count += len(data)
            time.sleep(0.001)  # a slow reader is the point
        process.wait(programs.PATIENCE)
    os.close(reading)
    assert count == 1_000_001


def test_output_that_nobody_reads_ends_nothing():
    program = """
    import klieg, os, signal
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    klieg.init(num_cpus=1)
    talk = klieg.remote(lambda: print("x" * 1_000_000))
    klieg.get([talk.remote() for _ in range(3)])
    os.write(2, b"works")
    """
    with programs.start(program) as process:
        process.stdout.close()
        assert process.stderr.read() == "works"


def test_a_driver_without_a_terminal_outlives_a_hang_up():
    program = f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
{WORKS.replace("klieg.shutdown()", "")}
os.kill(os.getpid(), signal.SIGHUP)
os.killpg(0, signal.SIGHUP)
assert klieg.get(square.remote(3)) == 9
"""
    assert programs.run(say_works(program), start_new_session=True) == QUIET


def test_a_daemon_that_forks_twice_before_init_works(tmp_path):
    done = tmp_path / "done"
    program = f"""
import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
{WORKS}
open({str(done)!r} + ".new", "w").write("works")
os.rename({str(done)!r} + ".new", {str(done)!r})
"""
    assert programs.run(program)[2] == 0
    deadline = time.monotonic() + programs.PATIENCE
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done.read_text() == "works"
    assert programs.left_after(2) == []


def test_a_repl_with_redefined_classes_sends_the_newest():
    lines = """
import klieg
ctx = klieg.init(num_cpus=1)
@klieg.remote
class A:
    def f(self):
        return "first"

a = A.remote()
klieg.get(a.f.remote())
@klieg.remote
class A:
    def f(self):
        return "second"

b = A.remote()
print(klieg.get([a.f.remote(), b.f.remote()]))
klieg.shutdown()
"""
    result = subprocess.run(
        [sys.executable, "-i", "-q"], input=lines, capture_output=True, text=True,
        timeout=programs.PATIENCE, env=programs.environment(),
    )  # fmt: skip
    assert "['first', 'second']" in result.stdout
    assert "Error" not in result.stderr


def test_it_works_on_a_terminal_of_its_own():
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", say_works()], programs.environment())
    output = b""
    try:
        while data := os.read(terminal, 1000):
            output += data
    except OSError:  # how the end of a terminal reads
        pass
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    assert output == b"works\r\n"


def test_chdir_after_init_and_paths_added_later_count(tmp_path):
    (tmp_path / "only_here.py").write_text("def f():\n    return 'found'\n")
    program = f"""
import klieg, os, sys
klieg.init(num_cpus=1)
klieg.get(klieg.remote(lambda: 1).remote())
os.chdir({str(tmp_path)!r})
sys.path.insert(0, {str(tmp_path)!r})
import only_here
print(klieg.get(klieg.remote(only_here.f).remote()))
"""
    assert programs.run(program) == ("found\n", "", 0)


def test_the_package_may_be_read_only(tmp_path):
    import shutil

    copy = tmp_path / "klieg"
    shutil.copytree(os.path.dirname(klieg.__file__), copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder, _, files in os.walk(copy, topdown=False):
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
        os.chmod(folder, 0o555)
    variables = programs.environment()
    variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{variables['PYTHONPATH']}"
    program = f"import klieg; assert klieg.__file__.startswith({str(tmp_path)!r})\n{say_works()}"
    user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
    del user  # root may write anywhere; that nothing is written shows in the list of files below
    before = sorted(os.listdir(copy))
    assert programs.run(program, "-B", env=variables) == QUIET
    assert sorted(os.listdir(copy)) == before
    for folder, _, _ in os.walk(copy):
        os.chmod(folder, 0o755)


def test_signals_of_the_terminal_reach_no_worker():
    program = f"""
{WORKS.replace("klieg.shutdown()", "")}
import signal
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
    signal.signal(number, signal.SIG_IGN)
    os.killpg(0, number)
assert klieg.get([plain.ping.remote(), other.ping.remote()]) == ["plain", "async"]
"""
    assert programs.run(say_works(program), start_new_session=True) == QUIET
    assert signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL
