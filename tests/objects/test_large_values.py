"""Large values: stored once, read in place, and what comes back is what was put."""

from __future__ import annotations

import array
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import klieg
from klieg import engine
from klieg.engines import serialization
from klieg.engines.local.store import memory

MIB = 1 << 20


@klieg.remote
class Echo:
    def echo(self, value: Any) -> Any:
        return value

    def describe(self, *values: Any) -> list[str]:
        return [type(value).__name__ for value in values]

    def is_writeable(self, value: np.ndarray) -> bool:
        return value.flags.writeable

    def address(self, value: np.ndarray) -> int:
        return value.ctypes.data


@dataclasses.dataclass
class Sample:
    name: str
    pixels: np.ndarray
    raw: bytes


def arrays() -> list[np.ndarray]:
    counted = np.arange(MIB, dtype=np.int64)
    return [
        counted,
        counted.reshape(1024, 1024),
        np.asfortranarray(counted.reshape(1024, 1024)),
        counted[::3],
        counted.astype(">i4"),
        np.zeros(MIB, dtype=[("a", "i4"), ("b", "f8")]),
        counted > 5,
        counted.astype(complex),
        counted.view("M8[s]"),
    ]


@pytest.mark.parametrize("number", range(len(arrays())))
def test_an_array_of_any_layout_comes_back_equal(runtime: Any, number: int) -> None:
    sent = arrays()[number]
    echo = Echo.remote()
    for got in klieg.get([klieg.put(sent), echo.echo.remote(sent), echo.echo.remote(klieg.put(sent))]):
        assert got.dtype == sent.dtype
        assert got.flags.f_contiguous == sent.flags.f_contiguous or not sent.flags.forc
        np.testing.assert_array_equal(got, sent)


def test_two_gets_of_an_array_give_two_views_of_the_same_memory(runtime: Any) -> None:
    ref = klieg.put(np.ones(MIB))
    first, second = klieg.get([ref, ref])
    assert first is not second
    assert first.ctypes.data == second.ctypes.data


def test_two_calls_with_one_put_array_read_the_same_memory_in_the_worker(runtime: Any) -> None:
    echo, ref = Echo.remote(), klieg.put(np.ones(MIB))
    first, second = klieg.get([echo.address.remote(ref), echo.address.remote(ref)])
    assert first == second


def test_an_array_from_a_worker_is_read_in_place_by_another_worker(runtime: Any) -> None:
    maker, reader = Echo.remote(), Echo.remote()
    made = maker.echo.remote(np.arange(MIB))
    klieg.wait([made])
    used = runtime.store_usage()["used"]
    assert klieg.get(reader.echo.remote(made)).sum() == np.arange(MIB).sum()
    assert klieg.get(reader.describe.remote(made)) == ["ndarray"]
    # The echo of the reader is a copy; passing the value on to it was none.
    assert runtime.store_usage()["used"] <= used + made_size()


def made_size() -> int:
    return np.arange(MIB).nbytes + 4096


def test_writing_into_a_view_raises_here_and_in_workers(runtime: Any) -> None:
    got = klieg.get(klieg.put(np.zeros(MIB)))
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        got.flags.writeable = True
    assert klieg.get(Echo.remote().is_writeable.remote(klieg.put(np.zeros(MIB)))) is False


def test_an_array_of_objects_is_a_writeable_copy(runtime: Any) -> None:
    got = klieg.get(klieg.put(np.array([{}, []] * 50_000, dtype=object)))
    got[0] = 1
    assert got[1] == []


def test_changing_an_argument_after_the_call_is_not_seen(runtime: Any) -> None:
    value = np.zeros(MIB)
    put, sent = klieg.put(value), Echo.remote().echo.remote(value)
    value[:] = 7
    assert klieg.get(put).sum() == klieg.get(sent).sum() == 0


def test_small_values_stay_out_of_shared_memory(runtime: Any) -> None:
    ref = klieg.put(np.zeros(100))
    assert klieg.get(Echo.remote().echo.remote(ref)).sum() == 0
    assert runtime.store_usage()["used"] == 0


LARGE_BYTES = bytes(range(256)) * 4096


