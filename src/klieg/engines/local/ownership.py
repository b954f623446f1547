"""Who holds what across processes.

A value stays with its owner. While only the owner's process names it, Python's own references keep it; once it is
named in a message to another process, the owner's table keeps it until that process has given it back:

- who sends a value that names a ref *lends* the ref to the receiver: the owner by its own table, a borrower by a LEND
  message to the owner. That message leaves on the connection on which the borrower's own RELEASE would come later,
  so the owner can never see the second before the first.
- who has dropped its last reference gives back as many loans as it was given, in one RELEASE.
- the counts are kept for each process, and may be below zero for a moment, when a RELEASE overtakes the LEND of a third
  process. A value is free when no process has a count other than zero.
- a process that dies gives back everything.
"""

from __future__ import annotations

import threading
from collections import Counter

from klieg.engines.local.store.segment import Block
from klieg.engines.objects import ActorToken, ObjectFuture
from klieg.engines.serialization import Named

Lendable = Named | Block
"""What one process keeps for others: the value of a ref, an actor, a part of shared memory."""


class Loans:
    """The owner's table: what is lent to whom."""

    def __init__(self) -> None:
        self._named: dict[int, Lendable] = {}
        self._counts: dict[int, Counter[int]] = {}
        self._lock = threading.Lock()

    def lend(self, named: Lendable, process: int, count: int = 1) -> None:
        with self._lock:
            self._named[named.id] = named
            self._count(named.id, process, count)

    def change(self, number: int, process: int, count: int) -> None:
        """Change what `process` holds of the id; ignored if nothing is known of it any more."""
        with self._lock:
            dropped = self._count(number, process, count) if number in self._named else None
        del dropped  # outside the lock: the last reference to an actor may go with it

    def forget_process(self, process: int) -> None:
        """The process is dead."""
        with self._lock:
            numbers = [number for number, counts in self._counts.items() if process in counts]
            dropped = [self._count(number, process, -self._counts[number][process]) for number in numbers]
        del dropped

    def clear(self) -> None:
        """The runtime is over: nobody holds anything."""
        with self._lock:
            dropped = list(self._named.values())
            self._named.clear()
            self._counts.clear()
        del dropped

    def find(self, number: int) -> Lendable | None:
        return self._named.get(number)

    def all(self) -> list[Lendable]:
        """Whatever is lent to anybody."""
        with self._lock:
            return list(self._named.values())

    def holders_of(self, kind: type[Lendable]) -> set[int]:
        """The processes that hold anything of that kind."""
        with self._lock:
            numbers = [number for number, named in self._named.items() if isinstance(named, kind)]
            return {process for number in numbers for process in self._counts[number]}

    def holders(self, number: int) -> list[int]:
        """The processes that hold the id now."""
        with self._lock:
            return [process for process, count in self._counts.get(number, {}).items() if count > 0]

    def _count(self, number: int, process: int, count: int) -> Lendable | None:
        counts = self._counts.setdefault(number, Counter())
        counts[process] += count
        if counts[process] == 0:
            del counts[process]
        if counts:
            return None
        del self._counts[number]
        return self._named.pop(number)

    def __len__(self) -> int:
        return len(self._named)


class BorrowedFuture(ObjectFuture):
    """A ref of another process's value. The value is fetched when somebody asks for it."""

    __slots__ = ("_drop", "_fetch", "_wanted", "loans")

    def __init__(self, number: int, fetch, drop) -> None:  # type: ignore[no-untyped-def]  # two callables of the engine
        super().__init__(number)
        self._fetch = fetch
        self._drop = drop
        self._wanted = False
        self.loans = 0
        """How often this process was lent the ref and has not given it back."""

    def want(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._fetch(self)

    def __del__(self) -> None:
        # From the garbage collector, perhaps: no lock, no message, only a note.
        self._drop(self.id, self.loans)


class BorrowedToken(ActorToken):
    """An actor that another process created, and keeps alive for us."""

    __slots__ = ("_drop", "loans")

    def __init__(self, number: int, channel, drop) -> None:  # type: ignore[no-untyped-def]  # the engine's own types
        super().__init__(number, channel, None)
        self.counted = True
        self._drop = drop
        self.loans = 0

    def __del__(self) -> None:
        self._drop(self.id, self.loans)
