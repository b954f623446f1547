"""`register_serializer`, `inspect_serializability` and `log_once`."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import pytest

import klieg
from klieg.util import (
    deregister_serializer,
    inspect_serializability,
    log_once,
    register_serializer,
)


class Guarded:
    """Cannot be pickled: it holds a lock."""

    def __init__(self, value):
        self.value = value
        self.lock = threading.Lock()


@pytest.fixture
def registered():
    register_serializer(Guarded, serializer=lambda guarded: guarded.value, deserializer=lambda value: Guarded(value))
    yield
    deregister_serializer(Guarded)


def test_a_registered_class_travels_as_its_serializer_says(registered):
    held = klieg.get(klieg.put([Guarded(3)]))
    assert held[0].value == 3
    assert klieg.get(klieg.remote(lambda guarded: guarded.value + 1).remote(Guarded(4))) == 5


def test_a_deregistered_class_is_pickled_as_before(registered):
    deregister_serializer(Guarded)
    deregister_serializer(Guarded)  # once more is fine
    with pytest.raises(TypeError):
        klieg.put(Guarded(1))


def test_what_python_had_for_the_class_comes_back():
    register_serializer(complex, serializer=str, deserializer=lambda text: "changed")
    assert klieg.get(klieg.put({1j})) == {"changed"}
    deregister_serializer(complex)
    assert klieg.get(klieg.put([1j])) == [1j]


def test_what_cannot_be_pickled_is_found_and_named():
    out = io.StringIO()
    good, failures = inspect_serializability({"a": [Guarded(1)], "b": 2}, name="it", print_file=out)
    assert not good
    (failure,) = failures
    assert (failure.name, type(failure.obj)) == ("it['a'][0].lock", type(threading.Lock()))
    assert isinstance(failure.parent, Guarded)
    assert "it['a'][0].lock" in out.getvalue()


def test_what_a_function_captures_is_found():
    lock = threading.Lock()

    def work():
        return lock

    good, failures = inspect_serializability(work, print_file=io.StringIO())
    assert (good, [failure.obj for failure in failures]) == (False, [lock])


def test_what_can_be_pickled_is_said_to_be(capsys):
    assert inspect_serializability([1, 2], name="numbers") == (True, set())
    assert capsys.readouterr().out == "numbers can be pickled.\n"


def test_something_is_said_once(engine):
    assert [log_once(f"a key, {engine}"), log_once(f"another, {engine}"), log_once(f"a key, {engine}")] == [
        True,
        True,
        False,
    ]


def test_saying_it_once_can_be_turned_off_and_made_periodic():
    program = """
import klieg.util.once as once
assert once.log_once("a") and not once.log_once("a")
once.enable_periodic_logging()
assert not once.log_once("a")
once.PERIOD = -1.0
assert once.log_once("a") and once.log_once("a")
once.disable_log_once_globally()
assert not once.log_once("b")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
