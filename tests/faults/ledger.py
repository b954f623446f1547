"""The ledger: every call writes down that it starts and that it ends, where no death can take it back.

A line is `id attempt-process S|E incarnation`, appended by a single write, so that it is whole or not there at all.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import victims

import klieg

_appended: dict[str, int] = {}


def write(path: str, *words: object) -> None:
    """Append a line; the descriptor stays open, one for each process."""
    key = f"{os.getpid()} {path}"
    if key not in _appended:
        _appended[key] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(_appended[key], (" ".join(map(str, words)) + "\n").encode())


def answer(number: int) -> int:
    """What the call of that number must give."""
    return number * 7 + 1


class Plain:
    """An actor whose calls are in the ledger."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ping(self) -> int:
        return os.getpid()

    def call(self, number: int) -> int:
        write(self.path, number, os.getpid(), "S")
        write(self.path, number, os.getpid(), "E")
        return answer(number)


class Async(Plain):
    """The same on an event loop."""

    async def call(self, number: int) -> int:
        return Plain.call(self, number)


def actor_class(kind: str, **options: Any) -> Any:
    if kind == "threaded":
        options["max_concurrency"] = 4
    return klieg.remote(Async if kind == "async" else Plain).options(**options)


def task(path: str, number: int) -> int:
    """A task that is in the ledger."""
    write(path, number, os.getpid(), "S")
    write(path, number, os.getpid(), "E")
    return answer(number)


@dataclasses.dataclass
class Account:
    """What the ledger says: for each call, how often it started and ended; for each process, the order of starts."""

    started: collections.Counter[int]
    ended: collections.Counter[int]
    order: dict[int, list[int]]

    @classmethod
    def read(cls, path: str) -> Account:
        account = cls(collections.Counter(), collections.Counter(), collections.defaultdict(list))
        for line in Path(path).read_text().splitlines():
            number, pid, what = line.split()
            (account.started if what == "S" else account.ended)[int(number)] += 1
            if what == "S":
                account.order[int(pid)].append(int(number))
        return account

    def duplicates(self) -> int:
        return sum(count - 1 for count in self.started.values() if count > 1)

    def inversions(self, submitters: Iterable[Iterable[int]]) -> int:
        """Calls of one submitter that started in one process before an earlier one of its did."""
        owner = {number: who for who, numbers in enumerate(submitters) for number in numbers}
        found = 0
        for numbers in self.order.values():
            latest: dict[int, int] = {}
            for number in numbers:
                who = owner[number]
                found += number < latest.get(who, -1)
                latest[who] = max(number, latest.get(who, -1))
        return found


@dataclasses.dataclass
class Outcomes:
    """What became of the calls, as their caller was told."""

    values: dict[int, Any] = dataclasses.field(default_factory=dict)
    errors: dict[int, BaseException] = dataclasses.field(default_factory=dict)

    def take(self, refs: dict[int, Any], patience: float = 60.0) -> None:
        """Read every ref; one that does not resolve in so many seconds fails the test."""
        for number, ref in refs.items():
            try:
                self.values[number] = klieg.get(ref, timeout=patience)
            except klieg.exceptions.GetTimeoutError as error:
                raise AssertionError(f"call {number} is unresolved after {patience:g} s") from error
            except klieg.exceptions.KliegError as error:
                self.errors[number] = error

    def wrong(self) -> list[int]:
        return [number for number, value in self.values.items() if value != answer(number)]


KINDS = victims.KINDS
