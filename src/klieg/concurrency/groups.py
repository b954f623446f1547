"""Concurrency groups: a named limit, the calls that run under it and those that wait. Pure: calls in, calls out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from klieg.options import DEFAULT_GROUP

if TYPE_CHECKING:
    from klieg.concurrency.call import Call


class Group:
    """At most `limit` calls run; the others wait in the order in which they came."""

    __slots__ = ("limit", "name", "running", "waiting")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.running = 0
        self.waiting: deque[Call] = deque()

    def admit(self, call: Call) -> bool:
        """True if the call may run now; else it waits."""
        if self.running < self.limit and not self.waiting:
            self.running += 1
            return True
        self.waiting.append(call)
        return False

    def release(self) -> Call | None:
        """A running call has ended: the one that takes its place, if any."""
        if self.waiting and self.running <= self.limit:
            return self.waiting.popleft()
        self.running -= 1
        return None

    def fill(self) -> Iterator[Call]:
        """The waiting calls that may run now, after the limit has grown or the actor has opened."""
        while self.waiting and self.running < self.limit:
            self.running += 1
            yield self.waiting.popleft()

    def first(self) -> Call | None:
        """The waiting call that is to start next; from any thread."""
        try:
            return self.waiting[0]
        except IndexError:
            return None

    def discard(self, call: Call) -> bool:
        """Forget a waiting call; False if it does not wait here."""
        try:
            self.waiting.remove(call)
        except ValueError:
            return False
        return True

    def drain(self) -> list[Call]:
        """Take out every waiting call."""
        calls = list(self.waiting)
        self.waiting.clear()
        return calls


class Mailbox:
    """The ordered calls that an actor has not started, by group. Closed until the actor is ready."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.groups = {name: Group(name, limit) for name, limit in limits.items()}
        self._default = self.groups[DEFAULT_GROUP]
        self.is_open = False

    def put(self, call: Call) -> bool:
        """True if the call may run now; else it waits its turn. KeyError for an undeclared group."""
        name = call.spec.group
        group = self._default if name == DEFAULT_GROUP else self.groups[name]
        if self.is_open:
            return group.admit(call)
        group.waiting.append(call)
        return False

    def open(self) -> list[Call]:
        """Open the box; returns the calls that may run now."""
        self.is_open = True
        return [call for group in self.groups.values() for call in group.fill()]

    def done(self, call: Call) -> Call | None:
        """A running call has ended: the one that takes its place, if any."""
        name = call.spec.group
        return (self._default if name == DEFAULT_GROUP else self.groups[name]).release()

    def discard(self, call: Call) -> bool:
        return self.groups[call.spec.group].discard(call)

    def resize(self, name: str, limit: int) -> list[Call]:
        """Change a group's limit; returns the calls that may run now."""
        group = self.groups[name]
        group.limit = limit
        return list(group.fill()) if self.is_open else []

    def drain(self) -> list[Call]:
        """Take out every waiting call."""
        return [call for group in self.groups.values() for call in group.drain()]

    @property
    def default_waiting(self) -> int:
        return len(self._default.waiting)

    @property
    def running(self) -> int:
        return sum(group.running for group in self.groups.values())

    @property
    def waiting(self) -> int:
        return sum(len(group.waiting) for group in self.groups.values())
