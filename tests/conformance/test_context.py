"""Context variables: each call in a context of its own; nothing leaks; chosen ones travel."""

import asyncio
import contextvars

import pytest

import klieg

plain_variable = contextvars.ContextVar("plain_variable", default="unset")


@klieg.remote
class Plain:
    def __init__(self):
        self.variable = contextvars.ContextVar("own", default="unset")

    def set_and_get(self, value):
        before = self.variable.get()
        self.variable.set(value)
        return before

    def in_constructor(self):
        return self.variable.get()


@klieg.remote
class Async:
    def __init__(self):
        self.variable = contextvars.ContextVar("own", default="unset")

    async def set_and_get(self, value):
        before = self.variable.get()
        self.variable.set(value)
        await asyncio.sleep(0)
        return before

    def set_and_get_sync(self, value):
        before = self.variable.get()
        self.variable.set(value)
        return before

    async def in_children(self, value):
        self.variable.set(value)

        async def child():
            return self.variable.get()

        return await asyncio.create_task(child()), await asyncio.to_thread(self.variable.get)


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (lambda: Plain.remote(), "set_and_get"),
        (lambda: Plain.options(max_concurrency=2).remote(), "set_and_get"),
        (lambda: Async.remote(), "set_and_get"),
        (lambda: Async.remote(), "set_and_get_sync"),
    ],
    ids=["plain", "threaded", "async", "sync in async"],
)
def test_what_a_call_sets_is_not_seen_by_the_next(make, method):
    actor = make()
    calls = getattr(actor, method)
    assert [klieg.get(calls.remote(i)) for i in range(5)] == ["unset"] * 5


def test_what_a_task_sets_is_not_seen_by_the_next():
    @klieg.remote
    def set_and_get(value):
        import decimal

        before = decimal.getcontext().prec
        decimal.getcontext().prec = value
        return before

    assert len({klieg.get(set_and_get.remote(10 + i)) for i in range(8)}) == 1


def test_concurrent_calls_do_not_see_each_other():
    actor = Async.remote()
    refs = [actor.set_and_get.remote(i) for i in range(50)]
    assert klieg.get(refs) == ["unset"] * 50


def test_children_of_a_call_see_what_it_set():
    assert klieg.get(Async.remote().in_children.remote("mine")) == ("mine", "mine")


def test_the_context_of_an_async_generator_stays_from_item_to_item():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.variable = contextvars.ContextVar("own", default=0)

        async def count(self):
            for _ in range(3):
                self.variable.set(self.variable.get() + 1)
                yield self.variable.get()

    assert [klieg.get(ref) for ref in Actor.remote().count.remote()] == [1, 2, 3]


def test_the_callers_variables_do_not_travel_by_themselves():
    plain_variable.set("of the driver")
    variable = plain_variable.get()
    actor = Async.remote()
    assert klieg.get(actor.set_and_get.remote(variable)) == "unset"


def test_the_task_of_a_call_is_named_after_it():
    @klieg.remote
    class Actor:
        async def work(self):
            return asyncio.current_task().get_name()

    assert "Actor.work" in klieg.get(Actor.remote().work.remote())
