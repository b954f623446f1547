"""S7-S9, S11-S18, S22-S25: what comes from elsewhere is not trusted, and what is ours is not shown or overwritten."""

import ast
import ctypes
import errno
import fcntl
import logging
import os
import pickle
import secrets
import sys
import tracemalloc
import types
import zipfile
from pathlib import Path

import kernel
import numpy
import programs
import pytest
import victims

import klieg
from klieg.engines.local.connection import Link
from klieg.engines.local.output import OwnWarnings
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.store import memory
from klieg.engines.local.store.foreign import Foreign, LostBuffer
from klieg.engines.local.wire import HEADER, Decoder, WireError
from klieg.exceptions import ActorDiedError, ObjectLostError

SOURCES = Path(klieg.__file__).parent
SECRET = "xyzzy-canary-0451"
MIB = 1 << 20


def imports_of(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", pickle.dumps(os.getpid) * 100])
def test_s7_of_what_is_no_frame_not_a_byte_is_unpickled(monkeypatch, garbage):
    unpickled, closed, reactor = [], [], Reactor(monitored=False)
    monkeypatch.setattr(pickle, "loads", lambda *args, **kwargs: unpickled.append(args))
    stranger, end = kernel.pair()
    Link(reactor, end, unpickled.extend, closed.append)
    stranger.send(garbage)
    stranger.close()
    reactor.block(lambda: bool(closed))
    reactor.close()
    assert unpickled == []


class Canary:
    """Tells where it was unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return tell, (self.path,)


def tell(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)
    return Canary(path)


def test_s8_the_head_unpickles_nothing(runtime, tmp_path):
    path = str(tmp_path / "unpickled")
    for kind in victims.KINDS:
        actor = victims.actor_class(kind, name=f"{kind} canary").remote()
        klieg.get([actor.echo.remote(Canary(path)), actor.keep.remote(klieg.put(Canary(path)))])
        klieg.get(klieg.get_actor(f"{kind} canary").ping.remote())
    klieg.get(klieg.remote(victims.echo).remote(Canary(path)))
    pids = set(map(int, Path(path).read_text().split()))
    assert len(pids) >= 4
    assert runtime.head not in pids


def test_s8_control_plane_and_wire_do_not_even_import_pickle():
    local = SOURCES / "engines" / "local"
    for path in [*(local / "head").glob("*.py"), local / "wire.py", local / "connection.py", local / "control.py"]:
        assert imports_of(path) & {"pickle", "cloudpickle", "marshal", "shelve"} == set(), path.name


def test_s9_there_is_no_key_to_be_read_in_arguments_or_environment(runtime):
    for pid in runtime.pids[1:]:
        added = kernel.environment(pid).keys() - os.environ.keys()
        assert added <= {"KLIEG_RUN_ID"}
        assert kernel.environment(pid)["KLIEG_RUN_ID"] not in kernel.arguments(pid)


def test_s9_the_run_id_opens_nothing_it_is_made_in_one_place_and_read_only_to_find_left_processes():
    local, testing = Path("engines", "local"), Path("testing")
    users = {path.relative_to(SOURCES) for path in SOURCES.rglob("*.py") if "KLIEG_RUN_ID" in path.read_text()}
    assert users == {local / "driver.py", local / "health.py", testing / "leaks.py"}


@pytest.mark.parametrize("length", [0, 8, (1 << 40) + 1, 1 << 63, (1 << 64) - 1])
def test_s11_a_length_that_cannot_be_ends_the_connection(length):
    with pytest.raises(WireError, match="was announced"):
        Decoder().feed(HEADER.pack(length, 1, 1))


def test_s11_a_large_length_takes_memory_only_as_its_bytes_come():
    decoder = Decoder()
    tracemalloc.start()
    decoder.feed(HEADER.pack(1 << 39, 1, 1) + bytes(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_s12_shared_memory_has_no_name(runtime):
    listed = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    klieg.get(runtime.actors[0].keep.remote(klieg.put(numpy.zeros(MIB))))
    stored = [target for target in kernel.open_files(os.getpid()).values() if target.startswith("/memfd:klieg ")]
    assert stored
    assert set(os.listdir("/dev/shm")) - listed == set()


def test_s13_the_memory_is_sealed_and_who_borrows_it_cannot_write_it(runtime):
    files = {fd: to for fd, to in kernel.open_files(os.getpid()).items() if to.startswith("/memfd:klieg ")}
    kept = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    assert [fcntl.fcntl(fd, fcntl.F_GET_SEALS) & kept for fd in files] == [kept] * len(files)
    large = [permissions for permissions, size in kernel.shared_mappings(runtime.workers[0]) if size > MIB // 2]
    assert large
    assert set(large) == {"r--s"}


def test_s13_a_value_that_lies_outside_of_its_memory_is_lost_and_not_read():
    foreign = Foreign(lambda block, loans: None, lambda number: None)
    segment = foreign.meet(1, memory.new_file(4096))
    for start, size in ((0, 4097), (4000, 100), (-8, 8), (1 << 62, 1), (8, -8)):
        described = {"block": 2, "segment": 1, "start": start, "size": size}
        lost = foreign.open(described, {1: segment})
        assert isinstance(lost, LostBuffer)
        with pytest.raises(ObjectLostError):
            lost.view()


def without_unnamed_files(open_file):
    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "a file system without unnamed files")
        return open_file(path, flags, *args, **kwargs)

    return refuse


@pytest.mark.parametrize("planted", ["link", "file", "dangling"])
def test_s14_a_name_that_somebody_has_guessed_and_planted_is_not_followed(monkeypatch, tmp_path, planted):
    victim, trap = tmp_path / "victim", tmp_path / ("klieg-" + "0" * 32)
    victim.write_text("precious")
    if planted == "file":
        trap.write_text("trap")
    else:
        trap.symlink_to(victim if planted == "link" else tmp_path / "nowhere")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    monkeypatch.setattr(os, "open", without_unnamed_files(os.open))
    with pytest.raises(FileExistsError):
        memory.new_file(4096, str(tmp_path))
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_s15_a_run_deletes_nothing_that_is_not_its_own(tmp_path):
    (tmp_path / "klieg-0").mkdir()
    (tmp_path / "klieg-0" / "kept").write_text("kept")
    (tmp_path / "klieg-link").symlink_to(tmp_path / "klieg-0")
    before = sorted(map(str, tmp_path.rglob("*")))
    program = """
    import klieg, numpy
    klieg.init(num_cpus=1, object_store_memory=64 << 20)
    values = [klieg.put(numpy.zeros(8 << 20, dtype=numpy.uint8)) for _ in range(16)]
    print(sum(int(klieg.get(value)[0]) for value in values))
    """
    variables = programs.environment(TMPDIR=str(tmp_path), KLIEG_STORE_DIR=str(tmp_path))
    assert programs.run(program, env=variables) == ("0\n", "", 0)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "ray://127.0.0.1:10001"])
def test_s16_no_second_driver_can_attach_so_that_there_is_no_token_to_lose(runtime, address):
    with pytest.raises((ConnectionError, RuntimeError)):
        klieg.init(address=address)
    output, errors, code = programs.run(f"import klieg; klieg.init(address={address!r})")
    assert (output, code) == ("", 1)
    assert "ConnectionError" in errors


def test_s17_a_name_cannot_pass_for_a_line_of_the_log_nor_steer_the_terminal():
    record = logging.LogRecord(
        "klieg", logging.WARNING, "", 0, "%s is full", ("a\n[ERROR] fake\x1b]0;owned\x07\r",), None
    )
    first, *others = OwnWarnings("Actor").format(record).split("\n")
    assert first.startswith("WARNING (Actor pid=")
    assert others == ["  [ERROR] fake\\x1b]0;owned\\x07\\r is full"]


def test_s18_no_argument_is_shown_by_warnings_dumps_or_errors():
    program = """
    import klieg, os, time
    klieg.init(num_cpus=2, loop_warning=0.05, stall_warning=0.1)
    secret = os.environ["CANARY"]

    @klieg.remote(max_concurrency=1)
    class Slow:
        async def hold(self, secret):
            time.sleep(0.3)

        async def die(self, secret):
            os._exit(1)

    slow = Slow.remote()
    refs = [slow.hold.remote(secret) for _ in range(3)]
    print(klieg.dump(), slow.stats())
    klieg.get(refs)
    try:
        klieg.get(slow.die.remote(secret))
    except klieg.exceptions.ActorDiedError as error:
        print(error)
    """
    output, errors, code = programs.run(program, env=programs.environment(CANARY=SECRET))
    assert code == 0
    assert "has held the event loop" in errors
    assert "exit code 1" in output
    assert SECRET not in output + errors


def test_s22_an_archive_of_modules_is_read_where_it_is_and_never_unpacked(runtime, tmp_path):
    archive = tmp_path / "inside" / "modules.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("in_the_archive.py", "def answer():\n    return 42\n")
        opened.writestr("../slipped.py", "raise SystemExit")

    @klieg.remote(runtime_env={"py_modules": [str(archive)]})
    def use():
        import in_the_archive

        return in_the_archive.answer()

    assert klieg.get(use.remote()) == 42
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "modules.zip"]


def test_s22_nothing_of_klieg_can_unpack_an_archive():
    for path in SOURCES.rglob("*.py"):
        assert imports_of(path) & {"zipfile", "tarfile"} == set(), path.name


def test_s23_no_variable_of_a_workers_environment_is_shown(runtime):
    actor = victims.actor_class("plain", runtime_env={"env_vars": {"TOKEN": SECRET}}).remote()
    klieg.get(actor.ping.remote())
    shown = [klieg.dump(), repr(klieg.nodes()), repr(actor), repr(actor.stats())]
    with pytest.raises(ActorDiedError) as caught:
        klieg.get(actor.die.remote("exit7"))
    assert SECRET not in "".join([*shown, str(caught.value)])


def test_s24_a_debugger_of_the_same_user_still_works_and_the_page_says_so(runtime):
    get_dumpable = 3  # PR_GET_DUMPABLE
    dumpable = klieg.remote(lambda: ctypes.CDLL(None).prctl(get_dumpable, 0, 0, 0, 0))
    assert klieg.get(dumpable.remote()) == 1
    page = Path(__file__).parents[2] / "docs" / "security.md"
    assert "anyone who can run code as your user" in page.read_text()


@pytest.fixture
def ray(monkeypatch):
    """Stands for Ray where only the way it is started matters: it notes that, and refuses."""
    module = types.ModuleType("ray")
    module.asked = {}

    def init(**asked):
        module.asked.update(asked)
        raise ConnectionError("there is no cluster")

    module.init = init
    module.is_initialized = lambda: False
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def test_s25_a_cluster_of_our_own_stays_on_loopback_without_a_dashboard(ray):
    with pytest.raises(ConnectionError):
        klieg.init("local", engine="ray")
    assert ray.asked["_node_ip_address"] == "127.0.0.1"
    assert ray.asked["include_dashboard"] is False
    assert "dashboard_host" not in ray.asked


@pytest.mark.parametrize(
    ("address", "warned"), [("127.0.0.1:6379", 0), ("ray://localhost:10001", 0), ("10.0.0.1:6379", 1)]
)
def test_s25_an_address_elsewhere_without_encryption_is_warned_of_and_no_token_is_shown(
    ray, monkeypatch, caplog, address, warned
):
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    with pytest.raises(ConnectionError):
        klieg.init(address, engine="ray")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
    assert SECRET not in caplog.text
    assert os.environ["RAY_AUTH_MODE"] == "token"
