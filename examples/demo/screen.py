"""The demo's two pictures: a line that moves while the work goes on, and the table at its end."""

import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

BAR_WIDTH = 32
REDRAW_SECONDS = 0.05
PLAIN_STEPS = 4
"""How many lines a part prints where its progress cannot be redrawn in place."""


class Progress:
    """How far one part is: redrawn in place on a terminal, a few plain lines on a pipe."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.began = time.monotonic()
        self.live = sys.stdout.isatty()
        self.drawn_at = 0.0
        self.steps_printed = 0

    def show(self, done: int) -> None:
        if self.live:
            self._redraw(done)
        else:
            self._print_steps(done)

    def _redraw(self, done: int) -> None:
        now = time.monotonic()
        if done < self.total and now - self.drawn_at < REDRAW_SECONDS:
            return
        self.drawn_at = now
        filled = BAR_WIDTH * done // self.total
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        end = "\n" if done == self.total else ""
        print(f"\r{self.title:<28} {bar} {self._figures(done)}\x1b[K", end=end, flush=True)

    def _print_steps(self, done: int) -> None:
        step = PLAIN_STEPS * done // self.total
        if step > self.steps_printed:
            self.steps_printed = step
            print(f"{self.title:<28} {self._figures(done)}", flush=True)

    def _figures(self, done: int) -> str:
        took = time.monotonic() - self.began
        rate = done / took if took else 0.0
        return f"{done:>5}/{self.total}  {took:5.1f} s  {rate:7,.0f} /s"


class Row(NamedTuple):
    """One line of the table at the end. Durations are in seconds."""

    part: str
    calls: int
    took: float
    one_by_one: float
    how: str
    """How the one-by-one figure was come by."""


HEADER = ("part", "calls", "took", "one by one", "gain", "the one-by-one figure")


def table(rows: Iterable[Row]) -> str:
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [_line(cells, widths) for cells in lines]
    drawn.insert(1, "─" * max(map(len, drawn)))
    return "\n".join(drawn)


def _cells(row: Row) -> tuple[str, ...]:
    gain = f"{row.one_by_one / row.took:.1f}x"
    return (row.part, str(row.calls), _seconds(row.took), _seconds(row.one_by_one), gain, row.how)


def _seconds(duration: float) -> str:
    return f"{duration:.2f} s"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """The cells in columns: words to the left, figures to the right."""
    first, *figures, last = cells
    middle = (f"{cell:>{width}}" for cell, width in zip(figures, widths[1:-1], strict=True))
    return "  ".join([f"{first:<{widths[0]}}", *middle, last])
