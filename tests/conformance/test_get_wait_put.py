"""`get`, `wait` and `put`: what they take, what they give, what they refuse."""

import asyncio
import time

import pytest

import klieg
from klieg.exceptions import GetTimeoutError


@klieg.remote
def echo(x):
    return x


@klieg.remote
def fail(message="no"):
    raise ValueError(message)


@klieg.remote
def wait_at(gate, value=None):
    gate.wait()
    return value


def test_get_takes_one_ref_or_a_list():
    ref = echo.remote(1)
    assert klieg.get(ref) == 1
    assert klieg.get([ref, echo.remote(2), ref]) == [1, 2, 1]
    assert klieg.get([]) == []


def test_get_can_be_repeated_and_gives_copies():
    ref = echo.remote([1])
    klieg.get(ref).append(2)
    assert klieg.get(ref) == [1]


@pytest.mark.parametrize(
    "make",
    [
        lambda ref: (ref,),
        lambda ref: {ref},
        lambda ref: {"a": ref},
        lambda ref: iter([ref]),
        lambda ref: 3,
        lambda ref: None,
    ],
    ids=["tuple", "set", "dict", "iterator", "int", "None"],
)
def test_get_refuses_anything_else(make):
    with pytest.raises(ValueError, match="Invalid type of object refs"):
        klieg.get(make(echo.remote(1)))


def test_get_refuses_a_list_with_something_else_in_it():
    with pytest.raises(TypeError, match="int"):
        klieg.get([echo.remote(1), 3])


def test_the_timeout_is_keyword_only():
    with pytest.raises(TypeError):
        klieg.get(echo.remote(1), 10)


def test_a_timeout_of_the_wrong_type_is_refused():
    with pytest.raises(TypeError):
        klieg.get(echo.remote(1), timeout="1")


def test_get_times_out_and_the_ref_stays_good(gate):
    ref = wait_at.remote(gate, 1)
    with pytest.raises(GetTimeoutError) as caught:
        klieg.get(ref, timeout=0.02)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, klieg.exceptions.KliegError)
    gate.open()
    assert klieg.get(ref) == 1


def test_a_timeout_of_zero_only_looks(gate):
    ready, held = klieg.put(1), wait_at.remote(gate)
    assert klieg.get(ready, timeout=0) == 1
    started = time.monotonic()
    with pytest.raises(GetTimeoutError):
        klieg.get(held, timeout=0)
    assert time.monotonic() - started < 0.5


def test_a_negative_timeout_is_no_limit():
    assert klieg.get(echo.remote(1), timeout=-1) == 1


def test_a_huge_timeout_is_fine():
    assert klieg.get(echo.remote(1), timeout=1e12) == 1


def test_get_raises_as_soon_as_one_has_failed(gate):
    held = wait_at.remote(gate)
    with pytest.raises(ValueError, match="no"):
        klieg.get([held, fail.remote()], timeout=10)


def test_get_raises_the_first_error_in_the_lists_order():
    refs = [fail.remote("first"), fail.remote("second")]
    klieg.wait(refs, num_returns=2)
    with pytest.raises(ValueError, match="first"):
        klieg.get(refs)


def test_wait_splits_ready_from_not_ready(gate):
    held, ready = wait_at.remote(gate), echo.remote(1)
    assert klieg.wait([held, ready]) == ([ready], [held])


def test_wait_keeps_the_order_of_the_input(gate):
    refs = [echo.remote(i) for i in range(5)]
    held = wait_at.remote(gate)
    klieg.get(refs)
    ready, rest = klieg.wait([held, *reversed(refs)], num_returns=5)
    assert ready == list(reversed(refs))
    assert rest == [held]


def test_wait_never_returns_more_than_asked_for():
    refs = [echo.remote(i) for i in range(5)]
    klieg.get(refs)
    assert klieg.wait(refs, num_returns=2) == (refs[:2], refs[2:])


def test_a_failed_ref_is_ready():
    ref = fail.remote()
    assert klieg.wait([ref], timeout=10) == ([ref], [])


