"""What makes an actor async: any coroutine or async generator function in its class."""

import asyncio
import functools
import threading
import types

import pytest

import klieg


def async_method():
    class Actor:
        async def work(self):
            pass

    return Actor


def async_generator():
    class Actor:
        async def work(self):
            yield 1

    return Actor


def inherited():
    class Base:
        async def work(self):
            pass

    class Actor(Base):
        pass

    return Actor


def async_static_method():
    class Actor:
        @staticmethod
        async def work():
            pass

    return Actor


def async_class_method():
    class Actor:
        @classmethod
        async def work(cls):
            pass

    return Actor


def private_only():
    class Actor:
        async def _work(self):
            pass

    return Actor


def mangled_only():
    class Actor:
        async def __work(self):
            pass

    return Actor


def dunder_only():
    class Actor:
        async def __aenter__(self):
            pass

    return Actor


def async_constructor():
    class Actor:
        async def __init__(self):
            pass

    return Actor


def async_function_as_attribute():
    async def work(self):
        pass

    class Actor:
        attribute = work

    return Actor


def async_decorator_over_a_sync_method():
    def make_async(function):
        @functools.wraps(function)
        async def wrapper(*args):
            return function(*args)

        return wrapper

    class Actor:
        @make_async
        def work(self):
            pass

    return Actor


def declared_method():
    class Actor:
        @klieg.method(num_returns=1)
        async def work(self):
            pass

    return Actor


ASYNC = [
    async_method,
    async_generator,
    inherited,
    async_static_method,
    async_class_method,
    private_only,
    mangled_only,
    dunder_only,
    async_constructor,
    async_function_as_attribute,
    async_decorator_over_a_sync_method,
    declared_method,
]


def overridden_by_a_sync_method():
    class Base:
        async def work(self):
            pass

    class Actor(Base):
        def work(self):
            pass

    return Actor


def sync_wrapper_over_an_async_method():
    def make_sync(function):
        @functools.wraps(function)
        def wrapper(*args):
            return asyncio.run(function(*args))

        return wrapper

    class Actor:
        @make_sync
        async def work(self):
            pass

    return Actor


def async_property():
    class Actor:
        @property
        async def work(self):
            pass

    return Actor


def partial_method_of_an_async_one():
    async def work(self, x):
        pass

    class Actor:
        partial = functools.partialmethod(work, 1)

    return Actor


def async_callable_object():
    class Callable:
        async def __call__(self):
            pass

    class Actor:
        work = Callable()

    return Actor


def set_on_the_instance_only():
    class Actor:
        def __init__(self):
            async def work():
                pass

            self.work = work

    return Actor


def nested_only():
    class Actor:
        def work(self):
            async def inner():
                pass

            return inner is not None

    return Actor


def generator_coroutine():
    class Actor:
        @types.coroutine
        def work(self):
            yield

    return Actor


def plain_method_that_returns_a_coroutine():
    async def outside():
        pass

    class Actor:
        def work(self):
            return outside()

    return Actor


def plain():
    class Actor:
        def work(self):
            pass

    return Actor


NOT_ASYNC = [
    overridden_by_a_sync_method,
    sync_wrapper_over_an_async_method,
    async_property,
    partial_method_of_an_async_one,
    async_callable_object,
    set_on_the_instance_only,
    nested_only,
    generator_coroutine,
    plain_method_that_returns_a_coroutine,
    plain,
]


def runs_on_a_loop(cls, **options):
    """Add a sync method to the class, which changes nothing about its mode, and ask that."""

    def has_loop(self):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    cls.has_loop = has_loop
    actor_class = klieg.remote(**options)(cls) if options else klieg.remote(cls)
    return klieg.get(actor_class.remote().has_loop.remote())


def name_of(function):
    return function.__name__


@pytest.mark.parametrize("make", ASYNC, ids=name_of)
def test_a_class_with_this_is_async(make):
    assert runs_on_a_loop(make()) is True


@pytest.mark.parametrize("make", NOT_ASYNC, ids=name_of)
def test_a_class_with_this_alone_is_not_async(make):
    assert runs_on_a_loop(make()) is False


def test_a_limit_alone_does_not_make_a_class_async():
    assert runs_on_a_loop(plain(), max_concurrency=8) is False


def test_an_async_class_with_a_limit_of_one_is_still_async():
    assert runs_on_a_loop(async_method(), max_concurrency=1) is True


def test_a_sync_method_of_an_async_actor_runs_on_the_loops_thread():
    @klieg.remote
    class Actor:
        async def on_loop(self):
            return threading.get_ident()

        def sync(self):
            return threading.get_ident()

    actor = Actor.remote()
    assert klieg.get(actor.on_loop.remote()) == klieg.get(actor.sync.remote())


def test_a_sync_method_can_ask_for_a_thread():
    @klieg.remote
    class Actor:
        async def on_loop(self):
            return threading.get_ident()

        @klieg.method(run_in="thread")
        def sync(self):
            return threading.get_ident()

    actor = Actor.remote()
    assert klieg.get(actor.on_loop.remote()) != klieg.get(actor.sync.remote())


def test_a_method_in_a_thread_leaves_the_loop_free(gate):
    @klieg.remote
    class Actor:
        async def ping(self):
            return True

        @klieg.method(run_in="thread")
        def block(self, gate):
            gate.wait()
            return "done"

    actor = Actor.remote()
    blocked = actor.block.remote(gate)
    assert klieg.get(actor.ping.remote(), timeout=10) is True
    gate.open()
    assert klieg.get(blocked) == "done"


def test_a_blocking_get_in_a_method_that_runs_in_a_thread_is_fine():
    @klieg.remote
    class Actor:
        async def ping(self):
            return "pong"

        @klieg.method(run_in="thread")
        def ask(self, me):
            return klieg.get(me.ping.remote())

    actor = Actor.remote()
    assert klieg.get(actor.ask.remote(actor)) == "pong"


def test_run_in_takes_two_words_only():
    with pytest.raises(ValueError, match="run_in"):
        klieg.method(run_in="process")
