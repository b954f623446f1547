"""Classes of every mixture: where each kind of method runs, and that it gives what it would give at home."""

import asyncio
import functools
import threading

import pytest

import klieg


def logged(function):
    """A decorator that keeps the kind of what it decorates."""
    if asyncio.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return "logged", await function(*args, **kwargs)
    else:

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return "logged", function(*args, **kwargs)

    return wrapper


def mixed_class():
    """Made here, so that it travels by value with what it inherits from."""

    class Base:
        async def inherited(self, x):
            await asyncio.sleep(0)
            return self.name, x

        def inherited_sync(self, x):
            return self.name, x

        async def overridden(self):
            return "base"

        @klieg.method(run_in="thread")
        def inherited_in_thread(self):
            return threading.get_ident()

    class Mixed(Base):
        async def __init__(self, name):
            await asyncio.sleep(0)
            self.name = name
            self.loop = asyncio.get_running_loop()
            self.thread = threading.get_ident()

        def sync(self, x):
            return self.name, x

        async def coroutine(self, x):
            await asyncio.sleep(0)
            return self.name, x

        @klieg.method(run_in="thread")
        def in_thread(self, x):
            return self.name, x

        @staticmethod
        def static(x):
            return "static", x

        @staticmethod
        async def async_static(x):
            await asyncio.sleep(0)
            return "static", x

        @classmethod
        def of_class(cls, x):
            return cls.__name__, x

        @classmethod
        async def async_of_class(cls, x):
            await asyncio.sleep(0)
            return cls.__name__, x

        @logged
        def decorated(self, x):
            return self.name, x

        @logged
        async def async_decorated(self, x):
            await asyncio.sleep(0)
            return self.name, x

        def overridden(self):
            return "mixed"

        async def super_of_inherited(self, x):
            return await super().inherited(x)

        async def items(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield self.name, i

        def sync_items(self, n):
            for i in range(n):
                yield self.name, i

        def where(self):
            return threading.get_ident() == self.thread, asyncio.get_running_loop() is self.loop

        async def async_where(self):
            return threading.get_ident() == self.thread, asyncio.get_running_loop() is self.loop

        @klieg.method(run_in="thread")
        def where_in_thread(self):
            return threading.get_ident() == self.thread, self.loop.is_running()

    return Mixed


@pytest.fixture
def mixed():
    return klieg.remote(mixed_class()).remote("me")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("sync", ("me", 1)),
        ("coroutine", ("me", 1)),
        ("in_thread", ("me", 1)),
        ("static", ("static", 1)),
        ("async_static", ("static", 1)),
        ("of_class", ("Mixed", 1)),
        ("async_of_class", ("Mixed", 1)),
        ("inherited", ("me", 1)),
        ("inherited_sync", ("me", 1)),
        ("super_of_inherited", ("me", 1)),
        ("decorated", ("logged", ("me", 1))),
        ("async_decorated", ("logged", ("me", 1))),
    ],
)
def test_a_method_of_each_kind_gives_what_it_would_give_at_home(mixed, method, expected):
    assert klieg.get(getattr(mixed, method).remote(1)) == expected
    assert klieg.get(getattr(mixed, method).remote(x=1)) == expected


def test_a_method_that_overrides_another_kind_is_of_its_own_kind(mixed):
    assert klieg.get(mixed.overridden.remote()) == "mixed"


@pytest.mark.parametrize("method", ["items", "sync_items"])
def test_generators_of_both_kinds_stream(mixed, method):
    assert [klieg.get(ref) for ref in getattr(mixed, method).remote(3)] == [("me", i) for i in range(3)]


def test_what_runs_on_the_loop_shares_the_constructors_thread_and_loop(mixed):
    assert klieg.get(mixed.where.remote()) == (True, True)
    assert klieg.get(mixed.async_where.remote()) == (True, True)


def test_what_runs_in_a_thread_does_not_and_the_loop_goes_on(mixed):
    assert klieg.get(mixed.where_in_thread.remote()) == (False, True)
    on_the_loop = klieg.get(mixed.__ray_call__.remote(lambda self: self.thread))
    assert klieg.get(mixed.inherited_in_thread.remote()) != on_the_loop


def test_a_plain_class_with_the_same_helpers_is_plain_and_in_one_thread():
    @klieg.remote
    class Plain:
        def __init__(self):
            self.thread = threading.get_ident()

        @staticmethod
        def static():
            return threading.get_ident()

        @classmethod
        def of_class(cls):
            return threading.get_ident()

        @logged
        def decorated(self):
            return threading.get_ident() == self.thread

        def read(self):
            return self.thread

    plain = Plain.remote()
    thread = klieg.get(plain.read.remote())
    assert klieg.get([plain.static.remote(), plain.of_class.remote()]) == [thread] * 2
    assert klieg.get(plain.decorated.remote()) == ("logged", True)


# `__ray_call__`: any function, as if it were a method


async def async_function(self, x):
    await asyncio.sleep(0)
    return self.name, x


async def async_items(self, n):
    for i in range(n):
        yield self.name, i


def sync_items(self, n):
    for i in range(n):
        yield self.name, i


@klieg.remote
class Named:
    def __init__(self):
        self.name = "plain"


def test_an_async_actor_awaits_what_it_is_called_with(mixed):
    assert klieg.get(mixed.__ray_call__.remote(async_function, 1)) == ("me", 1)
    assert klieg.get(mixed.__ray_call__.remote(lambda self: self.name)) == "me"
    for function in (async_items, sync_items):
        refs = mixed.__ray_call__.options(num_returns="streaming").remote(function, 2)
        assert [klieg.get(ref) for ref in refs] == [("me", 0), ("me", 1)]


@pytest.mark.parametrize("limit", [1, 2], ids=["plain", "threaded"])
def test_an_actor_without_a_loop_says_that_it_cannot_await(limit):
    named = Named.options(max_concurrency=limit).remote()
    with pytest.raises(TypeError, match="coroutine, and nothing awaits it where it ran"):
        klieg.get(named.__ray_call__.remote(async_function, 1))
    with pytest.raises(TypeError, match="returned async_generator"):
        klieg.get(next(named.__ray_call__.options(num_returns="streaming").remote(async_items, 2)))
    runs_it = lambda self: asyncio.run(async_function(self, 1))  # noqa: E731
    assert klieg.get(named.__ray_call__.remote(runs_it)) == ("plain", 1)
    refs = named.__ray_call__.options(num_returns="streaming").remote(sync_items, 2)
    assert [klieg.get(ref) for ref in refs] == [("plain", 0), ("plain", 1)]


def test_a_coroutine_for_several_values_is_told_as_one():
    named = Named.remote()
    first, _ = named.__ray_call__.options(num_returns=2).remote(async_function, 1)
    with pytest.raises(TypeError, match="not one coroutine"):
        klieg.get(first)
