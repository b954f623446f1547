"""Async actors: one event loop, many calls interleaved on it."""

import asyncio
import inspect
import threading
import time

import pytest

import klieg


@klieg.remote
class Door:
    """Calls wait in it until it is opened."""

    def __init__(self):
        self.event = asyncio.Event()
        self.inside = 0

    async def enter(self, value=None):
        self.inside += 1
        await self.event.wait()
        self.inside -= 1
        return value

    async def count(self):
        return self.inside

    async def open(self):
        self.event.set()


def test_many_calls_are_inside_one_actor_at_once():
    door = Door.remote()
    refs = [door.enter.remote(i) for i in range(50)]
    assert klieg.get(door.count.remote()) == 50
    door.open.remote()
    assert klieg.get(refs) == list(range(50))


def test_a_later_call_can_overtake_an_earlier_one():
    door = Door.remote()
    first = door.enter.remote()
    assert klieg.get(door.count.remote()) == 1
    assert klieg.wait([first], timeout=0)[0] == []
    klieg.get(door.open.remote())
    klieg.get(first)


def test_all_calls_run_on_one_thread_and_one_loop():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.places = {self.place()}

        def place(self):
            return threading.get_ident(), id(asyncio.get_running_loop())

        async def come(self):
            await asyncio.sleep(0)
            self.places.add(self.place())

        def come_sync(self):
            self.places.add(self.place())

        async def read(self):
            return len(self.places)

    actor = Actor.remote()
    klieg.get([actor.come.remote() for _ in range(20)] + [actor.come_sync.remote()])
    assert klieg.get(actor.read.remote()) == 1


def test_the_constructor_may_start_background_tasks():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.done = asyncio.Event()
            self.task = asyncio.create_task(self.work())

        async def work(self):
            await asyncio.sleep(0)
            self.done.set()

        async def wait(self):
            await self.done.wait()
            return "worked"

    assert klieg.get(Actor.remote().wait.remote()) == "worked"


def test_an_async_constructor_is_awaited_before_the_first_call():
    @klieg.remote
    class Actor:
        async def __init__(self, value):
            await asyncio.sleep(0.01)
            self.value = value

        async def read(self):
            return self.value

    assert klieg.get(Actor.remote(3).read.remote()) == 3


def test_an_error_in_an_async_constructor_kills_the_actor():
    @klieg.remote
    class Actor:
        async def __init__(self):
            await asyncio.sleep(0)
            raise KeyError("the reason")

        async def read(self):
            return 1

    with pytest.raises(klieg.exceptions.ActorDiedError, match="the reason"):
        klieg.get(Actor.remote().read.remote())


def test_primitives_made_in_the_constructor_belong_to_the_loop():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.lock = asyncio.Lock()
            self.most = self.inside = 0

        async def enter(self):
            async with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
                await asyncio.sleep(0)
                self.inside -= 1

        async def read(self):
            return self.most

    actor = Actor.remote()
    klieg.get([actor.enter.remote() for _ in range(20)])
    assert klieg.get(actor.read.remote()) == 1


def test_a_sync_method_runs_on_the_loop_and_is_atomic():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.value = 0

        async def nothing(self):
            await asyncio.sleep(0)

        def add(self):
            before = self.value
            time.sleep(0.0001)
            self.value = before + 1
            return self.value

    actor = Actor.remote()
    refs = [(actor.nothing.remote(), actor.add.remote())[1] for _ in range(50)]
    assert klieg.get(refs) == list(range(1, 51))


def test_a_method_that_never_awaits_is_answered_too():
    @klieg.remote
    class Actor:
        async def echo(self, x):
            return x

    actor = Actor.remote()
    assert klieg.get([actor.echo.remote(i) for i in range(300)]) == list(range(300))


def test_a_background_task_outlives_its_call():
    @klieg.remote
    class Actor:
        async def start(self):
            self.go, self.done = asyncio.Event(), asyncio.Event()
            self.task = asyncio.create_task(self.work())

        async def work(self):
            await self.go.wait()
            self.done.set()

        async def finish(self):
            self.go.set()
            await self.done.wait()
            return True

    actor = Actor.remote()
    klieg.get(actor.start.remote())
    assert klieg.get(actor.finish.remote()) is True


def test_a_failed_background_task_does_not_kill_the_actor():
    @klieg.remote
    class Actor:
        async def start(self):
            async def fail():
                raise ValueError("lost")

            task = asyncio.create_task(fail())
            await asyncio.wait([task])
            task.exception()

        async def ping(self):
            return True

    actor = Actor.remote()
    klieg.get(actor.start.remote())
    assert klieg.get(actor.ping.remote()) is True


def test_an_error_in_a_method_leaves_the_others_running():
    @klieg.remote
    class Actor:
        async def fail(self):
            await asyncio.sleep(0)
            raise ValueError("no")

    door, actor = Door.remote(), Actor.remote()
    waiting = door.enter.remote(1)
    with pytest.raises(ValueError, match="no"):
        klieg.get(actor.fail.remote())
    door.open.remote()
    assert klieg.get(waiting) == 1


def test_an_actor_awaits_a_task():
    @klieg.remote
    def double(x):
        return 2 * x

    @klieg.remote
    class Actor:
        async def run(self, x):
            return await double.remote(x) + 1

    assert klieg.get(Actor.remote().run.remote(4)) == 9


def test_an_actor_awaits_other_actors():
    @klieg.remote
    class Leaf:
        async def double(self, x):
            await asyncio.sleep(0)
            return 2 * x

    @klieg.remote
    class Root:
        def __init__(self, leaves):
            self.leaves = leaves

        async def run(self, x):
            return sum(await asyncio.gather(*[leaf.double.remote(x) for leaf in self.leaves]))

    root = Root.remote([Leaf.remote(), Leaf.remote()])
    assert klieg.get([root.run.remote(i) for i in range(20)]) == [4 * i for i in range(20)]


