"""Named actors and namespaces."""

import threading

import gates
import pytest

import klieg
from klieg.exceptions import ActorAlreadyExistsError, ActorDiedError


@klieg.remote
class Counter:
    def __init__(self, value=0):
        self.value = value

    def add(self):
        self.value += 1
        return self.value


def test_a_named_actor_is_found():
    counter = Counter.options(name="counter").remote(5)
    assert klieg.get(klieg.get_actor("counter").add.remote()) == 6
    assert klieg.get_actor("counter") == counter


def test_a_named_actor_is_found_before_its_constructor_has_run(gate):
    @klieg.remote
    class Slow:
        def __init__(self, gate):
            gate.wait()

        def ping(self):
            return True

    slow = Slow.options(name="slow").remote(gate)
    found = klieg.get_actor("slow")
    gate.open()
    assert klieg.get(found.ping.remote()) is True
    assert found == slow


def test_a_missing_name_is_a_value_error():
    with pytest.raises(ValueError, match="nobody"):
        klieg.get_actor("nobody")


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_name_is_a_value_error(empty):
    with pytest.raises(ValueError, match="non-empty"):
        klieg.get_actor(empty)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(TypeError):
        klieg.get_actor(3)


def test_a_name_can_be_taken_once():
    first = Counter.options(name="counter").remote()
    with pytest.raises(ActorAlreadyExistsError, match="counter") as caught:
        Counter.options(name="counter").remote()
    assert isinstance(caught.value, ValueError)
    assert klieg.get(first.add.remote()) == 1


def test_get_if_exists_gives_the_actor_that_is_there():
    options = {"name": "counter", "get_if_exists": True}
    first = Counter.options(**options).remote(5)
    second = Counter.options(**options).remote(100)
    assert first == second
    assert klieg.get(second.add.remote()) == 6


def test_a_name_is_free_after_a_kill():
    first = Counter.options(name="counter").remote()
    klieg.kill(first)
    second = Counter.options(name="counter").remote(10)
    assert klieg.get(second.add.remote()) == 11
    with pytest.raises(ActorDiedError):
        klieg.get(first.add.remote())


def test_a_name_is_free_after_a_failed_constructor():
    @klieg.remote
    class Broken:
        def __init__(self):
            raise ValueError("no")

        def ping(self):
            pass

    broken = Broken.options(name="counter").remote()
    with pytest.raises(ActorDiedError):
        klieg.get(broken.ping.remote())
    assert klieg.get(Counter.options(name="counter").remote().add.remote()) == 1


def test_namespaces_are_separate():
    here = Counter.options(name="counter").remote(0)
    there = Counter.options(name="counter", namespace="elsewhere").remote(10)
    assert klieg.get(klieg.get_actor("counter").add.remote()) == 1
    assert klieg.get(klieg.get_actor("counter", "elsewhere").add.remote()) == 11
    assert here != there


def test_workers_inherit_the_namespace():
    counter = Counter.options(name="counter").remote()

    @klieg.remote
    def use():
        return klieg.get(klieg.get_actor("counter").add.remote())

    assert klieg.get(use.remote()) == 1
    assert klieg.get(counter.add.remote()) == 2


def test_an_actor_that_an_actor_has_named_is_found():
    @klieg.remote
    class Keeper:
        def __init__(self):
            self.counter = Counter.options(name="kept").remote(1)

        def ready(self):
            return True

    keeper = Keeper.remote()
    klieg.get(keeper.ready.remote())
    assert klieg.get(klieg.get_actor("kept").add.remote()) == 2


def test_the_drivers_namespace_can_be_chosen(engine):
    klieg.shutdown()
    klieg.init(engine=engine, namespace="mine")
    counter = Counter.options(name="counter").remote()
    assert klieg.get_actor("counter", "mine") == counter
    assert klieg.get_runtime_context().namespace == "mine"


def test_each_runtime_has_a_namespace_of_its_own(engine):
    first = klieg.get_runtime_context().namespace
    klieg.shutdown()
    klieg.init(engine=engine)
    assert klieg.get_runtime_context().namespace != first


def test_of_many_threads_that_want_a_name_exactly_one_wins():
    won = []

    def create(number):
        try:
            won.append(Counter.options(name="counter").remote(number))
        except ActorAlreadyExistsError:
            return

    threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert klieg.get_actor("counter") == won[0]


def test_of_many_tasks_that_want_a_name_all_get_the_same_actor():
    @klieg.remote
    class Keeper:
        def __init__(self):
            self.kept = []

        def keep(self, box):
            self.kept.append(box)

    @klieg.remote
    def create(keeper):
        actor = Counter.options(name="shared", get_if_exists=True).remote()
        klieg.get(keeper.keep.remote([actor]))
        return klieg.get(actor.add.remote())

    keeper = Keeper.remote()
    counter = Counter.options(name="shared", get_if_exists=True).remote()
    assert sorted(klieg.get([create.remote(keeper) for _ in range(8)])) == list(range(1, 9))
    assert klieg.get(counter.add.remote()) == 9


def test_a_handle_from_get_actor_does_not_keep_the_actor_alive():
    counter = Counter.options(name="counter").remote()
    found = klieg.get_actor("counter")
    klieg.get(counter.add.remote())
    del counter
    gates.soon_raises(ActorDiedError, lambda: klieg.get(found.add.remote()))


def test_a_detached_actor_survives_its_handles():
    Counter.options(name="counter", lifetime="detached").remote()
    found = klieg.get_actor("counter")
    assert [klieg.get(found.add.remote()) for _ in range(3)] == [1, 2, 3]
    klieg.kill(found)
    with pytest.raises(ValueError, match="counter"):
        klieg.get_actor("counter")


def test_named_actors_can_be_listed():
    kept = [Counter.options(name=name).remote() for name in ("a", "b")]
    assert sorted(klieg.util.list_named_actors()) == ["a", "b"]
    namespace = klieg.get_runtime_context().namespace
    listed = klieg.util.list_named_actors(all_namespaces=True)
    assert {"name": "a", "namespace": namespace} in listed
    del kept
