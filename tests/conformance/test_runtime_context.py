"""`get_runtime_context()`: who am I, in the driver, in tasks and in every kind of actor."""

import asyncio
import re
import threading

import pytest

import klieg


@klieg.remote
class Plain:
    def ids(self):
        context = klieg.get_runtime_context()
        return context.get_task_id(), context.get_actor_id()

    def names(self):
        context = klieg.get_runtime_context()
        return context.get_task_name(), context.get_actor_name()

    def me(self):
        return klieg.get_runtime_context().current_actor


def test_the_driver_has_neither_task_nor_actor():
    context = klieg.get_runtime_context()
    assert context.get_task_id() is None
    assert context.get_actor_id() is None
    assert context.get_job_id()
    assert context.get_node_id()
    assert context.get_worker_id()
    assert context.namespace


def test_a_task_knows_its_id_and_the_caller_knows_the_same():
    @klieg.remote
    def task_id():
        return klieg.get_runtime_context().get_task_id()

    ref = task_id.remote()
    assert klieg.get(ref) == ref.task_id().hex()
    assert len(klieg.get(ref)) == 48


def test_a_task_knows_its_name():
    @klieg.remote
    def name():
        return klieg.get_runtime_context().get_task_name()

    assert "name" in klieg.get(name.remote())
    assert klieg.get(name.options(name="another").remote()) == "another"


def test_an_actor_knows_its_ids():
    plain = Plain.remote()
    ref = plain.ids.remote()
    assert klieg.get(ref) == (ref.task_id().hex(), plain._actor_id.hex())


def test_an_actor_knows_its_names():
    assert klieg.get(Plain.remote().names.remote()) == ("Plain.names", "")
    assert klieg.get(Plain.options(name="the name").remote().names.remote())[1] == "the name"


def test_an_actor_can_hand_out_itself():
    plain = Plain.remote()
    assert klieg.get(plain.me.remote()) == plain


def test_concurrent_calls_have_ids_of_their_own_that_stay():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.barrier = asyncio.Barrier(5)

        async def ids(self):
            before = klieg.get_runtime_context().get_task_id()
            await self.barrier.wait()
            return before, klieg.get_runtime_context().get_task_id()

    actor = Actor.remote()
    refs = [actor.ids.remote() for _ in range(5)]
    assert klieg.get(refs) == [(ref.task_id().hex(),) * 2 for ref in refs]


def test_the_context_is_seen_in_threads_and_background_tasks_of_an_actor():
    @klieg.remote
    class Actor:
        async def actor_ids(self):
            def actor_id():
                return klieg.get_runtime_context().get_actor_id()

            async def in_task():
                return actor_id()

            return await asyncio.to_thread(actor_id), await asyncio.create_task(in_task())

    actor = Actor.remote()
    assert klieg.get(actor.actor_ids.remote()) == (actor._actor_id.hex(),) * 2


def test_a_thread_pool_of_an_actor_has_one_actor_id_and_many_task_ids():
    @klieg.remote(max_concurrency=3)
    class Actor:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def ids(self):
            self.barrier.wait(10)
            context = klieg.get_runtime_context()
            return context.get_actor_id(), context.get_task_id()

    found = klieg.get([(actor := Actor.remote()).ids.remote()] + [actor.ids.remote() for _ in range(2)])
    assert {actor_id for actor_id, _ in found} == {actor._actor_id.hex()}
    assert len({task_id for _, task_id in found}) == 3


def test_an_actor_that_was_not_restarted_knows_it():
    @klieg.remote
    class Actor:
        def restarted(self):
            return klieg.get_runtime_context().was_current_actor_reconstructed

    assert klieg.get(Actor.remote().restarted.remote()) is False


def test_a_task_knows_what_it_holds():
    @klieg.remote(num_cpus=2)
    def held():
        return klieg.get_runtime_context().get_assigned_resources()

    assert klieg.get(held.remote()) == {"CPU": 2.0}


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_resources_are_counted(gate, journal):
    @klieg.remote(num_cpus=3)
    def hold(gate):
        journal.note("holds")
        gate.wait()

    assert klieg.cluster_resources()["CPU"] == 4
    ref = hold.remote(gate)
    journal.next()
    assert klieg.available_resources()["CPU"] == 1
    gate.open()
    klieg.get(ref)


def test_is_canceled_is_for_tasks_and_sync_methods():
    @klieg.remote
    class Actor:
        async def ask(self):
            return klieg.get_runtime_context().is_canceled()

    with pytest.raises(RuntimeError):
        klieg.get_runtime_context().is_canceled()
    with pytest.raises(RuntimeError):
        klieg.get(Actor.remote().ask.remote())
    task = klieg.remote(lambda: klieg.get_runtime_context().is_canceled())
    assert klieg.get(task.remote()) is False


def test_the_function_name_is_the_functions_own_whatever_the_call_is_named():
    @klieg.remote(name="another")
    def function_name():
        return klieg.get_runtime_context().get_task_function_name()

    assert klieg.get(function_name.remote()).endswith("function_name")
    assert klieg.get(function_name.remote()).startswith(f"{__name__}.")


