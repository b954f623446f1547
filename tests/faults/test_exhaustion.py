"""J: no descriptors, processes, threads, memory, disk or room in pipes. A clear error, no spinning, and it recovers."""

import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import gates
import nobody
import processes
import programs
import pytest
import victims
from sizes import size

import klieg
from klieg.exceptions import KliegError, WorkerCrashedError

root = pytest.mark.skipif(os.getuid() != 0, reason="needs root: cgroups, mounts or another user")


def run(program, *before):
    """Run a program, perhaps under a command that limits it; its stdout."""
    result = subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=30, env=programs.environment(),
    )  # fmt: skip
    return result.stdout, result.stderr, result.returncode


FEW_DESCRIPTORS = """
import klieg, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))

@klieg.remote(num_cpus=0)
class Actor:
    def ping(self):
        return "pong"

klieg.init(num_cpus=2)
actors, error = [], None
for _ in range(200):
    try:
        actor = Actor.remote()
        assert klieg.get(actor.ping.remote(), timeout=10) == "pong"
        actors.append(actor)
    except Exception as caught:
        error = caught
        break
print(len(actors) > 3, type(error).__name__, "RLIMIT_NOFILE" in str(error), flush=True)
assert klieg.get([a.ping.remote() for a in actors], timeout=10) == ["pong"] * len(actors)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before < 0.1)
while len(actors) > 2:
    klieg.kill(actors.pop())
def again():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            return klieg.get(Actor.remote().ping.remote(), timeout=10)
        except Exception:
            time.sleep(0.05)
print(again(), klieg.get(klieg.remote(lambda: "task").remote(), timeout=10))
"""


@pytest.mark.parametrize("limit", [64, 128, 256])
def test_without_descriptors_a_new_actor_fails_clearly_and_the_others_go_on(limit):
    output, errors, code = run(FEW_DESCRIPTORS.format(limit=limit))
    lines = output.splitlines()
    assert lines[0].split()[0::2] == ["True", "True"], (output, errors)
    assert lines[1:] == ["True", "pong task"]
    assert code == 0


@pytest.mark.parametrize("limit", [3, 5, 8, 12])
def test_without_descriptors_for_the_runtime_init_says_so(limit):
    program = f"""
    import klieg, resource
    import klieg.engines.local.driver, json, asyncio
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
    try:
        klieg.init()
        print(klieg.get(klieg.remote(lambda: 1).remote(), timeout=10))
    except Exception as error:
        print("error:", type(error).__name__, error)
    """
    output, errors, code = run(program)
    assert output.startswith("error:"), (output, errors)
    assert "open files" in output or "RLIMIT_NOFILE" in output
    assert code == 0


def test_a_user_without_processes_left_is_told_and_recovers():
    program = """
    import klieg, resource, os
    klieg.init(num_cpus=8)
    print(klieg.get(klieg.remote(lambda: 1).remote()))
    @klieg.remote
    class A:
        def f(self): return 1
    head = [int(p) for p in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()][0]
    resource.prlimit(head, resource.RLIMIT_NPROC, (1, 1000))
    try:
        print(klieg.get([A.remote().f.remote() for _ in range(3)], timeout=10))
    except Exception as error:
        print(type(error).__name__, "RLIMIT_NPROC" in str(error))
    resource.prlimit(head, resource.RLIMIT_NPROC, (500, 1000))
    print(klieg.get(A.remote().f.remote(), timeout=10))
    """
    output, errors, _ = nobody.run(program)
    assert output.splitlines() == ["1", "ActorDiedError True", "1"], (output, errors)


@root
def test_a_control_group_without_processes_left_is_told_and_recovers(runtime):
    group = Path("/sys/fs/cgroup/pids/klieg-test")
    if not group.parent.is_dir() or not os.access(group.parent, os.W_OK):
        pytest.skip("no writable pids control group here")
    group.mkdir(exist_ok=True)
    head = processes.head()
    try:
        (group / "pids.max").write_text("1")
        (group / "cgroup.procs").write_text(str(head))
        with pytest.raises(KliegError, match="process could be started"):
            klieg.get([victims.actor_class("plain").remote().ping.remote() for _ in range(3)], timeout=20)
        (group / "pids.max").write_text("max")
        assert klieg.get(victims.actor_class("plain").remote().ping.remote(), timeout=20) > 0
    finally:
        klieg.shutdown()
        assert gates.soon(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()


@root
def test_a_real_kill_for_want_of_memory_says_so(runtime, kind):
    group = Path("/sys/fs/cgroup/memory/klieg-test")
    if not group.parent.is_dir() or not os.access(group.parent, os.W_OK):
        pytest.skip("no writable memory control group here")
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(64 << 20))
    actor = victims.actor_class(kind).remote()
    pid = klieg.get(actor.ping.remote())
    try:
        (group / "cgroup.procs").write_text(str(pid))
        with pytest.raises(KliegError, match=r"SIGKILL.*memory"):
            klieg.get(actor.__ray_call__.remote(lambda self: len(b"x" * (512 << 20))), timeout=20)
        assert klieg.get(victims.actor_class(kind).remote().ping.remote(), timeout=20) > 0
    finally:
        processes.wait_until_ended(pid)
        group.rmdir()


