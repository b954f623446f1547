"""Chosen context variables travel with each call, in every mode, and into nothing else."""

import asyncio
import contextvars
import os
import threading

import pytest

import klieg

request_id = contextvars.ContextVar("request_id", default="unset")
not_chosen = contextvars.ContextVar("not_chosen", default="unset")


class Holder:
    variable = contextvars.ContextVar("held", default="unset")


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks):
    with klieg.init(engine=engine, num_cpus=4, propagate=[request_id, Holder.variable]):
        yield


def in_context(function, *args):
    return contextvars.copy_context().run(function, *args)


def under(value, function, *args):
    """What the function returns in a context in which the variable has the value."""

    def run():
        request_id.set(value)
        return function(*args)

    return in_context(run)


@klieg.remote
def task():
    return request_id.get()


@klieg.remote(max_concurrency=4)
async def async_task():
    await asyncio.sleep(0)
    return request_id.get()


@klieg.remote
def streaming_task():
    yield request_id.get()


@klieg.remote
class Sync:
    def __init__(self):
        self.at_start = request_id.get()

    def read(self):
        return request_id.get()

    def stream(self):
        yield request_id.get()

    def write(self, value):
        request_id.set(value)
        return value

    def of_constructor(self):
        return self.at_start

    def of_a_call(self):
        return klieg.get(task.remote())


@klieg.remote(concurrency_groups={"own": klieg.ConcurrencyGroup(2, own_loop=True)})
class Async:
    async def read(self):
        await asyncio.sleep(0)
        return request_id.get()

    def on_loop(self):
        return request_id.get()

    @klieg.method(run_in="thread")
    def in_thread(self):
        return request_id.get()

    @klieg.method(concurrency_group="own")
    async def on_own_loop(self):
        return request_id.get()

    async def stream(self):
        yield request_id.get()

    def sync_stream(self):
        yield request_id.get()

    async def of_children(self):
        async def child():
            return request_id.get()

        return {await asyncio.create_task(child()), await asyncio.to_thread(request_id.get), await task.remote()}

    async def write(self, value):
        request_id.set(value)
        await asyncio.sleep(0)
        return request_id.get()


def of_task():
    return klieg.get(task.remote())


def of_async_task():
    return klieg.get(async_task.remote())


def of_streaming_task():
    return klieg.get(next(iter(streaming_task.remote())))


def of_method(cls, name, **options):
    def call():
        result = getattr(cls.options(**options).remote() if options else cls.remote(), name).remote()
        return klieg.get(next(iter(result)) if isinstance(result, klieg.ObjectRefGenerator) else result)

    return call


MODES = {
    "task": of_task,
    "async task": of_async_task,
    "generator task": of_streaming_task,
    "plain": of_method(Sync, "read"),
    "plain generator": of_method(Sync, "stream"),
    "constructor": of_method(Sync, "of_constructor"),
    "threaded": of_method(Sync, "read", max_concurrency=2),
    "threaded generator": of_method(Sync, "stream", max_concurrency=2),
    "async": of_method(Async, "read"),
    "sync on the loop": of_method(Async, "on_loop"),
    "sync in a thread": of_method(Async, "in_thread"),
    "loop of its own": of_method(Async, "on_own_loop"),
    "async generator": of_method(Async, "stream"),
    "sync generator on the loop": of_method(Async, "sync_stream"),
    "call of a call": of_method(Sync, "of_a_call"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_value_arrives_in_every_mode_and_does_not_stay(mode):
    call = MODES[mode]
    assert under("of the caller", call) == "of the caller"
    assert call() == "unset"


def test_tasks_threads_and_calls_that_a_call_starts_see_it_too():
    assert under("of the caller", lambda: klieg.get(Async.remote().of_children.remote())) == {"of the caller"}


def test_each_of_many_concurrent_calls_has_the_value_of_its_own_caller():
    actor = Async.remote()
    refs = [under(str(i), actor.read.remote) for i in range(50)]
    assert klieg.get(refs) == [str(i) for i in range(50)]


def test_threads_of_the_driver_have_values_of_their_own():
    actor, found = Sync.remote(), {}

    def call(i):
        request_id.set(str(i))
        found[str(i)] = klieg.get(actor.read.remote())

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {str(i): str(i) for i in range(4)}


@pytest.mark.parametrize("cls", [Sync, Async], ids=["plain", "async"])
def test_what_a_call_sets_reaches_neither_its_caller_nor_the_next_call(cls):
    actor = cls.remote()
    assert under("of the caller", lambda: (klieg.get(actor.write.remote("inside")), request_id.get())) == (
        "inside",
        "of the caller",
    )
    assert klieg.get(actor.read.remote()) == "unset"


def test_what_a_call_sets_travels_with_its_own_calls():
    @klieg.remote
    def middle():
        request_id.set("of the middle")
        return klieg.get(task.remote())

    assert under("of the driver", lambda: klieg.get(middle.remote())) == "of the middle"
    assert klieg.get(middle.remote()) == "of the middle"


def test_a_variable_that_was_not_chosen_stays():
    @klieg.remote
    def read():
        return not_chosen.get()

    def call():
        not_chosen.set("of the driver")
        return klieg.get(read.remote())

    assert in_context(call) == "unset"


def test_a_variable_of_a_class_travels():
    @klieg.remote
    def read():
        return Holder.variable.get()

    def call():
        Holder.variable.set("of the driver")
        return klieg.get(read.remote())

    assert in_context(call) == "of the driver"


def test_keywords_and_refs_travel_beside_it():
    @klieg.remote
    def read(value, *, ref, **more):
        return value, ref, more, request_id.get()

    call = lambda: klieg.get(read.remote(1, ref=klieg.put(2), three=3))  # noqa: E731
    assert under("of the caller", call) == (1, 2, {"three": 3}, "of the caller")


def test_a_ref_or_a_handle_may_be_a_value():
    actor = Sync.remote()

    @klieg.remote
    def follow():
        actor, refs = request_id.get()
        return klieg.get(actor.of_constructor.remote()), klieg.get(refs[0])

    assert under((actor, [klieg.put("kept")]), lambda: klieg.get(follow.remote())) == ("unset", "kept")


def test_a_value_that_cannot_be_pickled_is_named_at_the_call():
    with pytest.raises(TypeError, match=r"task\(\): the context variables\['.*:request_id'\] is <unlocked"):
        under(threading.Lock(), task.remote)


@pytest.mark.needs_process("a retry needs a worker that dies")
def test_a_call_that_is_tried_again_has_its_value_again(journal):
    @klieg.remote(max_retries=1)
    def dies_first(journal):
        journal.note(request_id.get())
        os._exit(1)

    with pytest.raises(klieg.exceptions.WorkerCrashedError):
        under("of the caller", lambda: klieg.get(dies_first.remote(journal)))
    assert journal.take(2) == ["of the caller"] * 2