@pytest.mark.parametrize(
    "value",
    [
        LARGE_BYTES,
        bytearray(LARGE_BYTES),
        "x" * MIB,
        "☃" * MIB,
        10 ** (3 * MIB // 10),
        [LARGE_BYTES, 1, LARGE_BYTES],
        (LARGE_BYTES, None),
        {"a": LARGE_BYTES, "b": 2},
        {"deep": {"er": [LARGE_BYTES]}},
        [bytearray(LARGE_BYTES)],
        list(range(100_000)),
        {LARGE_BYTES},
        array.array("d", [1.5]) * MIB,
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_large_value_comes_back_as_what_it_was_and_is_kept_in_shared_memory(runtime: Any, value: Any) -> None:
    echo, ref = Echo.remote(), klieg.put(value)
    assert runtime.store_usage()["used"] > 64 * 1024
    for got in klieg.get([ref, echo.echo.remote(value), echo.echo.remote(ref)]):
        assert type(got) is type(value)
        assert got == value
    assert klieg.get(echo.describe.remote(value, ref)) == [type(value).__name__] * 2


def test_a_large_bytes_goes_beside_the_pickle_and_not_through_it(runtime: Any) -> None:
    from klieg.engines import serialization

    for value in (LARGE_BYTES, bytearray(LARGE_BYTES), [LARGE_BYTES], {"a": LARGE_BYTES}):
        payload = serialization.dumps(value, runtime.store.keep)
        assert len(payload.data) < 1000
        assert [len(buffer) for buffer in payload.buffers] == [len(LARGE_BYTES)]


def test_a_large_bytearray_that_comes_back_is_the_readers_own(runtime: Any) -> None:
    ref = klieg.put(bytearray(LARGE_BYTES))
    first, second = klieg.get([ref, ref])
    first[0] = 255
    first.extend(b"more")
    assert second == bytearray(LARGE_BYTES)
    assert klieg.get(ref) == second


def test_one_large_bytes_twice_in_a_list_is_stored_once(runtime: Any) -> None:
    first, second = klieg.get(klieg.put([LARGE_BYTES, LARGE_BYTES]))
    assert first is second
    assert runtime.store_usage()["used"] < 1.1 * len(LARGE_BYTES)


def test_one_large_array_in_several_places_of_a_call_is_stored_once() -> None:
    array = np.arange(MIB)
    payload, _ = serialization.dumps_arguments((array, [array, 1]), {"third": array}, "f")
    assert len(payload.buffers) == 1
    (first, (second, _)), keywords = serialization.loads_arguments(payload, None)
    assert first is second is keywords["third"]
    assert np.array_equal(first, array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_a_flat_container_keep_their_shape_and_order(order: str) -> None:
    array = np.asarray(np.arange(MIB, dtype="f4").reshape(2, -1, 4), order=order)
    (back, text), raw = serialization.loads(serialization.dumps((array, "x"))), array.tobytes("A")
    assert (back.shape, back.dtype, back.flags.c_contiguous, text) == (array.shape, array.dtype, order == "C", "x")
    assert back.tobytes("A") == raw


@pytest.mark.parametrize("helper", ["starts at once", "comes too late", "cannot be had"])
def test_a_copy_shared_by_two_threads_is_whole_whatever_becomes_of_the_second(
    monkeypatch: pytest.MonkeyPatch, helper: str
) -> None:
    late: list[Callable[[], None]] = []

    def start(run: Callable[[], None], _: tuple[()]) -> None:
        if helper == "cannot be had":
            raise RuntimeError("can't start new thread")
        late.append(run)

    if helper != "starts at once":
        monkeypatch.setattr(memory._thread, "start_new_thread", start)
    monkeypatch.setattr(memory, "_two_cores", lambda: True)
    source = np.random.default_rng(1).integers(0, 255, memory.SPLIT_AT + 12345, dtype=np.uint8)
    target = np.zeros_like(source)
    memory.copy(target.ctypes.data, memoryview(source))
    assert np.array_equal(source, target)
    target[:] = 0
    for run in late:
        run()
    assert not target.any()


def test_a_list_that_holds_itself_and_large_bytes_still_does_when_it_comes_back(runtime: Any) -> None:
    value: list[Any] = [LARGE_BYTES]
    value.append(value)
    got = klieg.get(klieg.put(value))
    assert got[0] == LARGE_BYTES
    assert got[1] is got


def test_an_object_with_large_parts_comes_back_whole(runtime: Any) -> None:
    sample = Sample("one", np.arange(MIB), LARGE_BYTES)
    for got in klieg.get([klieg.put(sample), Echo.remote().echo.remote(sample)]):
        assert (got.name, got.raw) == ("one", LARGE_BYTES)
        np.testing.assert_array_equal(got.pixels, sample.pixels)


def test_a_picklebuffer_comes_back_as_a_read_only_buffer(runtime: Any) -> None:
    got = klieg.get(klieg.put(pickle.PickleBuffer(LARGE_BYTES)))
    assert bytes(got) == LARGE_BYTES
    assert memoryview(got).readonly


def test_keyword_arguments_and_large_bytes_among_small_ones_arrive(runtime: Any) -> None:
    @klieg.remote
    def sizes(*args: Any, **kwargs: Any) -> list[int]:
        return [len(value) for value in (*args, *kwargs.values())]

    big = LARGE_BYTES
    assert klieg.get(sizes.remote(b"a", big, bytearray(big), c=big, d=b"dd")) == [1, MIB, MIB, MIB, 2]


def test_streamed_items_may_be_large(runtime: Any) -> None:
    @klieg.remote
    def stream() -> Any:
        for number in range(5):
            yield np.full(MIB, number, dtype=np.uint8)

    refs = stream.options(num_returns="streaming").remote()
    assert [int(klieg.get(ref).sum()) for ref in refs] == [n * MIB for n in range(5)]


def test_several_large_return_values_arrive_each_under_its_ref(runtime: Any) -> None:
    @klieg.remote(num_returns=3)
    def three() -> tuple[Any, ...]:
        return np.zeros(MIB), "small", LARGE_BYTES

    zeros, small, large = klieg.get(list(three.remote()))
    assert (zeros.size, small, large) == (MIB, "small", LARGE_BYTES)


def test_a_value_larger_than_two_gib_arrives_whole(runtime: Any) -> None:
    size = (2 << 30) + 12345
    if engine.current().store_usage()["limit"] < 2 * size:
        pytest.skip("the object store of this machine is too small for two values of 2 GiB")
    value = np.zeros(size, dtype=np.uint8)
    value[-1] = value[size // 2] = 9
    got = klieg.get(klieg.put(value))
    assert (got.nbytes, int(got[-1]), int(got[size // 2]), int(got[0])) == (size, 9, 9, 0)


def test_arrow_tables_come_back_as_views(runtime: Any) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = arrow.table({"n": np.arange(MIB), "s": ["text"] * MIB})
    ref = klieg.put(table)
    assert runtime.store_usage()["used"] > 8 * MIB
    assert klieg.get(ref).equals(table)
    assert klieg.get(Echo.remote().echo.remote(table)).equals(table)


def test_torch_tensors_survive_the_trip(runtime: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.arange(MIB, dtype=torch.float32).reshape(1024, 1024)
    for got in klieg.get([klieg.put(tensor), Echo.remote().echo.remote(tensor)]):
        assert torch.equal(got, tensor)
