"""How long whoever waits looks at the sockets: moments in, moments out."""

from __future__ import annotations

import asyncio
import os

import pytest

from klieg.engines.local.loops import LeadingLoop
from klieg.engines.local.patience import CROWDED, HOLD, LONGEST_HOLD, SPIN, Patience


def looked_for(patience, now):
    """Seconds that a wait which begins now is allowed to look."""
    return patience.begin(now) - now


def test_a_wait_looks_for_the_whole_time_as_long_as_looking_pays():
    patience = Patience()
    for now in (1.0, 2.0, 3.0):
        assert looked_for(patience, now) == pytest.approx(SPIN)
        patience.found(now + 10e-6, now + 12e-6)


def test_what_was_looked_in_vain_is_not_looked_again_for_many_times_as_long():
    patience = Patience()
    end = patience.begin(1.0)
    patience.sleep(end)
    assert looked_for(patience, end + HOLD * SPIN * 0.9) == 0
    assert looked_for(patience, end + HOLD * SPIN * 1.1) == pytest.approx(SPIN)


def test_each_turn_in_vain_doubles_the_time_without_looking_up_to_a_limit():
    patience, now = Patience(), 1.0
    pauses = []
    for _ in range(12):
        patience.sleep(now := patience.begin(now))
        start = now
        while not looked_for(patience, now):
            now += 1e-4
        pauses.append(now - start)
    assert pauses[1] == pytest.approx(2 * pauses[0], rel=0.1)
    assert pauses[-1] == pytest.approx(LONGEST_HOLD, rel=0.1)


def test_turns_that_pay_bring_the_time_without_looking_down_again():
    patience, now = Patience(), 1.0
    for _ in range(5):
        now = patience.begin(now)
        patience.sleep(now)
        now += LONGEST_HOLD
    for _ in range(5):
        patience.begin(now)
        patience.found(now, now + 2e-6)
    patience.sleep(now := patience.begin(now))
    assert looked_for(patience, now + HOLD * SPIN * 1.1) == pytest.approx(SPIN)


def test_a_core_that_others_had_between_two_looks_counts_as_looking_in_vain():
    patience = Patience()
    patience.begin(1.0)
    patience.found(1.0, 1.0 + 2 * CROWDED)
    assert looked_for(patience, 1.0 + 3 * CROWDED) == 0


def test_a_wait_that_does_not_look_costs_nothing():
    patience = Patience()
    patience.sleep(patience.begin(1.0))
    resumes = next(now for now in (1.0 + step * 1e-4 for step in range(10_000)) if looked_for(patience, now))
    patience.begin(1.0)
    patience.sleep(1.0)
    assert looked_for(patience, resumes)


def test_looking_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("KLIEG_POLL_SECONDS", "0")
    assert looked_for(Patience(), 1.0) == 0


def test_a_time_to_look_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("KLIEG_POLL_SECONDS", "a moment")
    with pytest.raises(ValueError, match="KLIEG_POLL_SECONDS"):
        Patience()


def test_a_users_loop_counts_the_looks_that_pay(monkeypatch):
    paid = []
    monkeypatch.setattr(Patience, "found", lambda self, since, now: paid.append(now))
    monkeypatch.setenv("KLIEG_POLL_SECONDS", "5")
    readable, writable = os.pipe()

    class Busy:
        """Stands for a reactor to which something has come at every look."""

        dirty = ()

        def fileno(self):
            return readable

        def poll(self):
            return True

    loop = asyncio.new_event_loop()
    leading = LeadingLoop(Busy(), loop)
    loop.call_soon(leading.expect, loop)
    loop.run_until_complete(asyncio.sleep(0.01))
    leading.detach()
    loop.close()
    os.close(readable)
    os.close(writable)
    assert paid
