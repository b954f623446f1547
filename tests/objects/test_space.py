"""Free space of a file: held against a plain list of its units."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klieg.engines.local.store.space import FreeSpace

UNITS = 64

steps = st.lists(st.tuples(st.sampled_from(["take", "give"]), st.integers(1, 20)), max_size=60)


def runs(free: list[bool]) -> list[int]:
    """Lengths of the runs of free units."""
    text = "".join("1" if unit else "0" for unit in free)
    return [len(run) for run in text.split("0") if run]


@given(steps)
def test_taken_ranges_never_overlap_and_what_is_given_back_is_joined(steps: list[tuple[str, int]]) -> None:
    space, free = FreeSpace(), [True] * UNITS
    space.give(0, UNITS)
    taken: list[tuple[int, int]] = []
    for verb, number in steps:
        if verb == "take":
            start = space.take(number)
            assert (start is not None) == any(run >= number for run in runs(free))
            if start is not None:
                assert all(free[start : start + number])
                free[start : start + number] = [False] * number
                taken.append((start, number))
        elif taken:
            start, size = taken.pop(number % len(taken))
            free[start : start + size] = [True] * size
            space.give(start, size)
        assert space.total == sum(free)
    assert sorted(size for _, size in space.take_all()) == sorted(runs(free))


def test_the_smallest_range_that_fits_is_taken() -> None:
    space = FreeSpace()
    space.give(0, 10)
    space.give(20, 4)
    assert space.take(3) == 20
    assert space.take(4) == 0


def test_nothing_is_free_after_all_was_taken() -> None:
    space = FreeSpace()
    space.give(5, 5)
    assert space.take_all() == [(5, 5)]
    assert space.take(1) is None
    assert space.total == 0
