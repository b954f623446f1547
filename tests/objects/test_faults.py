"""Faults of the object plane: no room, no memfd, no descriptors, processes killed at the worst moment."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gates
import leaks
import numpy as np
import pytest
import stored

import klieg
from klieg.exceptions import ObjectStoreFullError, WorkerCrashedError

MIB = 1 << 20


@klieg.remote
class Holder:
    def hold(self, *values: Any) -> list[int]:
        self.held = values
        return [int(value[0]) for value in values]

    def make(self, number: int) -> np.ndarray:
        return np.full(MIB, number, dtype=np.uint8)

    def again(self) -> list[int]:
        return [int(value[-1]) for value in self.held]


def run(program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; its prints are in `stdout`."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


# --- No memfd, little room ---


def test_files_of_a_directory_serve_where_there_is_no_memfd(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from klieg.engines.local.store import memory

    monkeypatch.setattr(memory, "_memfd", lambda: None)
    start()  # the driver's own memory is then a file; the workers are new processes and have memfd
    holder, ref = Holder.remote(), klieg.put(np.full(MIB, 7, dtype=np.uint8))
    assert "memfd" not in " ".join(_large_maps())
    assert klieg.get(holder.hold.remote(ref, np.full(MIB, 8, dtype=np.uint8))) == [7, 8]
    assert klieg.get(ref)[0] == 7


def _large_maps() -> list[str]:
    """Files of which more than a hundred MiB are mapped here."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    sizes = [(int(b, 16) - int(a, 16), *line[5:]) for line in lines for a, b in [line[0].split("-")]]
    return [str(path) for size, *path in sizes if size > 100 * MIB and path]


@pytest.fixture
def store_in(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`store_in(directory)` starts a runtime whose shared memory is files there."""

    def start_there(directory: Path, **settings: Any) -> Any:
        monkeypatch.setenv("KLIEG_STORE_DIR", os.fspath(directory))
        return start(**settings)

    return start_there


def test_shared_memory_in_a_directory_keeps_all_contracts(store_in: Callable[..., Any], tmp_path: Path) -> None:
    store_in(tmp_path)
    holder, ref = Holder.remote(), klieg.put(np.full(MIB, 1, dtype=np.uint8))
    made = holder.make.remote(2)
    assert klieg.get(holder.hold.remote(ref, made)) == [1, 2]
    first, second = klieg.get([ref, ref])
    assert first.ctypes.data == second.ctypes.data
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    assert list(tmp_path.iterdir()) == []
    del ref
    for number in range(5):
        klieg.put(np.full(MIB, number, dtype=np.uint8))
    assert (int(first[0]), klieg.get(holder.again.remote())) == (1, [1, 2])


PROGRAM_ON_A_SMALL_TMPFS = """
    import numpy as np, klieg, sys
    from klieg import engine
    from klieg.exceptions import ObjectStoreFullError
    MIB = 1 << 20
    klieg.init(num_cpus=2, object_store_memory=1 << 30)
    @klieg.remote
    class Holder:
        def hold(self, *values):
            self.held = values
            return [int(value.sum()) for value in values]
        def make(self, mib):
            return np.ones(mib * MIB, dtype=np.uint8)
    holder = Holder.remote()
    views = [klieg.get(klieg.put(np.ones(MIB, dtype=np.uint8))) for _ in range(6)]
    errors = 0
    for attempt in range(100):
        try:
            klieg.put(np.ones(4 * MIB, dtype=np.uint8))
        except ObjectStoreFullError as error:
            assert "no memory for it (No space left on device)" in str(error), error
            errors += 1
    try:
        klieg.get(holder.make.remote(4))
    except ObjectStoreFullError as error:
        errors += 1
    small = klieg.get(klieg.put(np.ones(MIB, dtype=np.uint8)))
    held = klieg.get(holder.hold.remote(*views, small))
    del views, small
    print(errors, held == [MIB] * 7)
    # Values that nobody looks at go to the disk instead, and come back.
    klieg.kill(holder)
    refs = [klieg.put(np.full(MIB, n, dtype=np.uint8)) for n in range(20)]
    print([int(value[0]) for value in klieg.get(refs)] == list(range(20)))
    klieg.shutdown()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
@pytest.mark.parametrize("place", ["/dev/shm without memfd", "a directory"])
def test_a_full_tmpfs_of_eight_mib_gives_a_hundred_clear_errors_and_no_signal(tmp_path: Path, place: str) -> None:
    where = "/dev/shm" if place == "/dev/shm without memfd" else os.fspath(tmp_path)
    program = textwrap.dedent(PROGRAM_ON_A_SMALL_TMPFS)
    script = f'mount -t tmpfs -o size=8m tmpfs {where} && exec {sys.executable} -c "$PROGRAM"'
    variables = {**os.environ, "PROGRAM": program, "KLIEG_STORE_DIR": where, "TMPDIR": os.environ["TMPDIR"]}
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["101 True", "True"]), done.stderr


