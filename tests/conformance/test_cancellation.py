"""`cancel`: what each kind of call in each state does, and what its caller sees."""

import asyncio
import threading
import time

import pytest

import klieg
from klieg.exceptions import KliegError, TaskCancelledError


def is_cancelled(error):
    """True for the error of a cancelled call, and for that of a call that failed through one."""
    return isinstance(error, TaskCancelledError) or isinstance(getattr(error, "cause", None), TaskCancelledError)


def assert_cancelled(ref, timeout=10):
    with pytest.raises(KliegError) as caught:
        klieg.get(ref, timeout=timeout)
    assert is_cancelled(caught.value), repr(caught.value)


@klieg.remote
def echo(x):
    return x


@klieg.remote
def wait_at(gate, journal=None, word="in"):
    if journal is not None:
        journal.note(word)
    gate.wait()
    return "finished"


@klieg.remote
class Async:
    """Notes what happens to its calls."""

    def __init__(self, journal):
        self.journal = journal

    async def wait(self, word="in"):
        self.journal.note(word)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.journal.note("cancelled", word)
            raise

    async def swallow(self):
        self.journal.note("in")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "swallowed"

    async def clean_up(self):
        self.journal.note("in")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.journal.note("cleaned up")

    async def ping(self):
        return "pong"


@klieg.remote
class Sync:
    """Watches its flag."""

    def __init__(self, journal):
        self.journal = journal

    def wait_at(self, gate, word="in"):
        self.journal.note(word)
        gate.wait()
        return "finished"

    def watch(self):
        self.journal.note("in")
        context = klieg.get_runtime_context()
        while not context.is_canceled():
            time.sleep(0.001)
        self.journal.note("saw it")

    def ping(self):
        return "pong"


# Calls that have not started.


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_a_queued_task_never_starts(engine, gate, journal):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1)
    running = wait_at.remote(gate, journal)
    journal.next()
    queued = wait_at.remote(gate, journal, "queued")
    klieg.cancel(queued)
    assert_cancelled(queued)
    gate.open()
    assert klieg.get(running) == "finished"
    assert klieg.get(echo.remote(1)) == 1
    assert journal.unread() == []


def test_a_task_that_waits_for_an_argument_never_starts(gate, journal):
    argument = wait_at.remote(gate)

    @klieg.remote
    def use(x):
        journal.note("ran")

    ref = use.remote(argument)
    klieg.cancel(ref)
    assert_cancelled(ref)
    gate.open()
    assert klieg.get(argument) == "finished"
    assert journal.unread() == []


def test_a_queued_async_call_fails_at_once(journal):
    actor = Async.options(max_concurrency=1).remote(journal)
    running, queued = actor.wait.remote("first"), actor.wait.remote("second")
    assert journal.next() == "first"
    klieg.cancel(queued)
    assert_cancelled(queued)
    klieg.cancel(running)
    assert_cancelled(running)
    assert journal.next() == "cancelled first"
    assert klieg.get(actor.ping.remote()) == "pong"
    assert journal.unread() == []


@pytest.mark.parametrize("limit", [1, 2], ids=["plain", "threaded"])
def test_a_queued_sync_call_fails_at_once(gate, journal, limit):
    actor = Sync.options(max_concurrency=limit).remote(journal)
    running = [actor.wait_at.remote(gate) for _ in range(limit)]
    journal.take(limit)
    queued = actor.wait_at.remote(gate, "queued")
    after = actor.ping.remote()
    klieg.cancel(queued)
    assert_cancelled(queued)
    gate.open()
    assert klieg.get([*running, after]) == ["finished"] * limit + ["pong"]
    assert journal.unread() == []


@pytest.mark.not_on_ray("a cancel travels beside the queue and arrives a moment later")
def test_cancelling_in_the_middle_of_the_queue_keeps_the_order(gate, journal):
    actor = Sync.remote(journal)
    first = actor.wait_at.remote(gate, "first")
    refs = [actor.wait_at.remote(gate, i) for i in range(10)]
    journal.next()
    for ref in refs[::2]:
        klieg.cancel(ref)
    gate.open()
    klieg.get([first, *refs[1::2]])
    for ref in refs[::2]:
        assert_cancelled(ref)
    assert journal.take(5) == ["1", "3", "5", "7", "9"]


def test_a_call_that_waits_for_the_constructor_never_starts(gate, journal):
    @klieg.remote
    class Slow:
        def __init__(self, gate):
            gate.wait()

        def note(self, word):
            journal.note(word)

    slow = Slow.remote(gate)
    cancelled, kept = slow.note.remote("cancelled"), slow.note.remote("kept")
    klieg.cancel(cancelled)
    gate.open()
    klieg.get(kept)
    assert_cancelled(cancelled)
    assert journal.next() == "kept"


