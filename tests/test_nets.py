"""The nets under every test hold: leaks of each kind are found, a hang ends the run."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import leaks


def leaks_while(leaky):
    """What is left behind as long as the generator stands at its `yield`."""
    before = leaks.Snapshot.take()
    steps = leaky()
    next(steps)
    found = leaks.Snapshot.take().leaks_since(before)
    next(steps, None)
    assert leaks.leaks_after(before) == []
    return found


def test_a_thread_is_found():
    def leaky():
        done = threading.Event()
        thread = threading.Thread(target=done.wait, name="left behind")
        thread.start()
        yield
        done.set()
        thread.join()

    (leak,) = leaks_while(leaky)
    assert "thread 'left behind'" in leak
    assert "in wait" in leak


def test_a_descriptor_is_found():
    def leaky():
        with open(__file__):
            yield

    assert leaks_while(leaky) == [f"descriptor {__file__}"]


def test_a_file_is_found():
    def leaky():
        with tempfile.TemporaryDirectory(prefix="klieg-left-behind"):
            yield

    (leak,) = leaks_while(leaky)
    assert "file klieg-left-behind" in leak


def test_mapped_memory_is_found():
    def leaky():
        import mmap

        descriptor = os.memfd_create("left-behind")
        os.ftruncate(descriptor, 4096)
        memory = mmap.mmap(descriptor, 4096)
        yield
        memory.close()
        os.close(descriptor)

    assert any("shared memory /memfd:left-behind" in leak for leak in leaks_while(leaky))


def test_a_child_and_a_zombie_are_found():
    def leaky():
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            yield
            child.communicate(b"\n")

    assert any("input()" in leak for leak in leaks_while(leaky))


def test_an_orphan_is_found():
    start_orphan = "import os, sys\nif os.fork() == 0:\n os.setsid()\n sys.stdin.read()"

    def leaky():
        reading, writing = os.pipe()
        subprocess.run([sys.executable, "-c", start_orphan], stdin=reading, check=True)
        os.close(reading)
        yield
        os.close(writing)

    assert any("process" in leak and "setsid" in leak for leak in leaks_while(leaky))


HANGING = """
import threading

def test_that_hangs():
    threading.Event().wait()
"""


def run_pytest(folder, source, **variables):
    """Run one test file in a pytest of its own, with this folder's conftest as its plugin."""
    (folder / "test_it.py").write_text(source)
    here = str(Path(__file__).parent)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            os.devnull,
            "--rootdir",
            folder,
            "-p",
            "conftest",
            folder,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path]), **variables},
    )


def test_a_hang_ends_the_run_with_the_stacks(tmp_path):
    result = run_pytest(tmp_path, HANGING, KLIEG_TEST_NET_SECONDS="0.5")
    assert result.returncode == 70
    assert "test_it.py::test_that_hangs has hung" in result.stderr
    assert "in test_that_hangs" in result.stderr


LEAKING = """
import threading

done = threading.Event()

def test_that_leaks():
    threading.Thread(target=done.wait, name="left behind", daemon=True).start()
"""


def test_a_leak_fails_the_test(tmp_path):
    result = run_pytest(tmp_path, LEAKING)
    assert result.returncode == 1
    assert "thread 'left behind'" in result.stdout
