"""For every test: a leak fails it, and a hang ends the run with the stacks of all processes.

The workers of a test import `gates` by name; they can because klieg gives them this process's
`sys.path`. Everything else that a test sends is defined in its body or decorated with
`@klieg.remote`, and travels by value.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import gates
import leaks

from klieg.engines.local.stuck import Request, state_of

NET_SECONDS = float(os.environ.get("KLIEG_TEST_NET_SECONDS", "40"))
"""No test takes this long unless it hangs."""

LAST_NET_SECONDS = NET_SECONDS + 15
"""The second net is a C thread: it also catches a process whose GIL is never released."""


class DeadlockNet:
    """A thread that ends the run when one test takes too long."""

    def __init__(self, stderr: int) -> None:
        self._stderr = stderr
        self._changed = threading.Condition()
        self._test = ""
        self._deadline: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="deadlock net", daemon=True)
        self._thread.start()

    def start(self, test: str) -> None:
        with self._changed:
            self._test, self._deadline = test, time.monotonic() + NET_SECONDS
            self._changed.notify()
        faulthandler.dump_traceback_later(LAST_NET_SECONDS, exit=True, file=self._stderr)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        with self._changed:
            self._deadline = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._end_the_run()
                self._changed.wait(left)

    def _end_the_run(self) -> None:
        os.write(self._stderr, f"\n{self._test} has hung for {NET_SECONDS:g} s. Stacks:\n".encode())
        faulthandler.dump_traceback(self._stderr, all_threads=True)
        self._show_workers()
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
        os._exit(70)

    def _show_workers(self) -> None:
        for pid in leaks.runtime_processes():
            request = Request(pid)
            time.sleep(0.3)  # for its stacks to be written
            os.write(self._stderr, f"\nprocess {pid}, {state_of(pid)}:\n{request.read()}".encode())
        for pid in leaks.marked_processes():
            os.kill(pid, signal.SIGKILL)


def pytest_configure(config: pytest.Config) -> None:
    # Capturing is suspended at this moment, so descriptor 2 is the terminal or the log.
    stderr = os.dup(2)
    leaks.mark()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="klieg-tests-")
    config.stash[_NET] = DeadlockNet(stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_NET].close()
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


_NET = pytest.StashKey[DeadlockNet]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Stretch the net under the whole of a test: its fixtures, its body and their teardown."""
    net = item.config.stash[_NET]
    net.start(item.nodeid)
    try:
        return (yield)
    finally:
        net.stop()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor, segment or file behind."""
    before = leaks.Snapshot.take()
    yield
    left = leaks.leaks_after(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[gates.Gate]:
    """A gate that tasks can wait at until the test opens it; it is open when the test ends."""
    gate = gates.Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[gates.Journal]:
    """A journal into which tasks write lines and from which the test reads them."""
    journal = gates.Journal(tmp_path / "journal")
    yield journal
    journal.close()
