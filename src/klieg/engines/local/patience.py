"""How long to look at the sockets before sleeping on them. Pure: moments in, seconds out.

Two wake-ups across cores cost 50-99 µs (design measurements on 2 virtual cores), a look about one. So looking pays
when the answer comes soon, and is waste when it does not: the whole time is given again when a sleep has proved
short, half of the last otherwise.
"""

from __future__ import annotations

from typing import Final

SPIN: Final = 200e-6
"""Seconds to look, at most: a few times what an answer of an idle process takes."""


class Patience:
    """Adapts to what the last waits were like."""

    __slots__ = ("_asleep", "seconds")

    def __init__(self) -> None:
        self.seconds = SPIN
        """How long to look now."""
        self._asleep: float | None = None

    def paid(self) -> float:
        """Looking has found something; returns the seconds for which to look on."""
        self.seconds = SPIN
        return SPIN

    def sleep(self, now: float) -> None:
        """Looking has found nothing; the sleep begins."""
        self._asleep = now

    def wake(self, now: float) -> None:
        """The sleep, if there was one, is over."""
        if self._asleep is not None:
            self.seconds = SPIN if now - self._asleep < SPIN else self.seconds * 0.5
            self._asleep = None