def test_wait_times_out(gate):
    ready, held = klieg.put(1), wait_at.remote(gate)
    assert klieg.wait([held, ready], num_returns=2, timeout=0.02) == ([ready], [held])
    assert klieg.wait([held], timeout=0) == ([], [held])


def test_waiting_for_nothing_gives_nothing():
    assert klieg.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("make", "options", "error"),
    [
        (lambda ref: ref, {}, TypeError),
        (lambda ref: (ref,), {}, TypeError),
        (lambda ref: {ref}, {}, TypeError),
        (lambda ref: [ref, 3], {}, TypeError),
        (lambda ref: [ref, ref], {}, ValueError),
        (lambda ref: [ref], {"num_returns": 0}, ValueError),
        (lambda ref: [ref], {"num_returns": -1}, ValueError),
        (lambda ref: [ref], {"num_returns": 2}, ValueError),
        (lambda ref: [ref], {"timeout": -1}, ValueError),
        (lambda ref: [ref], {"timeout": "1"}, TypeError),
    ],
    ids=[
        "one ref",
        "tuple",
        "set",
        "an int inside",
        "twice the same",
        "num_returns 0",
        "num_returns -1",
        "num_returns too large",
        "negative timeout",
        "timeout as text",
    ],
)
def test_wait_refuses(make, options, error):
    with pytest.raises(error):
        klieg.wait(make(echo.remote(1)), **options)


def test_wait_takes_fetch_local():
    ref = echo.remote(1)
    assert klieg.wait([ref], fetch_local=False) == ([ref], [])


def test_put_keeps_a_value():
    assert klieg.get(klieg.put({"a": [1, 2]})) == {"a": [1, 2]}


def test_put_takes_a_snapshot():
    value = [1]
    ref = klieg.put(value)
    value.append(2)
    assert klieg.get(ref) == [1]


def test_a_ref_cannot_be_put():
    with pytest.raises(TypeError, match="ObjectRef"):
        klieg.put(klieg.put(1))


def test_what_cannot_be_pickled_cannot_be_put():
    import threading

    with pytest.raises(TypeError, match="lock"):
        klieg.put(threading.Lock())


def test_a_put_exception_is_a_value():
    error = klieg.get(klieg.put(ValueError("a value")))
    assert isinstance(error, ValueError)
    assert error.args == ("a value",)


def test_a_put_value_can_be_an_argument_many_times():
    ref = klieg.put([1, 2, 3])
    assert klieg.get([echo.remote(ref) for _ in range(5)]) == [[1, 2, 3]] * 5


def test_wait_one_by_one_ends_with_all(gate):
    pending = [echo.remote(i) for i in range(50)]
    found = []
    while pending:
        ready, pending = klieg.wait(pending)
        found.extend(klieg.get(ready))
    assert sorted(found) == list(range(50))


def test_refs_compare_hash_and_print_by_identity():
    first, second = klieg.put(1), klieg.put(1)
    assert first == first
    assert first != second
    assert len({first, second, first}) == 2
    assert repr(first) == f"ObjectRef({first.hex()})"
    assert first.binary().hex() == first.hex()
    assert not first.is_nil()
    assert bool(first)


def test_refs_have_no_order_and_cannot_be_iterated():
    first, second = klieg.put(1), klieg.put(2)
    with pytest.raises(TypeError):
        assert first < second
    with pytest.raises(TypeError):
        iter(first)


def test_a_ref_type_takes_a_parameter():
    assert klieg.ObjectRef[int] is not None
    assert isinstance(klieg.put(1), klieg.ObjectRef)


def test_a_closed_over_ref_stays_readable():
    ref = klieg.put(4)

    @klieg.remote
    def read():
        return klieg.get(ref)

    assert klieg.get(read.remote()) == 4


def test_get_inside_a_running_loop_of_the_driver_blocks_and_returns():
    async def main():
        return klieg.get([echo.remote(1), echo.remote(2)])

    assert asyncio.run(main()) == [1, 2]


def test_a_large_value_comes_home_whole():
    value = bytes(range(256)) * 8192
    assert klieg.get(echo.remote(value)) == value
    assert klieg.get(klieg.put(value)) == value
