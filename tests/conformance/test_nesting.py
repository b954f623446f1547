"""Tasks in tasks, actors in actors: a worker that waits gives its CPU back."""

import os

import gates
import pytest

import klieg
from klieg.exceptions import ActorDiedError


@klieg.remote
def add_one(x):
    return x + 1


@klieg.remote
def count_down(left):
    return klieg.get(count_down.remote(left - 1)) + 1 if left else 0


def test_a_task_calls_a_task():
    @klieg.remote
    def outer(x):
        return klieg.get(add_one.remote(x)) * 10

    assert klieg.get(outer.remote(1)) == 20


def test_tasks_nest_deeper_than_there_are_cpus():
    assert klieg.get(count_down.remote(12), timeout=30) == 12


def test_a_tree_of_tasks_wider_than_the_cpus_ends():
    @klieg.remote
    def tree(depth):
        return 1 if depth == 0 else sum(klieg.get([tree.remote(depth - 1) for _ in range(3)]))

    assert klieg.get(tree.remote(3), timeout=30) == 27


@pytest.mark.parametrize("verb", ["get", "wait"])
def test_a_task_that_waits_gives_its_cpu_back(engine, verb):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1)

    @klieg.remote
    def outer():
        ref = add_one.remote(1)
        if verb == "wait":
            klieg.wait([ref])
        return klieg.get(ref)

    assert klieg.get(outer.remote(), timeout=10) == 2


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_a_task_that_goes_on_has_its_cpu_again(engine):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1)

    @klieg.remote
    def outer():
        klieg.get(add_one.remote(1))
        return klieg.available_resources().get("CPU", 0)

    assert klieg.get(outer.remote(), timeout=10) == 0


def test_a_task_returns_a_ref_of_its_own_call():
    @klieg.remote
    def outer():
        return [add_one.remote(1)]

    (ref,) = klieg.get(outer.remote())
    assert klieg.get(ref) == 2


def test_an_actor_creates_actors():
    @klieg.remote
    class Leaf:
        def __init__(self, x):
            self.x = x

        def read(self):
            return self.x

    @klieg.remote
    class Root:
        def __init__(self):
            self.leaves = [Leaf.remote(i) for i in range(3)]

        def read(self):
            return klieg.get([leaf.read.remote() for leaf in self.leaves])

        def give(self):
            return self.leaves

    root = Root.remote()
    assert klieg.get(root.read.remote()) == [0, 1, 2]
    assert klieg.get([leaf.read.remote() for leaf in klieg.get(root.give.remote())]) == [0, 1, 2]


def test_a_tree_of_actors_five_deep():
    @klieg.remote
    class Node:
        def __init__(self, depth):
            self.child = Node.remote(depth - 1) if depth else None

        def depth(self):
            return 1 + (klieg.get(self.child.depth.remote()) if self.child else 0)

    assert klieg.get(Node.remote(4).depth.remote(), timeout=30) == 5


def test_a_task_calls_an_actor_that_calls_a_task():
    @klieg.remote
    class Actor:
        def run(self, x):
            return klieg.get(add_one.remote(x))

    @klieg.remote
    def outer(actor):
        return klieg.get(actor.run.remote(1))

    assert klieg.get(outer.remote(Actor.remote())) == 2


def test_a_plain_actor_that_waits_for_itself_times_out():
    @klieg.remote
    class Actor:
        def outer(self, me):
            try:
                return klieg.get(me.inner.remote(), timeout=0.05)
            except (klieg.exceptions.GetTimeoutError, klieg.exceptions.BlockingGetError) as error:
                return type(error).__name__

        def inner(self):
            return "inner"

    actor = Actor.remote()
    assert klieg.get(actor.outer.remote(actor)) in {"GetTimeoutError", "BlockingGetError"}


def test_a_wait_for_oneself_that_can_never_end_raises():
    @klieg.remote
    class Actor:
        def outer(self, me):
            return klieg.get(me.inner.remote())

        def inner(self):
            return "inner"

    actor = Actor.remote()
    with pytest.raises(klieg.exceptions.BlockingGetError):
        klieg.get(actor.outer.remote(actor), timeout=10)


def test_an_async_actor_runs_tasks_that_call_it_back():
    @klieg.remote
    class Actor:
        async def outer(self, me):
            return await ask_back.remote(me)

        async def inner(self):
            return "inner"

    @klieg.remote
    def ask_back(actor):
        return klieg.get(actor.inner.remote())

    actor = Actor.remote()
    assert klieg.get(actor.outer.remote(actor), timeout=10) == "inner"


def test_a_task_puts_a_value_that_outlives_it():
    @klieg.remote
    class Keeper:
        def make(self):
            return [klieg.put("kept")]

    keeper = Keeper.remote()
    (ref,) = klieg.get(keeper.make.remote())
    assert klieg.get(ref) == "kept"


@pytest.mark.not_on_ray("Ray still reads the copy in the store of a node")
@pytest.mark.needs_process("inline, the owner of everything is this process")
def test_a_value_whose_owner_died_is_lost_with_a_clear_error():
    @klieg.remote
    class Owner:
        def make(self):
            return [klieg.put(bytes(200_000))]

        def die(self):
            os._exit(1)

    owner = Owner.remote()
    (ref,) = klieg.get(owner.make.remote())
    with pytest.raises(ActorDiedError):
        klieg.get(owner.die.remote(), timeout=10)
    with pytest.raises(klieg.exceptions.OwnerDiedError):
        klieg.get(ref, timeout=10)


def test_the_children_of_a_killed_actor_die_with_it():
    @klieg.remote
    class Child:
        def ping(self):
            return True

    @klieg.remote
    class Parent:
        def __init__(self):
            self.child = Child.remote()

        def give(self):
            return [self.child]

    parent = Parent.remote()
    (child,) = klieg.get(parent.give.remote())
    assert klieg.get(child.ping.remote()) is True
    klieg.kill(parent)
    gates.soon_raises(ActorDiedError, lambda: klieg.get(child.ping.remote()))
