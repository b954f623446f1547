"""Calls that wait for one another and cannot go on are reported, with the circle; those that may go on are not."""

import re

import gates
import pytest

import klieg

pytestmark = pytest.mark.not_on_ray("there nobody asks all processes who waits for whom")

SOON = 0.1
"""Seconds, instead of ten, after which the runtimes of these tests look for circles."""

BEGINNING = "These calls wait for one another, and none of them can go on:"


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks, warnings):
    warnings.init(engine=engine, num_cpus=4, stall_warning=SOON)
    yield
    klieg.shutdown()


@klieg.remote
def task(actor):
    return klieg.get(actor.end.remote())


@klieg.remote
class Streamer:
    def items(self, actor):
        yield klieg.get(actor.end.remote())


@klieg.remote
def streams(actor):
    """Waits for the first item of a generator that waits for the actor."""
    return klieg.get(next(Streamer.remote().items.remote(actor)))


@klieg.remote
def identity(value):
    return value


@klieg.remote
class Plain:
    def pass_on(self, others, journal):
        """Call the next one, which calls the one after it; the last calls `end` of the one it is given."""
        if len(others) == 1:
            journal.note("closed")
            return klieg.get(others[0].end.remote())
        return klieg.get(others[0].pass_on.remote(others[1:], journal))

    def through_task(self, me):
        return klieg.get(task.remote(me))

    def through_argument(self, me):
        return klieg.get(identity.remote(me.end.remote()))

    def through_wait(self, me):
        return klieg.wait([me.end.remote()])

    def through_generator(self, me):
        return klieg.get(streams.remote(me))

    def call_with_timeout(self, other):
        try:
            return klieg.get(other.call.remote(), timeout=1)
        except klieg.exceptions.GetTimeoutError:
            return "gave up"

    def end(self):
        return "end"


@pytest.mark.parametrize("length", [2, 3, 5])
def test_plain_actors_that_wait_for_one_another_are_reported(warnings, journal, length):
    actors = [Plain.options(name=f"number {i}").remote() for i in range(length)]
    ref = actors[0].pass_on.remote([*actors[1:], actors[0]], journal)
    journal.next()
    report = warnings.wait_for("option `timeout`").partition(BEGINNING)[2]
    for i in range(length):
        assert re.search(rf"Plain\.pass_on #\d+ runs in Plain named 'number {i}', pid \d+, and waits for\n", report)
    assert re.search(r"Plain\.end #\d+ is queued in Plain named 'number 0', pid \d+, behind", report)
    klieg.kill(actors[-1])
    with pytest.raises(klieg.exceptions.ActorDiedError):
        klieg.get(ref)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("through_task", r"task #\d+ runs in a worker of tasks, pid \d+, and waits for"),
        (
            "through_generator",
            r"streams #\d+ runs in a worker of tasks, pid \d+, and waits for\n +Streamer\.items #\d+",
        ),
        ("through_argument", r"identity #\d+ is held back in pid \d+ until its arguments are there, from"),
    ],
)
def test_a_circle_through_a_task_is_reported(warnings, method, words):
    actor = Plain.remote()
    ref = getattr(actor, method).remote(actor)
    assert re.search(words, warnings.wait_for("option `timeout`"))
    klieg.kill(actor)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        klieg.get(ref)


def test_a_wait_closes_a_circle_like_a_get(warnings):
    actor = Plain.remote()
    ref = actor.through_wait.remote(actor)
    warnings.wait_for(BEGINNING)
    klieg.kill(actor)
    with pytest.raises(klieg.exceptions.ActorDiedError):
        klieg.get(ref)


@klieg.remote(max_concurrency=3)
class Threaded:
    def call(self, me, journal):
        journal.note("in")
        return klieg.get(me.end.remote())

    def wait_at(self, gate, journal):
        journal.note("in")
        gate.wait()

    def end(self):
        return "end"


def test_a_pool_whose_threads_all_wait_for_its_own_queue_is_reported_and_a_place_more_ends_it(warnings, journal):
    pool = Threaded.remote()
    refs = [pool.call.remote(pool, journal) for _ in range(3)]
    report = warnings.wait_for("option `timeout`")
    assert re.search(r"Threaded\.call #\d+ runs in Threaded, pid \d+, and waits for\n.*Threaded\.end #\d+", report)
    pool.resize(max_concurrency=4)
    assert klieg.get(refs) == ["end"] * 3


def test_the_dump_begins_with_the_circle(journal):
    actors = [Plain.remote(), Plain.remote()]
    ref = actors[0].pass_on.remote([*actors[1:], actors[0]], journal)
    journal.next()
    assert gates.soon(lambda: klieg.dump().startswith(BEGINNING))
    assert re.search(r"Plain\.end #\d+ is queued in Plain, pid \d+, behind", klieg.dump())
    klieg.kill(actors[-1])
    with pytest.raises(klieg.exceptions.ActorDiedError):
        klieg.get(ref)


def test_each_circle_is_told_once(warnings, journal):
    actors = [Plain.remote(), Plain.remote()]
    ref = actors[0].pass_on.remote([actors[1], actors[0]], journal)
    journal.next()
    more = actors[1].end.remote()  # so that both have a queue, and both look
    warnings.wait_for(BEGINNING)
    other = [Plain.remote(), Plain.remote()]
    second = other[0].pass_on.remote([other[1], other[0]], journal)
    assert gates.soon(lambda: warnings.text().count(BEGINNING) >= 2)
    assert warnings.text().count(BEGINNING) == 2
    for actor in (actors[1], other[1]):
        klieg.kill(actor)
    for failed in (ref, more, second):
        with pytest.raises(klieg.exceptions.ActorDiedError):
            klieg.get(failed)


def test_one_place_that_may_come_free_is_no_circle(warnings, gate, journal):
    pool = Threaded.remote()
    refs = [pool.wait_at.remote(gate, journal), *(pool.call.remote(pool, journal) for _ in range(2))]
    journal.take(3)
    warnings.wait_for("the limit of 3")
    assert BEGINNING not in klieg.dump()
    gate.open()
    assert klieg.get(refs) == [None, "end", "end"]
    assert BEGINNING not in warnings.text()


def test_a_wait_with_a_timeout_is_no_circle(warnings):
    @klieg.remote
    class Other:
        def __init__(self, first):
            self.first = first

        def call(self):
            return klieg.get(self.first.end.remote())

    first = Plain.remote()
    assert klieg.get(first.call_with_timeout.remote(Other.remote(first))) == "gave up"
    assert BEGINNING not in warnings.text()
