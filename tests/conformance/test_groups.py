"""Concurrency groups: named limits inside one actor, on one loop or in one pool each."""

import asyncio
import threading

import pytest

import klieg


@klieg.remote(concurrency_groups={"io": 2, "compute": 1})
class Async:
    def __init__(self):
        self.lock = asyncio.Lock()
        self.inside = {"io": 0, "compute": 0, "default": 0}
        self.most = dict(self.inside)

    async def _stay(self, group):
        self.inside[group] += 1
        self.most[group] = max(self.most[group], self.inside[group])
        for _ in range(5):
            await asyncio.sleep(0)
        self.inside[group] -= 1

    @klieg.method(concurrency_group="io")
    async def io(self):
        await self._stay("io")

    @klieg.method(concurrency_group="compute")
    async def compute(self):
        await self._stay("compute")

    async def default(self):
        await self._stay("default")

    async def limits_reached(self):
        return self.most

    @klieg.method(concurrency_group="io")
    async def lock_in_io(self):
        async with self.lock:
            await asyncio.sleep(0)
        return threading.get_ident(), id(asyncio.get_running_loop())

    async def lock_in_default(self):
        async with self.lock:
            await asyncio.sleep(0)
        return threading.get_ident(), id(asyncio.get_running_loop())

    @klieg.method(concurrency_group="io")
    async def block(self, gate):
        await asyncio.to_thread(gate.wait)


@klieg.remote(concurrency_groups={"io": 2})
class Threaded:
    def __init__(self):
        self.barrier = threading.Barrier(2)

    @klieg.method(concurrency_group="io")
    def meet(self):
        self.barrier.wait(10)
        return True

    @klieg.method(concurrency_group="io")
    def block(self, gate):
        gate.wait()

    def ping(self):
        return "pong"


def test_each_group_has_its_limit():
    actor = Async.remote()
    methods = (actor.io, actor.compute, actor.default)
    klieg.get([method.remote() for _ in range(20) for method in methods])
    most = klieg.get(actor.limits_reached.remote())
    assert (most["io"], most["compute"]) == (2, 1)
    assert most["default"] > 2


def test_all_groups_share_one_loop_and_its_locks():
    actor = Async.remote()
    refs = [m.remote() for _ in range(5) for m in (actor.lock_in_io, actor.lock_in_default)]
    assert len(set(klieg.get(refs, timeout=10))) == 1


def test_a_full_group_does_not_delay_another(gate):
    actor = Async.remote()
    blocked = [actor.block.remote(gate) for _ in range(4)]
    klieg.get([actor.compute.remote(), actor.default.remote()], timeout=10)
    assert klieg.wait(blocked, timeout=0)[0] == []
    gate.open()
    klieg.get(blocked)


def test_a_group_of_threads_runs_as_many_as_its_size():
    actor = Threaded.remote()
    assert klieg.get([actor.meet.remote(), actor.meet.remote()]) == [True, True]


def test_a_full_group_of_threads_does_not_delay_the_default(gate):
    actor = Threaded.remote()
    blocked = [actor.block.remote(gate) for _ in range(3)]
    assert klieg.get(actor.ping.remote(), timeout=10) == "pong"
    gate.open()
    klieg.get(blocked)


def test_a_call_can_choose_its_group(gate):
    actor = Threaded.remote()
    blocked = [actor.block.options(concurrency_group="default").remote(gate)]
    assert klieg.get([actor.meet.remote(), actor.meet.remote()], timeout=10) == [True, True]
    ping = actor.ping.remote()
    assert klieg.wait([ping], timeout=0.05)[0] == []
    gate.open()
    klieg.get([*blocked, ping])


def test_the_default_group_can_be_given_a_size():
    @klieg.remote(concurrency_groups={"default": 2})
    class Actor:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def meet(self):
            self.barrier.wait(10)
            return True

    actor = Actor.remote()
    assert klieg.get([actor.meet.remote(), actor.meet.remote()]) == [True, True]


def test_options_keep_the_declared_groups():
    actor = Threaded.options(name="named").remote()
    assert klieg.get([actor.meet.remote(), actor.meet.remote()]) == [True, True]


def test_calls_of_a_group_start_in_order(journal):
    @klieg.remote(concurrency_groups={"io": 1})
    class Actor:
        @klieg.method(concurrency_group="io")
        async def note(self, i):
            journal.note(i)
            await asyncio.sleep(0)

    actor = Actor.remote()
    klieg.get([actor.note.remote(i) for i in range(100)])
    assert journal.take(100) == [str(i) for i in range(100)]


def test_an_undeclared_group_fails_when_the_class_is_decorated():
    with pytest.raises(ValueError, match=r"missing.*io"):

        @klieg.remote(concurrency_groups={"io": 1})
        class Actor:
            @klieg.method(concurrency_group="missing")
            def work(self):
                pass


def test_an_undeclared_group_fails_when_the_call_is_made():
    actor = Threaded.remote()
    with pytest.raises(ValueError, match=r"missing.*io"):
        actor.ping.options(concurrency_group="missing").remote()
    assert klieg.get(actor.ping.remote()) == "pong"


@pytest.mark.parametrize("size", [0, -1])
def test_a_group_smaller_than_one_fails_when_the_class_is_decorated(size):
    with pytest.raises(ValueError, match="concurrency_groups"):
        klieg.remote(concurrency_groups={"io": size})(type("Actor", (), {}))


def test_the_handle_tells_what_each_group_does(gate, journal):
    @klieg.remote(concurrency_groups={"io": 2})
    class Actor:
        @klieg.method(concurrency_group="io")
        def block(self, gate):
            journal.note("in")
            gate.wait()

    actor = Actor.remote()
    refs = [actor.block.remote(gate) for _ in range(5)]
    journal.take(2)
    klieg.get(actor.__ray_ready__.remote())
    assert actor.stats()["io"] == {"queued": 3, "running": 2, "limit": 2}
    gate.open()
    klieg.get(refs)
