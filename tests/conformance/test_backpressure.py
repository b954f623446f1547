"""`max_pending_calls`: a bound on the calls that wait and run, and what happens at it."""

import asyncio
import threading

import pytest

import klieg
from klieg.exceptions import PendingCallsLimitExceeded


@klieg.remote
class Actor:
    def wait_at(self, gate):
        gate.wait()
        return "finished"

    def ping(self):
        return "pong"


def test_one_call_too_many_raises_at_the_call(gate):
    actor = Actor.options(max_pending_calls=3).remote()
    refs = [actor.wait_at.remote(gate) for _ in range(3)]
    with pytest.raises(PendingCallsLimitExceeded, match="3"):
        actor.ping.remote()
    gate.open()
    assert klieg.get(refs) == ["finished"] * 3
    assert klieg.get(actor.ping.remote()) == "pong"


def test_a_finished_call_makes_room():
    actor = Actor.options(max_pending_calls=1).remote()
    assert [klieg.get(actor.ping.remote()) for _ in range(20)] == ["pong"] * 20


@pytest.mark.parametrize("unlimited", [0, -1])
def test_zero_and_minus_one_are_no_limit(gate, unlimited):
    actor = Actor.options(max_pending_calls=unlimited).remote()
    refs = [actor.wait_at.remote(gate) for _ in range(50)]
    gate.open()
    assert len(klieg.get(refs)) == 50


def test_a_failed_call_makes_room_too():
    @klieg.remote(max_pending_calls=1)
    class Failing:
        def fail(self):
            raise ValueError("no")

    actor = Failing.remote()
    for _ in range(5):
        with pytest.raises(ValueError, match="no"):
            klieg.get(actor.fail.remote())


def test_a_refused_call_takes_no_room():
    actor = Actor.options(max_pending_calls=1).remote()
    for _ in range(3):
        with pytest.raises(TypeError):
            actor.ping.remote(threading.Lock())
        with pytest.raises(TypeError):
            actor.ping.remote("one too many")
    assert klieg.get(actor.ping.remote()) == "pong"


def test_on_full_block_waits_for_room(gate):
    actor = Actor.options(max_pending_calls=1, on_full="block").remote()
    first = actor.wait_at.remote(gate)
    found = []
    caller = threading.Thread(target=lambda: found.append(klieg.get(actor.ping.remote())))
    caller.start()
    assert klieg.wait([first], timeout=0.05)[0] == []
    assert found == []
    gate.open()
    caller.join(10)
    assert (klieg.get(first), found) == ("finished", ["pong"])


def test_on_full_await_waits_for_room_without_blocking_the_loop(gate):
    actor = Actor.options(max_pending_calls=1, on_full="await").remote()

    async def main():
        first = actor.wait_at.remote(gate)
        second = asyncio.ensure_future(actor.ping.remote())
        await asyncio.sleep(0.02)
        assert not second.done()
        gate.open()
        return await first, await second

    assert asyncio.run(main()) == ("finished", "pong")


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="on_full"):
        Actor.options(on_full="shrug")


def test_a_killed_actor_frees_those_who_wait_for_room(gate, journal):
    @klieg.remote(max_pending_calls=1, on_full="block")
    class Blocked:
        def wait_at(self, gate):
            journal.note("in")
            gate.wait()

    actor = Blocked.remote()
    actor.wait_at.remote(gate)
    journal.next()
    errors = []

    def call():
        try:
            klieg.get(actor.wait_at.remote(gate))
        except klieg.exceptions.KliegError as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    klieg.kill(actor)
    caller.join(10)
    assert isinstance(errors[0], klieg.exceptions.ActorDiedError)
