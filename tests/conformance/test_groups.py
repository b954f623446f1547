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


@klieg.remote(concurrency_groups={"health": klieg.ConcurrencyGroup(1, own_loop=True), "io": klieg.ConcurrencyGroup(2)})
class Checked:
    def __init__(self):
        self.beats = 0

    def hold(self, gate):
        gate.wait()

    @klieg.method(concurrency_group="health")
    async def check(self):
        await asyncio.sleep(0)
        self.beats += 1
        return self.beats

    @klieg.method(concurrency_group="health")
    async def where(self):
        return threading.get_ident(), threading.current_thread().name

    @klieg.method(concurrency_group="health")
    def where_sync(self):
        return threading.get_ident()

    @klieg.method(concurrency_group="health")
    async def wait(self, journal):
        journal.note("in")
        await asyncio.Event().wait()

    @klieg.method(concurrency_group="health")
    async def block(self, ref):
        return klieg.get(ref[0])

    async def main(self):
        return threading.get_ident()

    @klieg.method(concurrency_group="io")
    async def io(self):
        return threading.get_ident()


def test_a_group_with_a_loop_of_its_own_answers_while_the_main_loop_is_held(gate):
    actor = Checked.remote()
    held = actor.hold.remote(gate)
    assert [klieg.get(actor.check.remote(), timeout=10) for _ in range(3)] == [1, 2, 3]
    waiting = actor.main.remote()
    assert klieg.wait([waiting], timeout=0)[0] == []
    gate.open()
    klieg.get([held, waiting])


def test_only_the_group_that_asks_leaves_the_main_loop():
    actor = Checked.remote()
    main, io = klieg.get([actor.main.remote(), actor.io.remote()])
    own, name = klieg.get(actor.where.remote())
    assert main == io != own
    assert name == "Checked-health"
    assert klieg.get(actor.where_sync.remote()) == own


def test_a_call_on_an_own_loop_can_be_cancelled(journal):
    actor = Checked.remote()
    ref = actor.wait.remote(journal)
    journal.next()
    klieg.cancel(ref)
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(ref, timeout=10)
    assert klieg.get(actor.check.remote(), timeout=10) == 1


def test_a_blocking_get_on_an_own_loop_is_refused_too():
    actor = Checked.remote()
    with pytest.raises(klieg.exceptions.BlockingGetError):
        klieg.get(actor.block.remote([klieg.put(1)]), timeout=10)


def test_an_own_loop_awaits_the_refs_of_others():
    @klieg.remote(concurrency_groups={"own": klieg.ConcurrencyGroup(5, own_loop=True)})
    class Asker:
        @klieg.method(concurrency_group="own")
        async def ask(self, actor):
            return await asyncio.gather(*(actor.check.remote() for _ in range(3)))

    assert sorted(klieg.get(Asker.remote().ask.remote(Checked.remote()), timeout=10)) == [1, 2, 3]


def test_an_own_loop_of_an_actor_without_async_methods_is_refused():
    with pytest.raises(ValueError, match=r"health.*async"):
        klieg.remote(concurrency_groups={"health": klieg.ConcurrencyGroup(1, own_loop=True)})(type("Actor", (), {}))


def test_the_default_group_has_no_loop_of_its_own():
    class Actor:
        async def ping(self):
            pass

    with pytest.raises(ValueError, match="default"):
        klieg.remote(concurrency_groups={"default": klieg.ConcurrencyGroup(1, own_loop=True)})(Actor)
