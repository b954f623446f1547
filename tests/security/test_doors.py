"""S1-S6, S10, S19-S21: one private door, and nobody else can reach or read anything. tests/commands tries the door."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import gates
import kernel
import nobody
import programs
import pytest

import klieg
from klieg.engines import rundir
from klieg.engines.local.connection import Link
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.wire import frame

SOURCES = Path(klieg.__file__).parent

AT_WORK = """
import klieg, numpy, os, sys
os.umask(0)
klieg.init(num_cpus=2, object_store_memory=64 << 20)

@klieg.remote
class Keeper:
    def keep(self, value):
        self.value = value

values = [klieg.put(numpy.zeros(8 << 20, dtype=numpy.uint8)) for _ in range(16)]
keeper = Keeper.remote()
klieg.get([keeper.keep.remote(values[0]), klieg.remote(lambda: 1).remote()])
print("now", flush=True)
sys.stdin.readline()
"""
"""A driver with files open to everybody, more in its store than memory may hold, and a borrower."""


def test_s1_no_process_has_a_socket_of_a_network(runtime):
    assert kernel.sockets(runtime.pids) & kernel.internet_sockets() == set()


def named(pids):
    """The names of the sockets of these processes."""
    table = kernel.unix_sockets()
    return {table[inode][1] for inode in kernel.sockets(pids) & table.keys()} - {""}


def test_s2_no_socket_has_a_name_but_the_door_and_that_is_no_abstract_one(runtime):
    door = f"{kernel.run_folder(os.getpid())}/{rundir.DOOR}"
    assert named(runtime.pids) <= {door, f"{os.path.dirname(door)}/.{rundir.DOOR}"}
    assert named(runtime.workers) == set()


def test_s3_the_run_directory_is_private_even_with_an_umask_of_zero_and_goes_with_the_runtime(tmp_path):
    folders = {name: tmp_path / name for name in ("TMPDIR", "XDG_RUNTIME_DIR", "HOME")}
    for folder in folders.values():
        folder.mkdir(mode=0o755)  # which is no XDG_RUNTIME_DIR to be used
    variables = {name: str(folder) for name, folder in folders.items()}
    with programs.running(AT_WORK, env=programs.environment(**variables), cwd=tmp_path) as process:
        assert programs.read_line(process) == "now"
        assert gates.soon(lambda: list(folders["TMPDIR"].glob("*/door")))
        (folder,) = (path for parent in folders.values() for path in parent.iterdir())
        assert folder.parent == folders["TMPDIR"]
        assert [stat.S_IMODE(path.lstat().st_mode) for path in (folder, folder / "door")] == [0o700, 0o600]
        programs.finish(process)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(folders)


def test_s4_a_file_that_stands_for_memory_has_no_name_and_is_for_nobody_else(tmp_path):
    variables = programs.environment(TMPDIR=str(tmp_path), KLIEG_STORE_DIR=str(tmp_path))
    with programs.running(AT_WORK, env=variables) as process:
        assert programs.read_line(process) == "now"
        files = {fd: to for fd, to in kernel.open_files(process.pid).items() if to.startswith(str(tmp_path))}
        modes = [stat.S_IMODE(os.stat(f"/proc/{process.pid}/fd/{fd}").st_mode) for fd in files]
        links = [os.stat(f"/proc/{process.pid}/fd/{fd}").st_nlink for fd in files]
    assert len(files) >= 2  # those in memory, and those that were moved to disk
    assert set(modes) == {0o600}
    assert set(links) == {0}


OTHER_USER = """
import os, sys
pid, fds = int(sys.argv[1]), sys.argv[2].split(",")
tried = {
    "environ": lambda: open(f"/proc/{pid}/environ", "rb").read(),
    "mem": lambda: open(f"/proc/{pid}/mem", "rb"),
    "maps": lambda: open(f"/proc/{pid}/maps").read(),
    "fd": lambda: os.listdir(f"/proc/{pid}/fd"),
    "signal": lambda: os.kill(pid, 0),
    **{f"fd {fd}": (lambda fd=fd: open(f"/proc/{pid}/fd/{fd}", "rb")) for fd in fds},
}
for what, attempt in tried.items():
    try:
        attempt()
        print("COULD", what)
    except PermissionError:
        print("refused")