# Calls that run.


def test_a_running_async_call_sees_a_cancelled_error(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    journal.next()
    klieg.cancel(ref)
    assert_cancelled(ref)
    assert journal.next() == "cancelled in"
    assert klieg.get(actor.ping.remote()) == "pong"


def test_the_clean_up_of_a_cancelled_call_may_await(journal):
    actor = Async.remote(journal)
    ref = actor.clean_up.remote()
    journal.next()
    klieg.cancel(ref)
    assert_cancelled(ref)
    assert journal.next() == "cleaned up"


def test_a_swallowed_cancellation_still_gives_the_caller_an_error(journal):
    actor = Async.remote(journal)
    ref = actor.swallow.remote()
    journal.next()
    klieg.cancel(ref)
    assert_cancelled(ref)
    assert klieg.get(actor.ping.remote()) == "pong"


def test_only_the_cancelled_call_of_an_actor_ends(journal):
    actor = Async.remote(journal)
    refs = [actor.wait.remote(i) for i in range(5)]
    journal.take(5)
    klieg.cancel(refs[2])
    assert_cancelled(refs[2])
    assert journal.next() == "cancelled 2"
    assert klieg.wait(refs, num_returns=5, timeout=0.02)[0] == [refs[2]]


@pytest.mark.parametrize("limit", [1, 2], ids=["plain", "threaded"])
def test_a_running_sync_call_sees_the_flag(journal, limit):
    actor = Sync.options(max_concurrency=limit).remote(journal)
    ref = actor.watch.remote()
    journal.next()
    klieg.cancel(ref)
    assert journal.next() == "saw it"
    assert_cancelled(ref)
    assert klieg.get(actor.ping.remote()) == "pong"


def test_a_running_task_sees_the_flag_or_is_interrupted(journal):
    @klieg.remote
    def watch(journal):
        journal.note("in")
        while not klieg.get_runtime_context().is_canceled():
            time.sleep(0.001)

    ref = watch.remote(journal)
    journal.next()
    klieg.cancel(ref)
    assert_cancelled(ref)


@pytest.mark.needs_process("a thread cannot be interrupted")
def test_a_task_asleep_is_interrupted(journal):
    @klieg.remote
    def sleep(journal):
        journal.note("in")
        time.sleep(20)

    ref = sleep.remote(journal)
    journal.next()
    started = time.monotonic()
    klieg.cancel(ref)
    assert_cancelled(ref)
    assert time.monotonic() - started < 0.5


@pytest.mark.needs_process("a thread cannot be interrupted")
def test_a_task_that_swallows_the_interrupt_returns_its_value(journal):
    @klieg.remote
    def stubborn(journal):
        try:
            journal.note("in")
            time.sleep(20)
        except KeyboardInterrupt:
            return "swallowed"

    ref = stubborn.remote(journal)
    journal.next()
    klieg.cancel(ref)
    assert klieg.get(ref, timeout=10) == "swallowed"


@pytest.mark.needs_process("a thread cannot be killed")
def test_force_ends_the_worker_and_nothing_is_retried(journal):
    @klieg.remote
    def stubborn(journal):
        journal.note("in")
        while True:
            try:
                time.sleep(20)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote(journal)
    journal.next()
    klieg.cancel(ref, force=True)
    assert_cancelled(ref)
    assert klieg.get(echo.remote(1)) == 1
    assert journal.unread() == []


@pytest.mark.needs_process("a thread cannot be interrupted")
def test_an_interrupt_never_hits_the_next_task(journal):
    @klieg.remote
    def short(number):
        return number

    for i in range(200):
        ref = short.remote(i)
        klieg.cancel(ref)
        following = short.remote(-1)
        assert klieg.get(following, timeout=10) == -1
        klieg.wait([ref], timeout=10)


# Calls that have ended, and what is no call.


def test_cancelling_a_finished_call_changes_nothing():
    ref = echo.remote(1)
    klieg.wait([ref])
    assert klieg.cancel(ref) is None
    assert klieg.get(ref) == 1


def test_cancelling_a_put_value_changes_nothing():
    ref = klieg.put(1)
    klieg.cancel(ref)
    assert klieg.get(ref) == 1


def test_cancelling_twice_is_fine(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    journal.next()
    klieg.cancel(ref)
    klieg.cancel(ref)
    assert_cancelled(ref)
    klieg.cancel(ref)
    assert_cancelled(ref)


def test_cancelling_a_call_of_a_dead_actor_changes_nothing(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    journal.next()
    klieg.kill(actor)
    klieg.cancel(ref)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        klieg.get(ref, timeout=10)


@pytest.mark.parametrize("make", [lambda: 3, lambda: [klieg.put(1)], lambda: Async, lambda: None])
def test_only_a_ref_can_be_cancelled(make):
    with pytest.raises(TypeError):
        klieg.cancel(make())


def test_a_method_cannot_be_cancelled_by_force(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    journal.next()
    with pytest.raises(ValueError, match="force"):
        klieg.cancel(ref, force=True)


# What others see.


def test_a_dependant_of_a_cancelled_call_fails_as_cancelled(gate, journal):
    ref = wait_at.remote(gate, journal)
    dependant = echo.remote(ref)
    journal.next()
    klieg.cancel(ref)
    gate.open()
    klieg.wait([ref], timeout=10)
    try:
        klieg.get(ref)
    except KliegError:
        assert_cancelled(dependant)


def test_an_awaiter_sees_our_error_and_no_cancelled_error(journal):
    async def main():
        actor = Async.remote(journal)
        ref = actor.wait.remote()
        asyncio.get_running_loop().call_later(0.01, klieg.cancel, ref)
        with pytest.raises(KliegError) as caught:
            await ref
        assert is_cancelled(caught.value)
        assert not isinstance(caught.value, asyncio.CancelledError)

    asyncio.run(main())


def test_a_future_of_a_cancelled_call_holds_the_error(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    future = ref.future()
    journal.next()
    klieg.cancel(ref)
    assert is_cancelled(future.exception(10))
    assert not future.cancelled()
    assert ref.cancelled()


def test_another_process_can_cancel(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    journal.next()

    @klieg.remote
    def cancel(box):
        klieg.cancel(box[0])

    klieg.get(cancel.remote([ref]))
    assert_cancelled(ref)


@pytest.mark.parametrize("recursive", [True, False])
def test_children_follow_unless_told_not_to(journal, recursive):
    @klieg.remote
    class Parent:
        def __init__(self, child):
            self.child = child

        async def run(self):
            await self.child.wait.remote("child")

    child = Async.remote(journal)
    parent = Parent.remote(child)  # held: the end of a caller ends its calls
    ref = parent.run.remote()
    assert journal.next() == "child"
    klieg.cancel(ref, recursive=recursive)
    assert_cancelled(ref)
    if recursive:
        assert journal.next() == "cancelled child"
    else:
        assert klieg.get(child.ping.remote()) == "pong"
        assert journal.unread() == []


# The awaiter that gives up.


@pytest.mark.parametrize("follows", [True, False])
def test_a_call_follows_its_cancelled_awaiter_only_if_asked_to(journal, follows):
    actor = Async.remote(journal)
    method = actor.wait.options(cancel_on_await_cancel=True) if follows else actor.wait

    async def main():
        ref = method.remote()
        assert await asyncio.to_thread(journal.next) == "in"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref, 0.05)

    asyncio.run(main())
    if follows:
        assert journal.next() == "cancelled in"
    else:
        assert klieg.get(actor.ping.remote()) == "pong"
        assert journal.unread() == []


# Storms and races.


def test_of_a_cancellation_and_a_result_exactly_one_wins():
    @klieg.remote
    class Quick:
        async def run(self, x):
            await asyncio.sleep(0)
            return x

    quick = Quick.remote()
    for i in range(200):
        ref = quick.run.remote(i)
        klieg.cancel(ref)
        try:
            assert klieg.get(ref, timeout=10) == i
        except KliegError as error:
            assert is_cancelled(error)  # noqa: PT017
            assert_cancelled(ref)


def test_a_storm_of_cancellations_leaves_a_working_actor(journal):
    @klieg.remote
    class Actor:
        async def wait(self):
            await asyncio.Event().wait()

        async def ping(self):
            return "pong"

    actor = Actor.remote()
    refs = [actor.wait.remote() for _ in range(2000)]
    for ref in refs:
        klieg.cancel(ref)
    for ref in refs:
        assert_cancelled(ref)
    assert klieg.get(actor.ping.remote(), timeout=10) == "pong"


def test_threads_may_cancel_the_same_call_at_once(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    journal.next()
    threads = [threading.Thread(target=klieg.cancel, args=(ref,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_cancelled(ref)
    assert journal.next() == "cancelled in"
    assert journal.unread() == []


def test_a_cancelled_task_starts_nothing_more(engine, gate, journal):
    @klieg.remote
    def child(journal):
        journal.note("child")

    @klieg.remote
    def parent(gate, journal):
        journal.note("parent")
        gate.wait()
        child.remote(journal)

    @klieg.remote(num_cpus=4)
    def alone():
        """Runs when nothing else does."""

    ref = parent.remote(gate, journal)
    assert journal.next() == "parent"
    klieg.cancel(ref)
    if engine == "inline":  # where nothing interrupts a task
        gate.open()
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(ref)
    klieg.get(alone.remote())
    assert journal.unread() == []