def test_an_actor_awaits_itself():
    @klieg.remote
    class Actor:
        async def outer(self, me):
            return await me.inner.remote()

        async def inner(self):
            return "inner"

    actor = Actor.remote()
    assert klieg.get(actor.outer.remote(actor)) == "inner"


def test_two_actors_await_each_other():
    @klieg.remote
    class Player:
        async def play(self, other, me, left):
            if left == 0:
                return 0
            return 1 + await other.play.remote(me, other, left - 1)

    a, b = Player.remote(), Player.remote()
    assert klieg.get(a.play.remote(b, a, 10)) == 10


@pytest.mark.parametrize("verb", ["get", "wait"])
def test_a_blocking_verb_on_the_loop_is_refused(verb):
    @klieg.remote
    class Actor:
        async def block(self, refs):
            return getattr(klieg, verb)(refs)

    with pytest.raises(klieg.exceptions.BlockingGetError, match="await") as caught:
        klieg.get(Actor.remote().block.remote([klieg.put(1)]))
    assert isinstance(caught.value, RuntimeError)
    assert "test_async_actors.py" in str(caught.value)


def test_a_blocking_get_in_a_sync_method_on_the_loop_is_refused_too():
    @klieg.remote
    class Actor:
        def block(self, refs):
            return klieg.get(refs)

        async def ping(self):
            return True

    actor = Actor.remote()
    with pytest.raises(klieg.exceptions.BlockingGetError):
        klieg.get(actor.block.remote([klieg.put(1)]))
    assert klieg.get(actor.ping.remote()) is True


def test_a_blocking_get_in_another_thread_of_the_actor_is_fine():
    @klieg.remote
    class Actor:
        async def run(self, refs):
            return await asyncio.to_thread(klieg.get, refs)

    assert klieg.get(Actor.remote().run.remote([klieg.put(5)])) == [5]


def test_asyncio_run_inside_a_method_raises_what_asyncio_says():
    @klieg.remote
    class Actor:
        async def nest(self):
            coroutine = asyncio.sleep(0)
            try:
                asyncio.run(coroutine)
            finally:
                coroutine.close()

    with pytest.raises(RuntimeError, match="running event loop"):
        klieg.get(Actor.remote().nest.remote())


def test_calls_do_not_share_their_context_variables():
    import contextvars

    @klieg.remote
    class Actor:
        def __init__(self):
            self.variable = contextvars.ContextVar("variable", default=0)

        async def set(self, value):
            before = self.variable.get()
            self.variable.set(value)
            await asyncio.sleep(0)
            return before, self.variable.get()

    actor = Actor.remote()
    refs = [actor.set.remote(i) for i in range(1, 6)]
    assert klieg.get(refs) == [(0, i) for i in range(1, 6)]


def test_static_and_class_methods_may_be_async():
    @klieg.remote
    class Actor:
        @staticmethod
        async def static():
            return "static"

        @classmethod
        async def of_class(cls):
            return cls.__name__

    actor = Actor.remote()
    assert klieg.get([actor.static.remote(), actor.of_class.remote()]) == ["static", "Actor"]


def test_async_context_managers_and_executors_work_inside():
    @klieg.remote
    class Actor:
        async def run(self):
            async with asyncio.timeout(5):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(None, sum, [1, 2, 3])

    assert klieg.get(Actor.remote().run.remote()) == 6


def test_a_method_may_cancel_its_own_children():
    @klieg.remote
    class Actor:
        async def run(self):
            task = asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

    assert klieg.get(Actor.remote().run.remote()) is True


def test_a_task_group_inside_a_method_raises_its_group():
    @klieg.remote
    class Actor:
        async def run(self):
            async def fail():
                raise ValueError("in the group")

            async with asyncio.TaskGroup() as group:
                group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        klieg.get(Actor.remote().run.remote())
    assert [str(e) for e in caught.value.exceptions] == ["in the group"]


def test_a_wrapper_that_returns_a_coroutine_says_why_it_fails_or_is_awaited():
    @klieg.remote
    class Actor:
        async def real(self):
            return 1

        def wrapped(self):
            return self.real()

    ref = Actor.remote().wrapped.remote()
    klieg.wait([ref])
    outcome = ref.exception() or ref.result()
    assert outcome == 1 or "coroutine" in str(outcome)


def test_the_task_of_a_call_is_named_after_the_method():
    @klieg.remote
    class Actor:
        async def name(self):
            return asyncio.current_task().get_name()

    assert "name" in klieg.get(Actor.remote().name.remote())


def test_a_killed_async_actor_fails_what_is_inside():
    door = Door.remote()
    refs = [door.enter.remote() for _ in range(10)]
    klieg.get(door.count.remote())
    klieg.kill(door)
    for ref in refs:
        with pytest.raises(klieg.exceptions.ActorDiedError):
            klieg.get(ref, timeout=10)


def test_a_handle_knows_nothing_of_the_instance():
    assert not inspect.iscoroutinefunction(Door.remote().enter.remote)


def test_an_async_method_may_ask_for_and_create_named_actors() -> None:
    """Each asks the head and waits for the answer, which must get in while the method holds the loop."""

    @klieg.remote
    class Plain:
        def ping(self) -> str:
            return "here"

    @klieg.remote
    class Async:
        async def create(self) -> str:
            self.plain = Plain.options(name="plain").remote()
            return await klieg.get_actor("plain").ping.remote()

    assert klieg.get(Async.remote().create.remote(), timeout=10) == "here"