"""


def test_s5_another_user_can_neither_read_nor_signal_any_process(runtime):
    for pid in (runtime.head, *runtime.workers):
        fds = list(kernel.open_files(pid))
        output, errors, code = nobody.run(OTHER_USER, str(pid), ",".join(map(str, fds)))
        assert (output.splitlines(), errors, code) == (["refused"] * (5 + len(fds)), "", 0)


def inherited_by_a_child():
    """What a program that a task starts, keeping all it may, has of the runtime's."""
    listing = (
        "import os; paths = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')];"
        "print([os.readlink(path) for path in paths if os.path.lexists(path)])"
    )
    done = subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True, text=True, check=True)
    return [target for target in ast.literal_eval(done.stdout) if target.startswith(("socket:", "/memfd:"))]


def test_s6_a_stranger_of_the_same_user_finds_the_door_and_is_given_no_end_of_a_connection(runtime):
    table = kernel.unix_sockets()
    listening = {inode for inode, (flags, _) in table.items() if flags & kernel.LISTENS}
    assert len(kernel.sockets(runtime.pids) & listening) == 1
    assert len(kernel.sockets([runtime.head]) & listening) == 1
    assert inherited_by_a_child() == []
    assert klieg.get(klieg.remote(inherited_by_a_child).remote()) == []


def test_s10_a_peer_that_sends_byte_by_byte_keeps_nobody_waiting_and_no_memory():
    reactor = Reactor(monitored=False)
    came = []
    (slow, slow_end), (quick, quick_end) = kernel.pair(), kernel.pair()
    links = [Link(reactor, end, came.extend, lambda why: None) for end in (slow_end, quick_end)]
    for byte in frame(1, 2, bytes(1000))[:900]:
        slow.send(bytes([byte]))
        reactor.poll()
    quick.send(frame(1, 7, b"quick"))
    reactor.block(lambda: bool(came))
    assert came == [(1, 7, b"quick")]
    for link in links:
        link.close()
    slow.close()
    quick.close()
    reactor.close()


SERVERS = ("http.server", "socketserver", "wsgiref", "xmlrpc.server", "aiohttp.web", "uvicorn", "flask")


def loaded_servers():
    return [name for name in SERVERS if name in sys.modules]


def test_s19_no_worker_loads_a_server(runtime):
    assert klieg.get(klieg.remote(loaded_servers).remote()) == []


def test_s19_there_is_no_dashboard_whatever_a_program_for_ray_asks_for():
    program = f"""
    import klieg, os, sys
    klieg.init(num_cpus=1, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=8265)
    klieg.get(klieg.remote(lambda: 1).remote())
    print([name for name in {SERVERS!r} if name in sys.modules], flush=True)
    sys.stdin.readline()
    """
    with programs.running(program) as process:
        assert programs.read_line(process) == "[]"
        assert kernel.sockets([process.pid, *kernel.runtime_of(process.pid)]) & kernel.internet_sockets() == set()


def test_s20_no_page_is_made_so_that_none_can_carry_a_script():
    pages = [
        path.name for path in SOURCES.rglob("*.py") if any(mark in path.read_text() for mark in ("<html", "<body"))
    ]
    assert pages == []


@pytest.mark.parametrize("path", sorted((SOURCES / "engines" / "local" / "head").glob("*.py")), ids=lambda p: p.stem)
def test_s21_no_message_has_the_head_open_a_file_or_run_a_command(path):
    risky = {"open", "exec", "eval", "compile", "__import__", "Popen", "run_path", "system", "execv", "execve", "popen"}
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    called = {func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in calls}
    assert called & risky == set()
