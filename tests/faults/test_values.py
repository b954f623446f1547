"""D: arguments and results that die, are many, cannot travel or crash later; on either side of a call."""

import asyncio
import os
import socket
import threading

import gates
import pytest
import victims
from sizes import size

import klieg
from klieg.engines.local.failpoints import ACTIONS
from klieg.exceptions import ActorDiedError, TaskError, WorkerCrashedError


class DiesWhenPickled:
    """Kills the process that pickles it, anywhere but here."""

    def __init__(self, way, home):
        self.way, self.home = way, home

    def __reduce__(self):
        if os.getpid() != self.home:
            ACTIONS[self.way]()
        return DiesWhenPickled, (self.way, self.home)


class DiesWhenLoaded:
    """Kills the process that loads it, anywhere but here."""

    def __init__(self, way, home):
        self.way, self.home = way, home

    def __reduce__(self):
        return load_and_die, (self.way, self.home)


def load_and_die(way, home):
    if os.getpid() != home:
        ACTIONS[way]()
    return DiesWhenLoaded(way, home)


@pytest.mark.parametrize("way", ["segv", "exit7"])
@pytest.mark.parametrize("cls", [DiesWhenPickled, DiesWhenLoaded])
def test_a_value_that_kills_the_worker_that_handles_it_is_the_death_of_that_worker_only(runtime, kind, cls, way):
    neighbour = victims.actor_class("plain").remote()
    with pytest.raises(ActorDiedError, match=victims.SAYS[way]):
        klieg.get(victims.actor_class(kind).remote().echo.remote(cls(way, os.getpid())), timeout=20)
    with pytest.raises(WorkerCrashedError, match=victims.SAYS[way]):
        klieg.get(klieg.remote(victims.echo).options(max_retries=0).remote(cls(way, os.getpid())), timeout=20)
    assert klieg.get(neighbour.add.remote(), timeout=20) == 1


class RaisesWhenDropped:
    """Raises wherever it is dropped, but here."""

    def __init__(self, home):
        self.home = home

    def __del__(self):
        if os.getpid() != self.home:
            raise RuntimeError("dropped")


class DiesWhenDropped:
    def __init__(self, way, home):
        self.way, self.home = way, home

    def __del__(self):
        if os.getpid() != self.home:
            ACTIONS[self.way]()


def test_a_value_that_raises_when_it_is_dropped_changes_nothing(runtime, kind):
    actor = victims.actor_class(kind).remote()
    dropped = [actor.keep.remote(RaisesWhenDropped(os.getpid())), actor.keep.remote(None)]
    assert klieg.get(dropped, timeout=20) == [None, None]
    assert klieg.get(actor.add.remote(), timeout=20) == 1


def test_a_value_that_kills_its_holder_when_it_is_dropped_is_the_death_of_that_call(runtime, kind):
    actor = victims.actor_class(kind).remote()
    klieg.get(actor.keep.remote(DiesWhenDropped("exit7", os.getpid())), timeout=20)
    ref = actor.keep.remote(None)
    died = gates.soon_raises(ActorDiedError, lambda: klieg.get([ref, actor.ping.remote()], timeout=20))
    assert "exit code 7" in str(died)


def test_ten_thousand_arguments_arrive(runtime):
    count = size(10_000, 2_000)
    ref = klieg.put(1)
    total = klieg.remote(lambda *args: sum(args)).remote(*[ref] * 100, *range(count - 100))
    assert klieg.get(total, timeout=30) == 100 + sum(range(count - 100))


def generator():
    yield 1


async def coroutine():
    return 1


UNPICKLABLE = {
    "a socket": socket.socket,
    "a lock": threading.Lock,
    "a generator": generator,
    "a coroutine": coroutine,
    "a file": lambda: open(os.devnull, "w"),  # noqa: SIM115  # it is closed by the test
    "a thread": threading.Thread,
    "a loop": asyncio.new_event_loop,
}


@pytest.mark.parametrize("what", UNPICKLABLE)
def test_what_cannot_travel_is_refused_at_the_call_and_nothing_is_sent(runtime, what):
    actor, value = victims.actor_class("plain").remote(), UNPICKLABLE[what]()
    with pytest.raises(TypeError):
        actor.echo.remote([value])
    assert klieg.get(actor.add.remote(), timeout=20) == 1
    getattr(value, "close", lambda: None)()


def test_a_result_that_cannot_be_loaded_here_is_an_error_each_time_and_the_actor_lives(runtime, kind):
    @klieg.remote
    def unloadable():
        class Unloadable:
            def __reduce__(self):
                return int, ("no number",)

        return Unloadable()

    ref = unloadable.remote()
    for _ in range(2):
        with pytest.raises((TaskError, ValueError)):
            klieg.get(ref, timeout=20)
    assert gates.soon(lambda: klieg.get(klieg.remote(victims.ping).remote(), timeout=20))
