"""A view never changes and never goes away under its reader, whatever becomes of the ref, the owner and the runtime."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gates
import numpy as np
import pytest

import klieg

MIB = 1 << 20


@klieg.remote
class Maker:
    def make(self, number: int, size: int = MIB) -> np.ndarray:
        return np.full(size, number, dtype=np.uint8)

    def hold(self, value: np.ndarray) -> int:
        self.held = value
        return int(value[0])

    def look(self) -> set[int]:
        return set(np.unique(self.held).tolist())

    def drop(self) -> None:
        del self.held

    def pid(self) -> int:
        return os.getpid()


def address(view: np.ndarray) -> int:
    return view.ctypes.data


def put_and_drop(count: int, size: int = MIB) -> set[int]:
    """Addresses of `count` values that were put one after another, each dropped before the next."""
    return {address(klieg.get(klieg.put(np.full(size, 255, dtype=np.uint8)))) for _ in range(count)}


def die(maker: Any) -> None:
    """Kill the actor's process; returns when that is known here."""
    os.kill(klieg.get(maker.pid.remote()), signal.SIGKILL)
    gates.soon_raises(klieg.exceptions.ActorDiedError, lambda: klieg.get(maker.pid.remote()))


def test_the_memory_of_a_dropped_value_is_used_for_the_next_one(runtime: Any) -> None:
    assert len(put_and_drop(5)) == 1


def test_memory_is_not_used_again_while_a_view_of_it_is_alive(runtime: Any) -> None:
    view = klieg.get(klieg.put(np.zeros(MIB, dtype=np.uint8)))
    assert address(view) not in put_and_drop(5)
    assert not view.any()


def test_a_view_of_a_view_keeps_the_memory_as_well(runtime: Any) -> None:
    part = klieg.get(klieg.put(np.zeros(MIB, dtype=np.uint8)))[1000:2000].reshape(10, 100)
    raw = memoryview(klieg.get(klieg.put(np.zeros(MIB, dtype=np.uint8))))[5:10]
    put_and_drop(5)
    assert not part.any()
    assert bytes(raw) == bytes(5)


def test_memory_is_not_used_again_while_an_actor_holds_a_view_of_it(runtime: Any) -> None:
    holder = Maker.remote()
    ref = klieg.put(np.full(MIB, 3, dtype=np.uint8))
    where = address(klieg.get(ref))
    assert klieg.get(holder.hold.remote(ref)) == 3
    del ref
    assert where not in put_and_drop(5)
    assert klieg.get(holder.look.remote()) == {3}
    klieg.get(holder.drop.remote())
    assert gates.soon(lambda: where in put_and_drop(1))


def test_a_result_is_not_overwritten_by_the_later_results_of_its_actor(runtime: Any) -> None:
    maker = Maker.remote()
    views = [klieg.get(maker.make.remote(number)) for number in range(20)]
    assert [set(np.unique(view).tolist()) for view in views] == [{number} for number in range(20)]


def test_a_view_outlives_its_ref_its_owner_and_the_runtime(start: Callable[..., Any]) -> None:
    start()
    maker = Maker.remote()
    mine = klieg.get(klieg.put(np.full(MIB, 1, dtype=np.uint8)))
    theirs = klieg.get(maker.make.remote(2))
    die(maker)
    klieg.shutdown()
    assert (set(mine.tolist()), set(theirs.tolist())) == ({1}, {2})


def test_a_view_outlives_the_next_runtime_too(start: Callable[..., Any]) -> None:
    start()
    view = klieg.get(klieg.put(np.full(MIB, 1, dtype=np.uint8)))
    klieg.shutdown()
    start()
    put_and_drop(5)
    assert set(view.tolist()) == {1}


def test_the_result_of_an_actor_that_was_killed_can_still_be_read_and_passed_on(runtime: Any) -> None:
    maker, other = Maker.remote(), Maker.remote()
    made = maker.make.remote(7)
    klieg.wait([made])
    klieg.kill(maker)
    gates.soon_raises(klieg.exceptions.ActorDiedError, lambda: klieg.get(maker.pid.remote()))
    assert klieg.get(other.hold.remote(made)) == 7
    assert set(klieg.get(made).tolist()) == {7}
    del made
    assert klieg.get(other.look.remote()) == {7}


def test_shutdown_leaves_nothing_mapped_once_the_views_are_gone(start: Callable[..., Any]) -> None:
    start()
    views = [klieg.get(klieg.put(np.zeros(MIB))), klieg.get(Maker.remote().make.remote(1))]
    klieg.shutdown()
    assert "/memfd:klieg" in Path("/proc/self/maps").read_text()
    views.clear()
    gc.collect()
    assert "/memfd:klieg" not in Path("/proc/self/maps").read_text()
    assert not [fd for fd in os.listdir("/proc/self/fd") if "memfd:klieg" in link(fd)]


def link(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_a_reader_can_neither_write_nor_shrink_the_memory_it_was_given(runtime: Any) -> None:
    @klieg.remote
    def attack(value: np.ndarray) -> list[str]:
        import fcntl
        import mmap

        failed = []
        fds = [int(fd) for fd in os.listdir("/proc/self/fd") if "memfd:klieg" in link(fd)]
        fds = [fd for fd in fds if os.fstat(fd).st_size > value.nbytes]  # klieg has smaller ones for other things
        for name, attempt in {
            "map": lambda fd: mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE),
            "write": lambda fd: os.pwrite(fd, b"x", 0),
            "shrink": lambda fd: os.ftruncate(fd, 0),
            "shrink through /proc": lambda fd: os.truncate(f"/proc/self/fd/{fd}", 0),
            "unseal": lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
        }.items():
            try:
                attempt(fds[0])
            except OSError:
                failed.append(name)
        return failed

    ref = klieg.put(np.zeros(MIB))
    assert klieg.get(attack.remote(ref)) == ["map", "write", "shrink", "shrink through /proc", "unseal"]
    assert not klieg.get(ref).any()


def test_memory_that_is_mapped_read_only_cannot_be_written_by_its_address(runtime: Any) -> None:
    @klieg.remote
    def scribble(value: np.ndarray) -> None:
        ctypes.memset(value.ctypes.data, 1, 10)

    ref = klieg.put(np.zeros(MIB))
    with pytest.raises(klieg.exceptions.WorkerCrashedError, match="SIGSEGV"):
        klieg.get(scribble.options(max_retries=0).remote(ref))
    assert not klieg.get(ref).any()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_forked_child_sees_does_not_change_when_the_parent_drops_it(runtime: Any) -> None:
    view = klieg.get(klieg.put(np.full(MIB, 4, dtype=np.uint8)))
    go, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        os.read(go, 1)
        os._exit(0 if set(np.unique(view).tolist()) == {4} else 1)
    os.close(go)
    del view
    put_and_drop(5)
    os.close(tell)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