def test_the_function_name_of_a_method_names_module_and_class():
    @klieg.remote
    class Plain:
        def function_name(self):
            return klieg.get_runtime_context().get_task_function_name()

    named = Plain.remote().function_name.options(name="another").remote()
    assert klieg.get(named) == f"{__name__}.Plain.function_name"
    assert klieg.get_runtime_context().get_task_function_name() is None


def test_an_actor_knows_what_it_holds():
    @klieg.remote(num_cpus=0.5)
    class Plain:
        def holds(self):
            return klieg.get_runtime_context().get_assigned_resources()

    assert klieg.get(Plain.remote().holds.remote()) == {"CPU": 0.5}
    assert klieg.get(Plain.options(num_cpus=0).remote().holds.remote()) == {}
    assert klieg.get_runtime_context().get_assigned_resources() == {}


def test_the_session_has_one_name_in_driver_and_workers():
    @klieg.remote
    def session():
        return klieg.get_runtime_context().get_session_name()

    assert klieg.get_runtime_context().get_session_name().startswith("session_2")
    assert klieg.get(session.remote()) == klieg.get_runtime_context().get_session_name()


def test_the_deprecated_spellings_agree_with_the_others():
    @klieg.remote
    class Plain:
        def both(self):
            context = klieg.get_runtime_context()
            everything = context.get()
            assert context.job_id.hex() == context.get_job_id()
            assert context.node_id.hex() == context.get_node_id()
            assert everything["namespace"] == context.namespace
            return everything["task_id"].hex() == context.get_task_id(), context.actor_id.hex()

    plain = Plain.remote()
    assert klieg.get(plain.both.remote()) == (True, plain._actor_id.hex())
    context = klieg.get_runtime_context()
    assert (context.task_id, context.actor_id, "task_id" in context.get()) == (None, None, False)


@klieg.remote
def of_task():
    return klieg.get_runtime_context().get_task_id()


@klieg.remote(max_concurrency=2)
async def of_async_task():
    await asyncio.sleep(0)
    return klieg.get_runtime_context().get_task_id()


@klieg.remote
class Sync:
    def ids(self):
        context = klieg.get_runtime_context()
        return context.get_task_id(), context.get_actor_id()


@klieg.remote(concurrency_groups={"own": klieg.ConcurrencyGroup(2, own_loop=True)})
class Async:
    async def ids(self):
        await asyncio.sleep(0)
        return self.on_loop()

    def on_loop(self):
        context = klieg.get_runtime_context()
        return context.get_task_id(), context.get_actor_id()

    @klieg.method(run_in="thread")
    def in_thread(self):
        return self.on_loop()

    @klieg.method(concurrency_group="own")
    async def on_own_loop(self):
        return self.on_loop()

    async def name(self):
        return asyncio.current_task().get_name()

    @klieg.method(concurrency_group="own")
    async def name_on_own_loop(self):
        return asyncio.current_task().get_name()


@pytest.mark.parametrize("task", [of_task, of_async_task], ids=["task", "async task"])
def test_a_task_of_each_kind_knows_its_id(task):
    ref = task.remote()
    assert klieg.get(ref) == ref.task_id().hex()


@pytest.mark.parametrize(
    ("cls", "method"),
    [
        (Sync, "ids"),
        (Sync.options(max_concurrency=2), "ids"),
        (Async, "ids"),
        (Async, "on_loop"),
        (Async, "in_thread"),
        (Async, "on_own_loop"),
    ],
    ids=["plain", "threaded", "async", "on the loop", "in a thread", "on a loop of its own"],
)
def test_a_call_of_each_kind_knows_its_id_and_its_actors(cls, method):
    actor = cls.remote()
    ref = getattr(actor, method).remote()
    assert klieg.get(ref) == (ref.task_id().hex(), actor._actor_id.hex())


@pytest.mark.parametrize("kind", ["task", "plain", "async", "sync in async"])
def test_a_generator_knows_its_id_at_each_item(kind):
    def ids(self=None):
        for _ in range(2):
            yield klieg.get_runtime_context().get_task_id()

    async def ids_async(self):
        for _ in range(2):
            yield klieg.get_runtime_context().get_task_id()

    methods = {"plain": {"ids": ids}, "async": {"ids": ids_async}, "sync in async": {"ids": ids, "other": ids_async}}
    call = klieg.remote(ids) if kind == "task" else klieg.remote(type("Actor", (), methods[kind])).remote().ids
    found = [klieg.get(ref) for ref in call.remote()]
    assert found[0] == found[1]
    assert len(found[0]) == 48


@pytest.mark.parametrize("method", ["name", "name_on_own_loop"])
def test_the_task_of_asyncio_is_named_after_the_call_and_its_number(method):
    actor = Async.remote()
    names = klieg.get([getattr(actor, method).remote() for _ in range(2)])
    assert names[0] != names[1]
    assert all(re.fullmatch(rf"Async\.{method} #\d+", name) for name in names)