def test_the_default_limit_fits_a_small_file_system(store_in: Callable[..., Any], tmp_path: Path) -> None:
    runtime = store_in(tmp_path)
    free = os.statvfs(tmp_path)
    assert runtime.store_usage()["limit"] <= free.f_bavail * free.f_frsize


PROGRAM_IN_A_CONTROL_GROUP = """
    import numpy as np, klieg
    from klieg import engine
    klieg.init(num_cpus=1)
    value, views, errors = np.ones(8 << 20, dtype=np.uint8), [], 0
    print(engine.current().store_usage()["limit"] <= 0.3 * (256 << 20))
    for attempt in range(20):
        try:
            views.append(klieg.get(klieg.put(value)))
        except klieg.exceptions.ObjectStoreFullError:
            errors += 1
    print(len(views), errors, klieg.cluster_resources()["memory"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a control group")
def test_the_store_stays_within_a_control_group_that_is_small() -> None:
    mount = Path("/sys/fs/cgroup/memory")
    if not os.access(mount, os.W_OK) or not (mount / "memory.limit_in_bytes").exists():
        pytest.skip("no writable memory control group here")
    group = mount / "klieg-objects-test"
    group.mkdir(exist_ok=True)
    try:
        (group / "memory.limit_in_bytes").write_text(str(256 * MIB))
        script = f'echo $$ > {group}/cgroup.procs && exec {sys.executable} -c "$PROGRAM"'
        variables = {**os.environ, "PROGRAM": textwrap.dedent(PROGRAM_IN_A_CONTROL_GROUP)}
        done = subprocess.run(["sh", "-c", script], env=variables, capture_output=True, text=True, timeout=60)
    finally:
        gates.soon(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()
    assert done.stdout.split("\n")[:2] == ["True", f"9 11 {float(256 * MIB)}"], done.stderr


# --- Descriptors ---


def test_ten_thousand_large_values_take_a_handful_of_descriptors(runtime: Any) -> None:
    value = np.zeros(100 * 1024, dtype=np.uint8)
    before = len(os.listdir("/proc/self/fd"))
    holder = Holder.remote()
    refs = [klieg.put(value) for _ in range(10_000)]
    views = klieg.get(refs[:1000])
    klieg.get(holder.hold.remote(*refs[:500]))
    results = klieg.get([holder.make.remote(1) for _ in range(100)])
    assert len(os.listdir("/proc/self/fd")) < before + 10
    assert len(views) + len(results) == 1100


def test_a_process_that_has_no_descriptor_left_gets_an_error_and_recovers(runtime: Any) -> None:
    @klieg.remote
    class Greedy:
        def take_all(self) -> None:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 128), hard))
            self.taken = []
            while True:
                try:
                    self.taken.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    return

        def give_back(self) -> None:
            for fd in self.taken:
                os.close(fd)

        def first(self, value: np.ndarray) -> int:
            return int(value[0])

    greedy, ref = Greedy.remote(), klieg.put(np.full(MIB, 5, dtype=np.uint8))
    assert klieg.get(greedy.first.remote(np.arange(3, 5))) == 3  # everything it needs is imported
    klieg.get(greedy.take_all.remote())
    with pytest.raises(klieg.exceptions.ObjectLostError, match="RLIMIT_NOFILE"):
        klieg.get(greedy.first.remote(ref))
    klieg.get(greedy.give_back.remote())
    assert klieg.get(greedy.first.remote(ref)) == 5


# --- Killed at the worst moment ---


def test_a_worker_that_dies_before_a_value_is_complete_leaves_no_trace_of_it(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLIEG_FAILPOINT", "store.unsealed=kill")
    start()

    @klieg.remote(max_retries=0)
    def make() -> np.ndarray:
        return np.ones(MIB)

    ref = make.remote()
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        klieg.get(ref)
    assert gates.soon(stored.nothing)


def test_a_put_that_is_interrupted_by_its_reader_gives_the_memory_back(runtime: Any) -> None:
    """An exception out of a signal handler ends the copy somewhere; whatever it had taken is free again."""
    value, interrupted = np.ones(200 * MIB, dtype=np.uint8), 0

    def interrupt(*_: Any) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for attempt in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.005 * attempt)
            try:
                klieg.put(value)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except InterruptedError:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert klieg.get(klieg.put(value)).sum() == value.nbytes
    assert gates.soon(stored.nothing)


def test_signals_all_the_time_do_not_keep_a_large_value_from_being_stored(runtime: Any) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        assert klieg.get(klieg.put(np.ones(100 * MIB, dtype=np.uint8))).sum() == 100 * MIB
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


PROGRAM_TO_KILL = """
    import numpy as np, klieg, os, sys, time
    klieg.init(num_cpus=2, object_store_memory=16 << 20)
    @klieg.remote
    class Holder:
        def hold(self, refs):
            self.mine = [klieg.put(np.ones(1 << 20, dtype=np.uint8)) for _ in range(10)]
            self.views = klieg.get(refs)
            return np.ones(1 << 20)
    holders = [Holder.remote() for _ in range(2)]
    refs = [klieg.put(np.ones(1 << 20, dtype=np.uint8)) for _ in range(30)]
    results = klieg.get([holder.hold.remote(refs[:2]) for holder in holders])
    print("ready", flush=True)
    time.sleep(60)
