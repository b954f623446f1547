"""Order: calls of one caller start in the order of submission, in every kind of actor."""

import asyncio
import threading

import pytest

import klieg

COUNT = 300


@klieg.remote
class PlainLog:
    """Keeps the order in which its calls start."""

    def __init__(self, ready=None):
        self.starts = []

    def note(self, who, number):
        self.starts.append((who, number))

    def read(self):
        return self.starts


@klieg.remote
class AsyncLog:
    """The same on a loop; some of its calls take longer than the next ones."""

    def __init__(self, ready=None):
        self.starts = []

    async def note(self, who, number):
        self.starts.append((who, number))
        for _ in range(number % 3):
            await asyncio.sleep(0)

    def note_sync(self, who, number):
        self.starts.append((who, number))

    async def read(self):
        return self.starts


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_an_async_actor_starts_calls_in_order(limit):
    log = AsyncLog.options(max_concurrency=limit).remote()
    klieg.get([log.note.remote("me", i) for i in range(COUNT)])
    assert klieg.get(log.read.remote()) == [("me", i) for i in range(COUNT)]


def test_a_plain_actor_runs_calls_in_order():
    log = PlainLog.remote()
    for i in range(COUNT):
        log.note.remote("me", i)
    assert klieg.get(log.read.remote()) == [("me", i) for i in range(COUNT)]


def test_sync_and_async_methods_of_one_actor_share_one_order():
    log = AsyncLog.remote()
    refs = [(log.note, log.note_sync)[i % 2].remote("me", i) for i in range(COUNT)]
    klieg.get(refs)
    assert klieg.get(log.read.remote()) == [("me", i) for i in range(COUNT)]


def test_a_threaded_actor_starts_calls_in_order(journal):
    @klieg.remote(max_concurrency=2)
    class Threaded:
        def __init__(self):
            self.turn = threading.Semaphore(0)

        def start(self, name):
            journal.note(name)
            self.turn.acquire()

        def note(self, number):
            journal.note(number)

        def pass_on(self):
            self.turn.release()

    # One of the two threads is always held, so each start is noted before the next call can start.
    actor = Threaded.remote()
    holder = actor.start.remote("first")
    assert journal.next() == "first"
    refs = [actor.note.remote(i) for i in range(50)]
    klieg.get(refs)
    klieg.get([actor.pass_on.remote(), holder])
    assert journal.take(50) == [str(i) for i in range(50)]


@pytest.mark.parametrize("actor_class", [PlainLog, AsyncLog], ids=["plain", "async"])
def test_each_of_several_callers_keeps_its_own_order(actor_class):
    log = actor_class.remote()

    @klieg.remote
    def write(log, who):
        klieg.get([log.note.remote(who, i) for i in range(50)])

    klieg.get([write.remote(log, who) for who in "abc"])
    starts = klieg.get(log.read.remote())
    for who in "abc":
        assert [number for name, number in starts if name == who] == list(range(50))


@pytest.mark.parametrize("actor_class", [PlainLog, AsyncLog], ids=["plain", "async"])
def test_calls_made_before_the_constructor_has_run_keep_their_order(gate, actor_class):
    @klieg.remote
    def slow(gate):
        gate.wait()

    log = actor_class.remote(slow.remote(gate))
    refs = [log.note.remote("me", i) for i in range(50)]
    gate.open()
    klieg.get(refs)
    assert klieg.get(log.read.remote()) == [("me", i) for i in range(50)]


def test_threads_of_one_driver_each_keep_their_order():
    log = AsyncLog.remote()

    def write(who):
        klieg.get([log.note.remote(who, i) for i in range(50)])

    threads = [threading.Thread(target=write, args=(who,)) for who in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts = klieg.get(log.read.remote())
    for who in "abcd":
        assert [number for name, number in starts if name == who] == list(range(50))


def test_a_call_with_late_arguments_is_overtaken_in_an_async_actor(gate):
    @klieg.remote
    def slow(gate):
        gate.wait()
        return 0

    log = AsyncLog.remote()
    late = log.note.remote("me", slow.remote(gate))
    klieg.get(log.note.remote("me", 1))
    gate.open()
    klieg.get(late)
    assert klieg.get(log.read.remote()) == [("me", 1), ("me", 0)]


def test_order_holds_across_two_handles_of_one_process():
    log = AsyncLog.options(name="the log").remote()
    other = klieg.get_actor("the log")
    klieg.get([(log, other)[i % 2].note.remote("me", i) for i in range(COUNT)])
    assert klieg.get(log.read.remote()) == [("me", i) for i in range(COUNT)]


def test_order_holds_when_arguments_are_large_and_small():
    @klieg.remote
    class Sizes:
        def __init__(self):
            self.sizes = []

        async def note(self, data):
            self.sizes.append(len(data))

        async def read(self):
            return self.sizes

    sizes = [(1, 200_000, 10, 1_000_000)[i % 4] for i in range(40)]
    actor = Sizes.remote()
    klieg.get([actor.note.remote(bytes(size)) for size in sizes])
    assert klieg.get(actor.read.remote()) == sizes


def test_order_holds_while_the_caller_awaits():
    log = AsyncLog.remote()

    async def main():
        for i in range(100):
            log.note.remote("me", 2 * i)
            await log.note.remote("me", 2 * i + 1)

    asyncio.run(main())
    assert klieg.get(log.read.remote()) == [("me", i) for i in range(200)]
