"""Streaming generators: refs as the items come, errors in mid-stream, closed when dropped."""

import asyncio
import gc
import threading

import pytest

import klieg


@klieg.remote
def count(n):
    yield from range(n)


@klieg.remote
class Plain:
    def count(self, n):
        yield from range(n)


@klieg.remote
class Async:
    async def count(self, n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    def count_sync(self, n):
        yield from range(n)

    async def ping(self):
        return "pong"


SOURCES = {
    "task": lambda: count,
    "plain": lambda: Plain.remote().count,
    "threaded": lambda: Plain.options(max_concurrency=2).remote().count,
    "async": lambda: Async.remote().count,
    "sync in async": lambda: Async.remote().count_sync,
}


@pytest.fixture(params=SOURCES)
def source(request):
    """A generator function or method of each kind."""
    return SOURCES[request.param]()


def test_items_come_in_order(source):
    assert [klieg.get(ref) for ref in source.remote(20)] == list(range(20))


def test_items_come_in_order_to_an_async_loop(source):
    async def main():
        return [await ref async for ref in source.remote(20)]

    assert asyncio.run(main()) == list(range(20))


def test_an_empty_generator_ends_at_once(source):
    assert list(source.remote(0)) == []


def test_the_end_stays_the_end(source):
    stream = source.remote(1)
    next(stream)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(stream)
    assert stream.is_finished()


def test_streaming_can_be_asked_for_by_name():
    assert len(list(count.options(num_returns="streaming").remote(3))) == 3


def test_the_generator_is_there_before_the_items(gate):
    @klieg.remote
    def late(gate):
        gate.wait()
        yield 1

    stream = late.remote(gate)
    assert isinstance(stream, klieg.ObjectRefGenerator)
    assert not stream.next_ready()
    gate.open()
    assert klieg.get(next(stream)) == 1


def test_an_item_is_there_before_the_next_is_made(gate):
    @klieg.remote
    def two(gate):
        yield "first"
        gate.wait()
        yield "second"

    stream = two.remote(gate)
    assert klieg.get(next(stream)) == "first"
    gate.open()
    assert klieg.get(next(stream)) == "second"


def test_an_error_is_the_last_ref():
    @klieg.remote
    def fail():
        yield 1
        raise ValueError("in the middle")

    stream = fail.remote()
    assert klieg.get(next(stream)) == 1
    with pytest.raises(ValueError, match="in the middle"):
        klieg.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


def test_an_error_before_the_first_item_is_the_only_ref():
    @klieg.remote
    class Actor:
        async def fail(self):
            if True:
                raise ValueError("at once")
            yield 1

    (ref,) = list(Actor.remote().fail.remote())
    with pytest.raises(ValueError, match="at once"):
        klieg.get(ref)


@pytest.mark.parametrize("fails", [True, False])
def test_completed_is_none_whether_it_failed_or_not(fails):
    @klieg.remote
    def maybe_fail():
        yield 1
        if fails:
            raise ValueError("no")

    stream = maybe_fail.remote()
    assert klieg.get(stream.completed(), timeout=10) is None
    assert len(list(stream)) == (2 if fails else 1)


def test_a_yielded_exception_is_a_value():
    @klieg.remote
    def give():
        yield ValueError("a value")

    assert isinstance(klieg.get(next(give.remote())), ValueError)


def test_yield_gives_none_and_yield_from_works():
    @klieg.remote
    def echo():
        got = yield 1
        yield got is None
        yield from [3, 4]

    assert [klieg.get(ref) for ref in echo.remote()] == [1, True, 3, 4]


def test_the_return_value_is_lost():
    @klieg.remote
    def give():
        yield 1
        return 2

    assert [klieg.get(ref) for ref in give.remote()] == [1]


def test_a_stream_can_be_waited_for(gate):
    @klieg.remote
    def late(gate):
        gate.wait()
        yield 1

    stream, ready = late.remote(gate), klieg.put(1)
    assert klieg.wait([stream, ready]) == ([ready], [stream])
    gate.open()
    assert klieg.wait([stream], timeout=10) == ([stream], [])
    assert klieg.get(stream) is stream


def test_concurrent_generators_of_an_async_actor_interleave():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.turns = asyncio.Barrier(2)

        async def talk(self, who):
            for i in range(3):
                await self.turns.wait()
                yield who, i

    actor = Actor.remote()
    streams = [actor.talk.remote(who) for who in "ab"]
    for i in range(3):
        assert [klieg.get(next(stream)) for stream in streams] == [("a", i), ("b", i)]


def test_a_generator_counts_against_the_limit(gate):
    @klieg.remote(max_concurrency=1)
    class Actor:
        async def talk(self, gate):
            yield 1
            await asyncio.to_thread(gate.wait)

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    stream = actor.talk.remote(gate)
    assert klieg.get(next(stream)) == 1
    ping = actor.ping.remote()
    assert klieg.wait([ping], timeout=0.05)[0] == []
    gate.open()
    assert klieg.get(ping) == "pong"


def test_a_sync_generator_in_an_async_actor_leaves_the_loop_free():
    @klieg.remote
    class Actor:
        def endless(self):
            while True:
                yield 1

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    stream = actor.endless.remote()
    next(stream)
    assert klieg.get(actor.ping.remote(), timeout=10) == "pong"


def test_a_producer_stops_when_the_window_is_full(journal):
    @klieg.remote
    class Actor:
        async def talk(self):
            for i in range(100):
                journal.note(i)
                yield i

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    stream = actor.talk.options(_generator_backpressure_num_objects=2).remote()
    assert journal.take(2) == ["0", "1"]
    for _ in range(20):
        klieg.get(actor.ping.remote())
    assert len(journal.unread()) <= 1
    assert [klieg.get(ref) for ref in stream] == list(range(100))


@pytest.mark.parametrize("kind", ["task", "plain", "async", "sync in async"])
def test_a_dropped_stream_closes_its_producer(journal, kind):
    @klieg.remote
    def endless_task(journal):
        try:
            while True:
                yield 1
        finally:
            journal.note("closed")

    @klieg.remote
    class PlainActor:
        def endless(self, journal):
            try:
                while True:
                    yield 1
            finally:
                journal.note("closed")

    @klieg.remote
    class AsyncActor(PlainActor._cls):
        async def endless_async(self, journal):
            try:
                while True:
                    await asyncio.sleep(0)
                    yield 1
            finally:
                journal.note("closed")

    actor = {"plain": PlainActor, "async": AsyncActor, "sync in async": AsyncActor}.get(kind)
    handle = actor.remote() if actor else None
    methods = {
        "task": lambda: endless_task,
        "plain": lambda: handle.endless,
        "sync in async": lambda: handle.endless,
        "async": lambda: handle.endless_async,
    }
    stream = methods[kind]().remote(journal)
    next(stream)
    del stream
    gc.collect()
    assert journal.next() == "closed"


def test_a_stream_of_a_killed_actor_ends_with_the_death(gate):
    @klieg.remote
    class Actor:
        def talk(self, gate):
            yield 1
            gate.wait()

    actor = Actor.remote()
    stream = actor.talk.remote(gate)
    assert klieg.get(next(stream)) == 1
    klieg.kill(actor)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        klieg.get(next(stream), timeout=10)
    with pytest.raises(StopIteration):
        next(stream)


def test_a_cancelled_stream_ends_with_the_cancellation(journal):
    @klieg.remote
    class Actor:
        async def talk(self):
            yield 1
            await asyncio.Event().wait()

    stream = Actor.remote().talk.remote()
    assert klieg.get(next(stream)) == 1
    klieg.cancel(stream)
    with pytest.raises(klieg.exceptions.KliegError):
        klieg.get(next(stream), timeout=10)
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_cannot_be_passed_on():
    with pytest.raises(TypeError, match="ObjectRefGenerator"):
        klieg.remote(lambda x: x).remote(count.remote(1))


def test_items_can_be_passed_on():
    double = klieg.remote(lambda x: 2 * x)
    assert klieg.get([double.remote(ref) for ref in count.remote(3)]) == [0, 2, 4]


def test_dynamic_returns_give_one_ref_to_a_list_of_refs():
    ref = count.options(num_returns="dynamic").remote(3)
    assert [klieg.get(item) for item in klieg.get(ref)] == [0, 1, 2]


def test_an_async_generator_task_is_refused_at_the_decorator():
    with pytest.raises(ValueError, match="async"):

        @klieg.remote
        async def talk():
            yield 1


def test_streaming_without_a_generator_is_an_error():
    @klieg.remote
    def plain():
        return 5

    with pytest.raises((TypeError, ValueError)):
        for ref in plain.options(num_returns="streaming").remote():
            klieg.get(ref)


@pytest.mark.parametrize("name", ["send", "throw", "close", "asend", "athrow", "aclose"])
def test_a_stream_takes_nothing_from_its_consumer(name):
    stream = count.remote(1)
    with pytest.raises(NotImplementedError):
        getattr(stream, name)(None)
    list(stream)


def test_a_long_stream_arrives_whole():
    assert sum(klieg.get(list(count.remote(3000)))) == sum(range(3000))


def test_two_threads_may_read_two_streams():
    found = {}

    def read(name):
        found[name] = [klieg.get(ref) for ref in count.remote(100)]

    threads = [threading.Thread(target=read, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": list(range(100)), "b": list(range(100))}