"""


def test_killing_everything_at_once_leaves_no_value_anywhere(tmp_path: Path) -> None:
    """The folder for commands stays, until the next runtime removes it: `tests/commands/test_door.py`."""
    values, door = tmp_path / "values", tmp_path / "door"
    values.mkdir()
    door.mkdir()
    variables = {**os.environ, "TMPDIR": os.fspath(values), "KLIEG_TMPDIR": os.fspath(door)}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM_TO_KILL)]
    before = set(leaks.marked_processes())
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        for pid in set(leaks.marked_processes()) - before:
            os.kill(pid, signal.SIGKILL)
        driver.wait()
    assert gates.soon(lambda: set(leaks.marked_processes()) <= before)
    assert list(values.iterdir()) == []
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("klieg")]


def test_memory_is_back_when_the_driver_alone_is_killed() -> None:
    """`Shmem` counts the whole machine's, so the values here are far larger than what others do meanwhile."""
    program = """
        import numpy as np, klieg, os, signal
        klieg.init(num_cpus=2)
        @klieg.remote
        def make():
            return np.ones(300 << 20, dtype=np.uint8)
        mine, theirs = klieg.put(np.ones(300 << 20, dtype=np.uint8)), klieg.get(make.remote())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    before = _shared_memory()
    assert run(program).returncode == -signal.SIGKILL
    assert gates.soon(lambda: _shared_memory() < before + 300 * MIB)


def _shared_memory() -> int:
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:")]
    return int(line.split()[1]) * 1024


def test_a_segment_cannot_be_truncated_behind_our_back(runtime: Any) -> None:
    view = klieg.get(klieg.put(np.ones(MIB, dtype=np.uint8)))
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    segments = [path for path in paths if "memfd:klieg" in _target(path)]
    assert len(segments) == 2  # to write here, to be read by others
    for path in segments:
        with pytest.raises(PermissionError):
            os.truncate(path, 0)
    assert view.sum() == MIB


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def test_a_store_that_is_full_because_of_a_memory_limit_of_the_process_gives_an_error() -> None:
    program = """
        import numpy as np, klieg, resource
        klieg.init(num_cpus=2)
        value = np.ones(64 << 20, dtype=np.uint8)
        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (32 << 20), resource.RLIM_INFINITY))
        try:
            klieg.put(value)
        except klieg.exceptions.ObjectStoreFullError as error:
            print("Cannot allocate memory" in str(error))
        print(klieg.get(klieg.put(np.ones(1 << 20, dtype=np.uint8))).sum())
    """
    done = run(program)
    assert done.stdout.split() == ["True", str(MIB)], done.stderr


def test_an_array_of_the_driver_can_be_read_after_the_interpreter_began_to_end() -> None:
    program = """
        import atexit, numpy as np, klieg
        klieg.init(num_cpus=1)
        view = klieg.get(klieg.put(np.ones(1 << 20)))
        class AtTheEnd:
            def __del__(self):
                print("at the end", view.sum())
        keep = AtTheEnd()
        atexit.register(lambda: print("at exit", view.sum()))
    """
    done = run(program)
    assert done.returncode == 0
    assert done.stdout.startswith("at exit 1048576.0")
    assert done.stderr == ""


def test_a_ledger_is_found_by_no_other_user_since_it_has_no_name(runtime: Any) -> None:
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("klieg")]
    assert ctypes.sizeof(ctypes.c_uint64) == 8
    with pytest.raises(ObjectStoreFullError):
        klieg.put(np.zeros(runtime.store_usage()["limit"] + 1, dtype=np.uint8))
