"""What a process says of the objects it knows: `engine.objects()`, on which lists of objects are built."""

from __future__ import annotations

import gates
import pytest

import klieg
from klieg import engine


def listed(ref: klieg.ObjectRef) -> dict:
    """How the engine describes the object of the ref."""
    return next(entry for entry in engine.current().objects() if entry["id"] == ref.hex())


def test_a_put_value_is_listed_with_its_size_until_its_last_ref_is_dropped() -> None:
    ref = klieg.put(b"x" * 1000)
    entry = listed(ref)
    assert (entry["kind"], entry["state"]) == ("put", "value")
    assert 1000 < entry["size"] < 1100
    number = ref.hex()
    del ref
    assert number not in [entry["id"] for entry in engine.current().objects()]


def test_objects_of_the_users_are_not_asked_what_they_are() -> None:
    class Lazy:
        asked = 0

        @property
        def __class__(self) -> type:
            Lazy.asked += 1
            return Lazy

    lazy, ref = [Lazy()], klieg.put(1)
    assert listed(ref)["kind"] == "put"
    assert Lazy.asked == 0
    del lazy


def test_a_call_is_listed_as_pending_with_its_name_and_then_as_its_result(gate: gates.Gate) -> None:
    @klieg.remote
    def wait_and_answer() -> int:
        gate.wait()
        return 1

    ref = wait_and_answer.remote()
    assert (listed(ref)["kind"], listed(ref)["state"]) == ("result", "pending")
    assert listed(ref)["call"].endswith("wait_and_answer")
    gate.open()
    klieg.get(ref)
    assert listed(ref)["state"] == "value"
    assert listed(ref)["call"] is None


def test_a_failed_call_is_listed_as_an_error() -> None:
    @klieg.remote
    def fail() -> None:
        raise ValueError

    ref = fail.remote()
    klieg.wait([ref])
    assert listed(ref)["state"] == "error"
    assert ref.exception() is not None


def test_the_place_of_a_put_is_listed_when_init_was_asked_to_record_it(engine: str) -> None:
    assert listed(klieg.put(1))["site"] is None
    klieg.shutdown()
    klieg.init(engine=engine, record_call_sites=True)
    ref = klieg.put(1)
    site = listed(ref)["site"]
    assert __file__ in site
    assert "test_the_place_of_a_put" in site


@pytest.mark.not_on_ray("Ray counts who holds what")
def test_a_ref_that_an_actor_holds_is_listed_with_its_holder_here_and_as_borrowed_there() -> None:
    @klieg.remote
    class Keeper:
        def keep(self, refs: list) -> list:
            self.refs = refs
            return [entry for entry in engine.current().objects() if entry["kind"] == "borrowed"]

        def drop(self) -> None:
            self.refs = []

    keeper = Keeper.remote()
    ref = klieg.put("kept")
    borrowed = klieg.get(keeper.keep.remote([ref]))
    if engine.current().name == "inline":  # one process: nobody borrows
        assert listed(ref)["holders"] == []
        return
    assert [entry["id"] for entry in borrowed] == [ref.hex()]
    assert borrowed[0]["owner"] == engine.current().process
    assert len(listed(ref)["holders"]) == 1
    klieg.get(keeper.drop.remote())
    gates.soon_raises(ValueError, lambda: listed(ref)["holders"].index(borrowed[0]["owner"]))
