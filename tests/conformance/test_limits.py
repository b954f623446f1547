"""`max_concurrency` is a limit: reached, never passed, and a free place is taken at once."""

import asyncio
import os
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


@klieg.remote(concurrency_groups={"io": 1})
class Meeting:
    """Calls of it end when as many as the barrier wants are inside at once."""

    def __init__(self, parties):
        self.barrier = asyncio.Barrier(parties)

    async def meet(self):
        await self.barrier.wait()

    @klieg.method(concurrency_group="io")
    async def meet_in_io(self):
        await self.barrier.wait()


@klieg.remote(max_concurrency=2)
class Threads:
    def __init__(self, parties):
        self.barrier = threading.Barrier(parties)

    def meet(self):
        self.barrier.wait(10)

    def names(self):
        self.barrier.wait(10)
        return threading.current_thread().name


@pytest.mark.parametrize("actor_class", [Meeting, Threads], ids=["async", "threaded"])
def test_a_limit_that_is_raised_lets_waiting_calls_start(actor_class):
    actor = actor_class.options(max_concurrency=2).remote(5)
    refs = [actor.meet.remote() for _ in range(5)]
    assert klieg.wait(refs, timeout=0.05)[0] == []
    actor.resize(max_concurrency=5)
    klieg.get(refs, timeout=10)
    assert actor.stats()["default"]["limit"] == 5  # a caller has its answer a moment before the place is free


def test_a_group_is_resized_by_its_name():
    actor = Meeting.remote(3)
    refs = [actor.meet_in_io.remote() for _ in range(3)]
    actor.resize(io=3)
    klieg.get(refs, timeout=10)
    assert actor.stats()["io"]["limit"] == 3


def test_a_limit_that_is_lowered_is_kept_from_then_on(gate, journal):
    @klieg.remote(max_concurrency=4)
    class Pool:
        def work(self, gate):
            journal.note("in")
            gate.wait()

        def count(self, barrier=None):
            return True

    pool = Pool.remote()
    refs = [pool.work.remote(gate) for _ in range(4)]
    journal.take(4)
    pool.resize(1)
    waiting = [pool.count.remote() for _ in range(3)]
    assert klieg.wait(waiting, timeout=0.05)[0] == []
    assert pool.stats()["default"] == {"queued": 3, "running": 4, "limit": 1}
    gate.open()
    klieg.get(refs + waiting, timeout=10)


def test_threads_are_made_when_needed_named_and_used_again():
    actor = Threads.options(max_concurrency=2).remote(2)
    for _ in range(20):
        assert set(klieg.get([actor.names.remote(), actor.names.remote()])) == {"Threads-0", "Threads-1"}


def test_a_resize_is_done_when_it_returns():
    actor = Meeting.remote(1)
    for limit in (3, 1, 100_000):
        actor.resize(limit, io=limit)
        assert {name: group["limit"] for name, group in actor.stats().items()} == {"default": limit, "io": limit}


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_concurrency": 0}, ValueError),
        ({"max_concurrency": "2"}, TypeError),
        ({"max_concurrency": True}, TypeError),
        ({"io": -1}, ValueError),
        ({"missing": 2}, ValueError),
        ({}, ValueError),
    ],
    ids=str,
)
def test_a_resize_to_no_limit_is_refused(limits, error):
    actor = Meeting.remote(1)
    with pytest.raises(error):
        actor.resize(**limits)
    assert actor.stats()["default"]["limit"] == 1000


def test_a_plain_actor_cannot_be_resized():
    @klieg.remote
    class Plain:
        def ping(self):
            return True

    plain = Plain.remote()
    with pytest.raises(ValueError, match="max_concurrency=2"):
        plain.resize(2)
    assert klieg.get(plain.ping.remote())


def test_a_dead_actor_cannot_be_resized():
    actor = Meeting.remote(1)
    klieg.kill(actor)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        actor.resize(2)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        actor.stats()


def test_another_process_can_resize_an_actor_that_it_has_not_called_yet():
    @klieg.remote
    def resize(actor):
        actor.resize(7)
        return actor.stats()["default"]["limit"]

    assert klieg.get(resize.remote(Meeting.remote(1))) == 7


def test_methods_of_the_users_own_win_over_the_handles():
    @klieg.remote(max_concurrency=2)
    class Actor:
        def stats(self):
            return "mine"

        def resize(self):
            return "mine, too"

    actor = Actor.remote()
    assert klieg.get([actor.stats.remote(), actor.resize.remote()]) == ["mine", "mine, too"]
    klieg.ActorHandle.resize(actor, 3)
    assert klieg.ActorHandle.stats(actor)["default"]["limit"] == 3


@pytest.mark.needs_process("inline, the process would be the test's own")
def test_a_restarted_actor_keeps_the_limits_it_was_resized_to(journal):
    @klieg.remote(max_concurrency=2, max_restarts=1)
    class Mortal:
        def __init__(self):
            journal.note("made")

        def die(self):
            os._exit(1)

    mortal = Mortal.remote()
    journal.next()
    mortal.resize(9)
    with pytest.raises(klieg.exceptions.ActorUnavailableError):
        klieg.get(mortal.die.remote(), timeout=10)
    journal.next()
    assert mortal.stats()["default"]["limit"] == 9
