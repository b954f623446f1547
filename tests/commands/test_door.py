"""The door through which commands look in: private, JSON only, bounded, and gone when the runtime is."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import gates
import leaks
import pytest
from outside import command, doors, wait_for_door

import klieg
from klieg.engines import rundir, visit


@pytest.fixture
def runtime(nothing_leaks):
    klieg.init(num_cpus=1)
    assert wait_for_door(os.getpid())
    yield visit.choose(os.getpid())[0]
    klieg.shutdown()


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    rundir.connect(sock, path)
    sock.settimeout(10)
    return sock


def is_well(path: str) -> bool:
    return bool(visit.ask(path, {"want": "about"})["pid"] == os.getpid()) and klieg.get(klieg.put(1)) == 1


def test_folder_and_socket_are_this_users_alone(runtime):
    folder, sock = os.lstat(runtime), os.lstat(f"{runtime}/{rundir.DOOR}")
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, os.geteuid())
    assert (stat.S_IMODE(sock.st_mode), sock.st_uid) == (0o600, os.geteuid())
    assert os.listdir(runtime) == [rundir.DOOR]


@pytest.mark.parametrize("umask", ["000", "077"])
def test_the_umask_changes_nothing(tmp_path, umask):
    program = (
        f"import os; os.umask(0o{umask}); import klieg, sys; klieg.init(num_cpus=1); print('ready', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert gates.soon(lambda: list(tmp_path.glob("klieg-*/door")))
        (sock,) = tmp_path.glob("klieg-*/door")
        assert stat.S_IMODE(sock.lstat().st_mode) == 0o600
        assert stat.S_IMODE(sock.parent.lstat().st_mode) == 0o700
        process.communicate()


def test_it_is_gone_after_shutdown(runtime):
    klieg.shutdown()
    assert runtime not in doors()
    assert not os.path.exists(runtime)


def test_it_is_gone_after_the_driver_was_killed(live):
    (path,) = [path for path, about in visit.running() if about["pid"] == live.pid]
    live.kill()
    assert gates.soon(lambda: not os.path.exists(path))


def test_it_is_gone_after_shutdown_though_the_head_was_killed(runtime):
    os.kill(visit.choose(os.getpid())[1]["head_pid"], signal.SIGKILL)
    klieg.shutdown()
    assert not os.path.exists(runtime)


def test_what_a_killed_head_and_driver_leave_behind_is_removed_by_the_next_runtime(live, runtime):
    path, about = visit.choose(live.pid)
    os.kill(about["head_pid"], signal.SIGKILL)
    live.kill()
    assert os.path.exists(path)
    klieg.shutdown()
    klieg.init(num_cpus=1)
    assert gates.soon(lambda: not os.path.exists(path))


def test_a_folder_whose_runtime_is_stopped_is_left_alone(live, runtime):
    path, about = visit.choose(live.pid)
    os.kill(about["head_pid"], signal.SIGSTOP)
    try:
        rundir.remove_dead()
        assert os.path.exists(f"{path}/{rundir.DOOR}")
    finally:
        os.kill(about["head_pid"], signal.SIGCONT)


def test_tidying_up_follows_no_link_and_removes_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("KLIEG_TMPDIR", str(tmp_path))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / rundir.DOOR).write_text("precious")
    os.symlink(victim, tmp_path / f"{rundir.prefix()}link")
    inside = tmp_path / f"{rundir.prefix()}dir"
    inside.mkdir(0o700)
    (inside / "precious").write_text("precious")
    os.symlink(victim / rundir.DOOR, inside / rundir.DOOR)
    old = time.time() - 1000
    os.utime(inside, (old, old))
    rundir.remove_dead()
    rundir.remove(str(tmp_path / f"{rundir.prefix()}link"))
    assert (victim / rundir.DOOR).read_text() == "precious"
    assert (inside / "precious").read_text() == "precious"
    assert (tmp_path / f"{rundir.prefix()}link").is_symlink()


@pytest.mark.parametrize("what", ["a link", "another's", "open to others", "a file"])
def test_a_folder_that_is_not_private_is_not_trusted(tmp_path, what):
    path = tmp_path / "folder"
    path.mkdir(0o700)
    if what == "a link":
        os.symlink(path, tmp_path / "link")
        path = tmp_path / "link"
    elif what == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(path, 65534, -1)
    elif what == "open to others":
        path.chmod(0o755)
    else:
        path = tmp_path / "file"
        path.touch(0o700)
    assert not rundir.is_private(str(path))


def test_the_folder_of_the_session_is_used_only_if_it_is_private(tmp_path, monkeypatch):
    monkeypatch.delenv("KLIEG_TMPDIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    assert rundir.parents()[0] == str(tmp_path)
    tmp_path.chmod(0o750)
    assert str(tmp_path) not in rundir.parents()


def test_a_path_too_long_for_a_socket_will_do(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("KLIEG_TMPDIR", str(deep))
    klieg.init(num_cpus=1)
    try:
        assert wait_for_door(os.getpid())
        assert str(deep) in visit.choose(os.getpid())[0]
    finally:
        klieg.shutdown()


def test_where_no_folder_can_be_made_the_runtime_works_without(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "no"))
    monkeypatch.setenv("KLIEG_TMPDIR", str(tmp_path / "no"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    klieg.init(num_cpus=1)
    try:
        assert klieg.get(klieg.remote(lambda: 1).remote()) == 1
    finally:
        klieg.shutdown()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("runuser"), reason="needs root, and runuser, to be another user"
)
@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened on purpose"])
def test_another_user_does_not_get_in(runtime, opened):
    if opened:  # even then: the kernel says who it is, before a byte is read
        os.chmod(runtime, 0o755)
        os.chmod(f"{runtime}/{rundir.DOOR}", 0o666)
        for parent in Path(runtime).parents:
            if parent != Path("/"):
                os.chmod(parent, os.stat(parent).st_mode | 0o111)
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
        f"try: s.connect({f'{runtime}/{rundir.DOOR}'!r})\n"
        "except PermissionError: print('refused')\n"
        "else:\n"
        '  try: s.sendall(b\'{"want": "about"}\\n\'); print(s.recv(100))\n'
        "  except (BrokenPipeError, ConnectionResetError): print(b'')\n"
    )
    seen = subprocess.run(
        ["runuser", "-u", "nobody", "--", "/usr/bin/env", "python3", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert seen.stdout.strip() in (("b''",) if opened else ("refused",)), seen.stderr
    assert is_well(runtime)


def test_no_byte_of_a_visitor_is_unpickled(runtime, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    with connected(runtime) as sock:
        sock.sendall(pickle.dumps(Evil()).replace(b"\n", b"") + b"\n")
        assert "error" in json.loads(sock.makefile().readline())
    assert not (tmp_path / "owned").exists()
    assert is_well(runtime)


@pytest.mark.parametrize(
    "question",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"want": "nonsense"}\n',
        b'{"want": "table", "of": "__class__"}\n',
        b'{"want": "survey", "question": "nonsense"}\n',
        b'{"want": "survey", "question": "calls", "timeout": "soon"}\n',
        b'{"want": "kill_actor"}\n',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
    ],
)
def test_a_bad_question_gets_an_error_and_harms_nobody(runtime, question):
    with connected(runtime) as sock:
        sock.sendall(question)
        assert "error" in json.loads(sock.makefile().readline())
    assert is_well(runtime)


def test_a_question_that_never_ends_is_cut_off(runtime):
    with connected(runtime) as sock, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            sock.sendall(b"x" * 65536)
    assert is_well(runtime)


def test_silent_visitors_are_sent_away_and_others_get_in(runtime):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(runtime)) for _ in range(64)]
        assert gates.soon(lambda: sum(_is_closed(sock) for sock in silent) >= 48)  # too many at once
        assert gates.soon(lambda: all(_is_closed(sock) for sock in silent))  # too slow
        assert is_well(runtime)


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_visitor_that_hangs_up_harms_nobody(runtime):
    for question in (b"", b"{", b'{"want": "survey", "question": "calls", "timeout": 1}\n'):
        with connected(runtime) as sock:
            sock.sendall(question)
    assert is_well(runtime)


def test_values_and_variables_do_not_show(live):
    live.do("import os; os.environ['SECRET'] = 'canary-in-the-environment'")
    live.do("held = [work.options(runtime_env={'env_vars': {'A': 'x'}}).remote('/dev/null-canary-argument')]")
    everything = "".join(
        command(*verb, "--format", "json")[0]
        for verb in (["status"], ["list", "actors"], ["list", "tasks"], ["list", "workers"], ["list", "jobs"])
    )
    assert "canary-argument" not in everything
    assert "canary-in-the-environment" not in everything


def test_the_runtime_listens_on_no_network(runtime):
    inodes = {
        os.readlink(f"/proc/{pid}/fd/{fd}")
        for pid in [os.getpid(), *leaks.runtime_processes()]
        for fd in os.listdir(f"/proc/{pid}/fd")
        if os.path.islink(f"/proc/{pid}/fd/{fd}")
    }
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        assert [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes] == []
    names = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    assert not [name for name in names if name.startswith("@") and "klieg" in name]
