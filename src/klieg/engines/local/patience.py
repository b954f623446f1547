"""How long to look at the sockets before sleeping on them. Moments in, moments out.

Two wake-ups across cores cost 50-99 µs (design measurements on 2 virtual cores), a look about one. So looking pays
when the answer comes soon, and is waste when it does not. What is more, where more processes are busy than there are
cores, it does harm: whoever looks yields the core between two looks and gets it back only when others have used up
their time, while a sleeper is put before them as soon as it is woken (`python -m benchmarks.polling`).

So looking has a price, the time for which it was in vain, and after it has cost something nobody looks for a while.
"""

from __future__ import annotations

from typing import Final

from klieg import environment

SPIN: Final = 200e-6
"""Seconds to look, at most, if nothing else is said: a few times what an answer of an idle process takes."""

CROWDED: Final = 100e-6
"""Seconds between two looks that only another process on this core explains; they are about two µs apart otherwise."""

HOLD: Final = 20
"""Times as long as was looked in vain nobody looks: so looking costs at most a twentieth of the time. Doubled at each
turn in vain, halved at each that pays, since many processes may do so on few cores."""

LONGEST_HOLD: Final = 0.1
"""Seconds for which nobody looks, at most: soon enough to notice that looking pays again."""


class Patience:
    """Adapts to what looking has brought. Raises ValueError if KLIEG_POLL_SECONDS is no number of seconds."""

    __slots__ = ("_began", "_hold", "_longest", "_resume")

    def __init__(self) -> None:
        self._longest = environment.seconds("POLL_SECONDS", SPIN)
        self._began = 0.0
        self._hold = HOLD
        self._resume = 0.0

    def begin(self, now: float) -> float:
        """A wait begins: the moment until which to look."""
        self._began = now
        return now if now < self._resume else now + self._longest

    def found(self, since: float, now: float) -> None:
        """The look at `now` has found something; the one before was at `since`."""
        if now - since > CROWDED:
            self.in_vain(since, now)
        elif self._hold > HOLD:
            self._hold //= 2

    def in_vain(self, since: float, now: float) -> None:
        """Nothing was gained between these two moments."""
        hold = self._hold * (now - since)
        if hold < LONGEST_HOLD:
            self._hold *= 2
        self._resume = now + min(hold, LONGEST_HOLD)

    def sleep(self, now: float) -> None:
        """Looking has found nothing since the wait began; the sleep begins."""
        if now > self._began:
            self.in_vain(self._began, now)
