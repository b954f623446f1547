"""The limit of the store: what nobody reads moves to disk, and when nothing can, the error says who holds what."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gates
import numpy as np
import pytest
import stored

import klieg
from klieg import engine
from klieg.exceptions import ObjectStoreFullError

MIB = 1 << 20


@klieg.remote
class Holder:
    """Holds views, refs and values of its own."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def hold(self, *values: Any) -> None:
        self.held.extend(values)

    def put(self, count: int) -> None:
        self.held.extend(klieg.put(np.full(MIB, number, dtype=np.uint8)) for number in range(count))

    def make(self, number: int, mib: int = 1) -> np.ndarray:
        return np.full(mib * MIB, number, dtype=np.uint8)

    def firsts(self) -> list[int]:
        return [int(value[0]) for value in klieg.get(self.held)]

    def drop(self) -> None:
        self.held.clear()


def values(count: int, mib: int = 1) -> list[np.ndarray]:
    return [np.full(mib * MIB, number, dtype=np.uint8) for number in range(count)]


def usage() -> dict[str, Any]:
    return engine.current().store_usage()


def on_disk() -> int:
    return sum(process["disk"] for process in usage()["processes"])


def test_values_that_nobody_reads_move_to_disk_and_come_back(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    refs = [klieg.put(value) for value in values(30)]
    assert usage()["used"] <= 8 * MIB
    assert on_disk() >= 22 * MIB
    assert [int(value.sum()) for value in klieg.get(refs)] == [number * MIB for number in range(30)]


def test_a_value_on_disk_is_listed_as_spilled(start: Callable[..., Any]) -> None:
    runtime = start(object_store_memory=2 * MIB)
    first, _, _ = [klieg.put(value) for value in values(3)]
    (entry,) = [entry for entry in runtime.objects() if entry["id"] == first.hex()]
    assert (entry["spilled"], entry["shared"]) == (MIB, 0)


def test_the_oldest_values_move_first(start: Callable[..., Any]) -> None:
    runtime = start(object_store_memory=4 * MIB)
    refs = [klieg.put(value) for value in values(6)]
    spilled = {entry["id"]: entry["spilled"] for entry in runtime.objects()}
    assert [spilled[ref.hex()] for ref in refs] == [MIB, MIB, 0, 0, 0, 0]


def test_a_value_on_disk_can_be_passed_to_an_actor_and_read_there_in_place(start: Callable[..., Any]) -> None:
    start(object_store_memory=4 * MIB)
    refs = [klieg.put(value) for value in values(12)]
    holder = Holder.remote()
    klieg.get(holder.hold.remote(refs[0], *[[ref] for ref in refs[1:3]]))
    assert klieg.get(refs[:3])[2][0] == 2
    assert usage()["used"] <= 4 * MIB


def test_dropping_values_on_disk_gives_the_disk_back(start: Callable[..., Any]) -> None:
    start(object_store_memory=4 * MIB)
    refs = [klieg.put(value) for value in values(20)]
    assert on_disk() > 0
    del refs
    assert gates.soon(lambda: on_disk() == 0)
    assert gates.soon(stored.nothing)


def test_files_of_spilled_values_have_no_name_and_belong_to_nobody_else(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    start(object_store_memory=2 * MIB, spill_directory=os.fspath(tmp_path))
    refs = [klieg.put(value) for value in values(5)]
    assert on_disk() > 0
    assert list(tmp_path.iterdir()) == []
    (fd,) = {fd for fd in os.listdir("/proc/self/fd") if os.fspath(tmp_path) in _target(fd) and _writes(fd)}
    assert os.stat(f"/proc/self/fd/{fd}").st_mode & 0o777 == 0o600
    assert klieg.get(refs[0])[0] == 0


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _writes(fd: str) -> bool:
    flags = Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
    return int(flags, 8) & os.O_ACCMODE == os.O_RDWR


def test_when_nothing_can_be_moved_the_error_says_who_holds_what(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    refs = [klieg.put(value) for value in values(8)]
    views = klieg.get(refs)
    with pytest.raises(ObjectStoreFullError) as caught:
        klieg.put(np.zeros(2 * MIB, dtype=np.uint8))
    text = str(caught.value)
    assert "No room for a value of 2,097,152 bytes" in text
    assert "may hold 8,388,608 bytes" in text
    assert f"this process (pid {os.getpid()}): 8,388,608 bytes in memory" in text
    assert "8,388,608 bytes are in use by arrays" in text
    assert "init(object_store_memory=...)" in text
    assert [int(view[0]) for view in views] == list(range(8))


def test_smaller_values_go_on_after_the_error_and_large_ones_once_there_is_room(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    views = klieg.get([klieg.put(value) for value in values(7)])
    with pytest.raises(ObjectStoreFullError):
        klieg.put(np.zeros(2 * MIB, dtype=np.uint8))
    assert klieg.get(klieg.put(np.ones(MIB, dtype=np.uint8))).sum() == MIB
    assert klieg.get(klieg.put("small")) == "small"
    views.clear()
    assert klieg.get(klieg.put(np.ones(2 * MIB, dtype=np.uint8))).sum() == 2 * MIB


def test_a_hundred_attempts_on_a_full_store_give_a_hundred_errors_and_leak_nothing(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    view = klieg.get(klieg.put(np.ones(8 * MIB, dtype=np.uint8)))
    for _ in range(100):
        with pytest.raises(ObjectStoreFullError):
            klieg.put(np.zeros(MIB, dtype=np.uint8))
    assert usage()["used"] == 8 * MIB
    assert int(view.sum()) == 8 * MIB
    del view
    assert gates.soon(stored.nothing)


def test_a_value_larger_than_the_store_is_refused_at_once_and_moves_nothing(start: Callable[..., Any]) -> None:
    start(object_store_memory=4 * MIB)
    refs = [klieg.put(value) for value in values(3)]
    with pytest.raises(ObjectStoreFullError, match="larger than the whole store"):
        klieg.put(np.zeros(5 * MIB, dtype=np.uint8))
    assert on_disk() == 0
    assert klieg.get(refs[2])[0] == 2


def test_an_argument_too_large_fails_the_call_where_it_is_made(start: Callable[..., Any]) -> None:
    start(object_store_memory=4 * MIB)
    holder = Holder.remote()
    with pytest.raises(ObjectStoreFullError):
        holder.hold.remote(np.zeros(5 * MIB, dtype=np.uint8))
    klieg.get(holder.hold.remote(np.zeros(MIB, dtype=np.uint8)))


def test_a_result_too_large_fails_the_call_with_the_store_error(start: Callable[..., Any]) -> None:
    start(object_store_memory=4 * MIB)
    holder = Holder.remote()
    with pytest.raises(ObjectStoreFullError, match="No room for a value of"):
        klieg.get(holder.make.remote(1, mib=5))
    assert klieg.get(holder.make.remote(1))[0] == 1


def test_a_streamed_item_too_large_ends_the_stream_with_the_store_error(start: Callable[..., Any]) -> None:
    start(object_store_memory=4 * MIB)

    @klieg.remote
    def stream() -> Any:
        yield np.zeros(MIB, dtype=np.uint8)
        yield np.zeros(5 * MIB, dtype=np.uint8)

    first, second = stream.options(num_returns="streaming").remote()
    assert not klieg.get(first).any()
    with pytest.raises(ObjectStoreFullError):
        klieg.get(second)


def test_a_worker_moves_its_own_values_to_disk_when_the_driver_needs_room(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    holder = Holder.remote()
    klieg.get(holder.put.remote(7))
    view = klieg.get(klieg.put(np.full(6 * MIB, 9, dtype=np.uint8)))
    assert usage()["used"] <= 8 * MIB
    assert klieg.get(holder.firsts.remote()) == list(range(7))
    assert int(view[-1]) == 9


def test_results_that_the_driver_holds_move_to_disk_when_their_maker_needs_room(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    holder = Holder.remote()
    refs = [holder.make.remote(number) for number in range(30)]
    klieg.wait(refs, num_returns=30)
    assert usage()["used"] <= 8 * MIB
    assert [int(value[7]) for value in klieg.get(refs)] == list(range(30))


def test_values_viewed_in_a_worker_count_against_the_limit_and_are_named(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    holder = Holder.remote()
    klieg.get(holder.hold.remote(*[klieg.put(value) for value in values(7)]))
    with pytest.raises(ObjectStoreFullError, match=r"7,340,032 are held by other processes"):
        klieg.put(np.zeros(4 * MIB, dtype=np.uint8))
    klieg.get(holder.drop.remote())
    assert gates.soon(lambda: _fits(4 * MIB))


def _fits(size: int) -> bool:
    try:
        klieg.put(np.zeros(size, dtype=np.uint8))
    except ObjectStoreFullError:
        return False
    return True


def test_memory_of_a_killed_actor_does_not_count_any_more(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    holder = Holder.remote()
    klieg.get(holder.put.remote(7))
    klieg.kill(holder)
    assert gates.soon(stored.nothing)
    assert klieg.get(klieg.put(np.ones(7 * MIB, dtype=np.uint8))).sum() == 7 * MIB


def test_two_actors_that_fill_the_store_at_the_same_time_lose_nothing(start: Callable[..., Any]) -> None:
    start(object_store_memory=8 * MIB)
    first, second = Holder.remote(), Holder.remote()
    klieg.get([holder.put.remote(6) for _ in range(4) for holder in (first, second)])
    assert usage()["used"] <= 8 * MIB
    assert klieg.get(first.firsts.remote()) == klieg.get(second.firsts.remote()) == list(range(6)) * 4


def test_a_disk_without_room_is_an_error_that_says_so(start: Callable[..., Any], caplog: Any) -> None:
    import resource

    start(object_store_memory=4 * MIB)
    refs = [klieg.put(value) for value in values(4)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, before[1]))
    try:
        with pytest.raises(ObjectStoreFullError):
            klieg.put(np.zeros(MIB, dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be moved to disk" in caplog.text
    assert [int(value[0]) for value in klieg.get(refs)] == list(range(4))
    assert klieg.get(klieg.put(np.ones(MIB, dtype=np.uint8))).sum() == MIB


def test_a_limit_on_the_size_of_files_is_an_error_and_no_signal(start: Callable[..., Any]) -> None:
    import resource

    start()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, before[1]))
    try:
        with pytest.raises(ObjectStoreFullError, match="File too large"):
            klieg.put(np.zeros(4 * MIB, dtype=np.uint8))
        assert klieg.get(klieg.put(np.ones(MIB, dtype=np.uint8))).sum() == MIB
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 0.5, -1, float("nan"), float("inf")])
def test_a_size_of_the_store_that_makes_no_sense_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match="object_store_memory"):
        klieg.init(object_store_memory=size)
    assert not klieg.is_initialized()


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="object_store_memory must be a number"):
        klieg.init(object_store_memory="1 GiB")


def test_a_spill_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spill_directory"):
        klieg.init(spill_directory=os.fspath(tmp_path / "missing"))


def test_the_limit_can_be_seen(start: Callable[..., Any]) -> None:
    assert start(object_store_memory=5 * MIB).store_usage()["limit"] == 5 * MIB


def test_views_of_spilled_values_outlive_the_runtime(start: Callable[..., Any]) -> None:
    start(object_store_memory=2 * MIB)
    refs = [klieg.put(value) for value in values(5)]
    views = klieg.get(refs)
    assert on_disk() > 0
    del refs
    gc.collect()
    klieg.shutdown()
    assert [int(view.sum()) for view in views] == [number * MIB for number in range(5)]