def test_a_task_that_is_killed_for_want_of_memory_says_so(runtime):
    @klieg.remote(max_retries=0)
    def killed():
        os.kill(os.getpid(), 9)

    with pytest.raises(WorkerCrashedError, match="memory"):
        klieg.get(killed.remote(), timeout=20)


def test_a_memory_error_is_an_error_like_any_other(runtime, kind):
    actor = victims.actor_class(kind).remote()

    def fill(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, hard))
        try:
            return len(bytearray(4 << 30))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    with pytest.raises(MemoryError):
        klieg.get(actor.__ray_call__.remote(fill), timeout=20)
    assert klieg.get(actor.add.remote(), timeout=20) == 1


def test_a_threaded_actor_without_threads_left_fails_the_call_and_goes_on(runtime):
    actor = victims.actor_class("threaded").remote()
    klieg.get(actor.ping.remote())

    def no_threads(self):
        import threading

        threading._start_new_thread = _refuse

    def again(self):
        import _thread
        import threading

        threading._start_new_thread = _thread.start_new_thread

    klieg.get(actor.__ray_call__.remote(no_threads), timeout=20)
    results = [gates.soon(lambda: True) and outcome(actor.__ray_call__.remote(hold)) for _ in range(2)]
    del results
    klieg.get(actor.__ray_call__.remote(again), timeout=20)
    assert klieg.get([actor.add.remote() for _ in range(8)], timeout=20)


def hold(self):
    time.sleep(0.01)


def outcome(ref):
    try:
        return klieg.get(ref, timeout=20)
    except RuntimeError as error:
        return error


def _refuse(*args, **kwargs):
    raise RuntimeError("can't start new thread")


def test_a_hundred_actors_on_two_cores_all_answer(runtime):
    actors = [victims.actor_class(kind).remote() for kind in victims.KINDS for _ in range(size(34, 12))]
    assert len(set(klieg.get([actor.ping.remote() for actor in actors], timeout=30))) == len(actors)


def test_a_reader_that_never_reads_is_no_deadlock():
    reading, writing = os.pipe()
    program = """
    import klieg, sys
    klieg.init(num_cpus=2)
    talk = klieg.remote(lambda: print("x" * 1_000_000))
    ref = talk.remote()
    sys.stderr.write(str(klieg.get(klieg.remote(lambda: 7).remote(), timeout=10)))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=writing, stderr=subprocess.PIPE, text=True, env=programs.environment(),
    )  # fmt: skip
    os.close(writing)
    try:
        assert process.communicate(timeout=programs.PATIENCE)[1] == "7"
    finally:
        os.close(reading)
        process.kill()
    assert programs.left_after(2) == []


def test_two_processes_that_send_each_other_a_hundred_megabytes_do_not_block_each_other(runtime, kind):
    large = b"x" * size(100 << 20, 20 << 20)
    actor = victims.actor_class(kind).remote()
    other = victims.actor_class(kind).remote()
    refs = [actor.echo.remote(large), other.echo.remote(large), actor.echo.remote(large)]
    assert [len(value) for value in klieg.get(refs, timeout=60)] == [len(large)] * 3


def test_a_slow_consumer_bounds_what_a_producer_makes(runtime):
    @klieg.remote
    class Producer:
        def __init__(self):
            self.made = 0

        async def items(self):
            for number in range(10_000):
                self.made = number
                yield b"x" * 10_000

        async def count(self):
            return self.made

    producer = Producer.remote()
    method = producer.items.options(num_returns="streaming", _generator_backpressure_num_objects=10)
    items = iter(method.remote())
    for _ in range(5):
        klieg.get(next(items))
    assert gates.soon(lambda: klieg.get(producer.count.remote()) >= 10)
    threading.Event().wait(0.1)
    assert klieg.get(producer.count.remote()) < 40


@root
@pytest.mark.parametrize("full", ["temporary folder", "/dev/shm"])
def test_it_works_where_a_file_system_is_full_or_read_only(full, tmp_path):
    folder = full if full == "/dev/shm" else str(tmp_path)
    program = """
    import klieg, os
    klieg.init(num_cpus=1)
    print(klieg.get(klieg.remote(lambda: 1).remote(), timeout=10))
    """
    mounts = {"full": "-o size=4k,nr_inodes=2", "read-only": "-o ro"}
    for options in mounts.values():
        command = [
            "unshare",
            "-m",
            "sh",
            "-c",
            f'mount -t tmpfs {options} tmpfs {folder} && TMPDIR={folder} exec "$0" "$@"',
        ]
        output, errors, _ = run(program, *command)
        assert (output, errors) == ("1\n", "")


@root
def test_it_works_without_shared_memory_mounted_and_says_so_of_large_values_if_it_must():
    program = """
    import klieg, numpy
    klieg.init(num_cpus=1)
    print(klieg.get(klieg.remote(lambda a: float(a.sum())).remote(numpy.ones(1 << 20)), timeout=10))
    """
    command = ["unshare", "-m", "sh", "-c", 'umount -l /dev/shm && exec "$0" "$@"']
    assert run(program, *command)[:2] == ("1048576.0\n", "")
