"""`max_concurrency` is a limit: reached, never passed, and a free place is taken at once."""

import asyncio
import threading

import pytest

import klieg


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_an_async_actor_reaches_its_limit_and_never_passes_it(limit):
    @klieg.remote(max_concurrency=limit)
    class Actor:
        def __init__(self):
            self.inside = self.most = 0

        async def work(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            for _ in range(5):
                await asyncio.sleep(0)
            self.inside -= 1

        async def read(self):
            return self.most

    actor = Actor.remote()
    klieg.get([actor.work.remote() for _ in range(10 * limit)])
    assert klieg.get(actor.read.remote()) == limit


def test_as_many_calls_as_the_limit_meet():
    @klieg.remote(max_concurrency=10)
    class Actor:
        def __init__(self):
            self.barrier = asyncio.Barrier(10)

        async def meet(self):
            await self.barrier.wait()

    actor = Actor.remote()
    klieg.get([actor.meet.remote() for _ in range(50)], timeout=20)


def test_places_are_refilled_one_by_one(gate, journal):
    @klieg.remote(max_concurrency=2)
    class Actor:
        async def work(self, name, gate):
            journal.note(name)
            if gate is not None:
                await asyncio.to_thread(gate.wait)

    actor = Actor.remote()
    held = actor.work.remote("held", gate)
    others = [actor.work.remote(i, None) for i in range(5)]
    assert klieg.get(others, timeout=10) == [None] * 5
    assert journal.take(6) == ["held", "0", "1", "2", "3", "4"]
    gate.open()
    klieg.get(held)


def test_the_default_of_an_async_actor_is_a_thousand():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.door = asyncio.Event()
            self.inside = self.most = 0

        async def enter(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == 1000:
                asyncio.get_running_loop().call_later(0.05, self.door.set)
            await self.door.wait()
            self.inside -= 1

        async def read(self):
            return self.most

    actor = Actor.remote()
    klieg.get([actor.enter.remote() for _ in range(1100)], timeout=20)
    assert klieg.get(actor.read.remote()) == 1000


def test_options_set_the_limit_of_one_actor():
    @klieg.remote
    class Actor:
        def __init__(self, parties):
            self.barrier = threading.Barrier(parties)

        def meet(self):
            self.barrier.wait(10)
            return True

    actor = Actor.options(max_concurrency=3).remote(3)
    assert klieg.get([actor.meet.remote() for _ in range(3)]) == [True] * 3


def test_sync_methods_count_against_the_limit_too(gate, journal):
    @klieg.remote(max_concurrency=1)
    class Actor:
        async def hold(self, gate):
            journal.note("holds")
            await asyncio.to_thread(gate.wait)

        def sync(self):
            journal.note("sync")

    actor = Actor.remote()
    held, waiting = actor.hold.remote(gate), actor.sync.remote()
    assert journal.next() == "holds"
    assert klieg.wait([waiting], timeout=0.05)[0] == []
    gate.open()
    klieg.get([held, waiting])
    assert journal.next() == "sync"


def test_a_failed_call_frees_its_place():
    @klieg.remote(max_concurrency=1)
    class Actor:
        async def fail(self):
            raise ValueError("no")

        async def ping(self):
            return True

    actor = Actor.remote()
    refs = [actor.fail.remote() for _ in range(5)]
    assert klieg.get(actor.ping.remote()) is True
    for ref in refs:
        with pytest.raises(ValueError, match="no"):
            klieg.get(ref)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_limit_below_one_is_refused(wrong):
    class Actor:
        async def ping(self):
            pass

    with pytest.raises(ValueError, match="max_concurrency"):
        klieg.remote(max_concurrency=wrong)(Actor)
    with pytest.raises(ValueError, match="max_concurrency"):
        klieg.remote(Actor).options(max_concurrency=wrong)


@pytest.mark.parametrize("wrong", [1.5, "2", True])
def test_a_limit_that_is_no_integer_is_refused(wrong):
    with pytest.raises(TypeError, match="max_concurrency"):
        klieg.remote(max_concurrency=wrong)(type("Actor", (), {}))


def test_a_huge_limit_costs_nothing_until_it_is_used():
    @klieg.remote(max_concurrency=100_000)
    class Actor:
        def count(self):
            return threading.active_count()

    assert klieg.get(Actor.remote().count.remote()) < 20


def test_a_self_call_of_an_actor_with_one_place_waits_until_it_is_given_up():
    @klieg.remote(max_concurrency=1)
    class Actor:
        async def outer(self, me):
            try:
                async with asyncio.timeout(0.05):
                    await me.inner.remote()
            except TimeoutError:
                return "gave up"

        async def inner(self):
            return "inner"

    actor = Actor.remote()
    assert klieg.get(actor.outer.remote(actor)) == "gave up"
