"""An actor that dies again and again is started ever more slowly; one that lives a while is not."""

import pytest

from klieg.engines.local.head.pace import CRASH_LOOP, FIRST, LONGEST, Pace


def pauses(lives):
    """What an actor waits after each death that follows a life of so many seconds."""
    pace, now, found = Pace(), 100.0, []
    for life in lives:
        now += life
        found.append(pace.pause(now))
        now += found[-1]
    return found


def test_the_first_death_costs_nothing():
    assert pauses([0.0]) == [0.0]


def test_each_death_in_a_row_doubles_the_wait_up_to_the_longest():
    assert pauses([0.0] * 11) == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST, LONGEST, LONGEST])


def test_the_wait_itself_is_no_life():
    assert pauses([CRASH_LOOP * 0.9] * 10)[-1] == LONGEST


@pytest.mark.parametrize("crashes", [0, 1, 5, 20])
def test_a_life_that_lasts_makes_all_good(crashes):
    assert pauses([0.0] * crashes + [CRASH_LOOP * 1.1])[-1] == 0.0
    assert pauses([0.0] * crashes + [CRASH_LOOP * 1.1, 0.0])[-1] == FIRST
