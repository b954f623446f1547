"""Which parts of a file are free. Pure: numbers in, numbers out; the caller holds the lock."""

from __future__ import annotations

from bisect import bisect_left, insort


class FreeSpace:
    """Free ranges: the smallest that fits is taken, and neighbours are joined when one is given back."""

    def __init__(self) -> None:
        self._by_size: list[tuple[int, int]] = []
        """(size, start), sorted."""
        self._ends: dict[int, int] = {}
        """Start to end of each range."""
        self._starts: dict[int, int] = {}
        """End to start of each range."""
        self.total = 0

    def take(self, size: int) -> int | None:
        """The start of a range of that size, which is no longer free; None if no range is large enough."""
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            return None
        found, start = self._by_size[at]
        self._remove(start, start + found)
        if found > size:
            self._add(start + size, start + found)
        return start

    def give(self, start: int, size: int) -> None:
        """The range is free."""
        end = start + size
        after = self._ends.get(end)
        if after is not None:
            self._remove(end, after)
            end = after
        before = self._starts.get(start)
        if before is not None:
            self._remove(before, start)
            start = before
        self._add(start, end)

    def take_all(self) -> list[tuple[int, int]]:
        """Every free range as (start, size); none of them is free any more."""
        ranges = [(start, end - start) for start, end in self._ends.items()]
        self.__init__()  # type: ignore[misc]  # empty again
        return ranges

    @property
    def largest(self) -> int:
        return self._by_size[-1][0] if self._by_size else 0

    def _add(self, start: int, end: int) -> None:
        insort(self._by_size, (end - start, start))
        self._ends[start] = end
        self._starts[end] = start
        self.total += end - start

    def _remove(self, start: int, end: int) -> None:
        del self._by_size[bisect_left(self._by_size, (end - start, start))]
        del self._ends[start]
        del self._starts[end]
        self.total -= end - start
