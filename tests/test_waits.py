"""Who waits for whom, from the facts of several processes: what is a circle and what is none."""

import pytest

from klieg.concurrency.waits import Waits, confirmed


def host(limit=1, running=(), queued=(), blocked=None):
    """An actor: numbers of calls, and what each blocked one waits for."""
    group = {"name": "default", "limit": limit, "running": list(running), "queued": [[n, f"q{n}"] for n in queued]}
    return {"title": "A", "groups": [group], "blocked": [[n, f"b{n}", list(w)] for n, w in (blocked or {}).items()]}


def process(*hosts, late=None):
    return {"pid": 1, "hosts": hosts, "late": [[n, f"l{n}", list(w)] for n, w in (late or {}).items()]}


TWO = (host(running=[1], queued=[3], blocked={1: [2]}), host(running=[2], blocked={2: [3]}))
"""Call 1 waits for call 2, which waits for call 3, which is queued behind call 1."""


@pytest.mark.parametrize("processes", [[process(*TWO)], [process(TWO[0]), process(TWO[1])]], ids=["one", "several"])
def test_two_actors_that_wait_for_one_another_are_a_circle(processes):
    waits = Waits(processes)
    assert list(waits.circles()) == [(1, 2, 3)]
    assert waits.first_queued((1, 2, 3)) == 3
    lines = waits.describe((1, 2, 3)).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["b1", "b2", "q3", "b1."]


@pytest.mark.parametrize(
    "hosts",
    [
        [host(running=[1], queued=[3], blocked={1: [2]}), host(running=[2])],
        [host(running=[1], queued=[3], blocked={1: [2]})],
        [host(limit=2, running=[1], queued=[3], blocked={1: [3]})],
        [host(limit=2, running=[1, 5], queued=[3], blocked={1: [3]})],
        [host(running=[1], queued=[3], blocked={1: [3, 9]})],
        [host(running=[1], queued=[3], blocked={1: []})],
        [],
    ],
    ids=["one runs", "one is unknown", "room", "another holds a place", "another may come", "done", "nothing"],
)
def test_what_may_end_is_no_circle(hosts):
    assert Waits([process(*hosts)]).circles() == {}


def test_a_call_needs_all_its_arguments():
    facts = process(host(running=[1], queued=[3], blocked={1: [7]}), late={7: [3, 9]})
    assert list(Waits([facts]).circles()) == [(1, 7, 3)]


def test_a_full_pool_is_a_circle_only_if_all_its_calls_wait():
    pool = host(limit=2, running=[1, 2], queued=[3, 4], blocked={1: [3], 2: [4]})
    assert list(Waits([process(pool)]).circles()) == [(1, 3)]


def test_those_that_wait_for_a_circle_are_not_part_of_it():
    outside = host(running=[8], queued=[9], blocked={8: [1]})
    assert list(Waits([process(*TWO, outside)]).circles()) == [(1, 2, 3)]


def test_a_circle_counts_only_if_it_was_there_before_for_the_same_reasons():
    now = Waits([process(*TWO)])
    other = Waits([process(host(running=[1], queued=[3], blocked={1: [2]}), host(running=[2], blocked={2: [3, 3]}))])
    assert confirmed(now, now) == [(1, 2, 3)]
    assert confirmed(Waits([]), now) == []
    assert list(other.circles()) == [(1, 2, 3)]
    assert confirmed(other, now) == []
