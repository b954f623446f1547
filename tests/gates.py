"""How tests meet what runs elsewhere, whichever process that is: by events, never by sleeping.

Gates and journals can be passed to tasks and actors; what arrives there knows the path and nothing
else. This file imports little on purpose: every worker that receives one of them imports it.
"""

import fcntl
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 10.0
"""Seconds that a test waits for an event before it fails; only a bug makes it matter."""


def soon_raises(error: type[Exception], attempt: Callable[[], object]) -> Exception:
    """Repeat the attempt until it raises this error, and return that; fails the test in the end.

    For what is bound to happen without anybody being told, such as the end of an actor that nobody
    holds any more.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            attempt()
        except error as caught:
            return caught
    raise AssertionError(f"no {error.__name__} within {PATIENCE:g} s")


def soon(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """True once the condition holds; False if it does not in the end.

    For what happens in another thread a moment after what a test can wait for, such as the end of
    the frame that has resolved a call.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.001)
    return False


class Gate:
    """Shut until the driver opens it. Whoever waits at it blocks a thread, in C, without the GIL.

    The driver holds a file lock for as long as the gate is shut; `wait` asks for the same, shared.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._lock: int | None = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def open(self) -> None:
        """Let everybody through, now and later. Opening twice is fine."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None

    def wait(self) -> None:
        _pass_gate(self._path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteGate, (self._path,)


class _RemoteGate:
    def __init__(self, path: str) -> None:
        self._path = path

    def wait(self) -> None:
        _pass_gate(self._path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteGate, (self._path,)


def _pass_gate(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


class Journal:
    """Lines that any process writes with `note` and the driver reads in the order of writing."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        os.mkfifo(path, 0o600)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = ""

    def note(self, *words: object) -> None:
        _write_line(self._path, words)

    def next(self, patience: float = PATIENCE) -> str:
        """The next line; fails the test if none comes."""
        deadline = time.monotonic() + patience
        while "\n" not in self._text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._pipe], [], [], left)[0]:
                raise AssertionError(f"no line came into the journal within {patience:g} s")
            self._fetch()
        line, self._text = self._text.split("\n", 1)
        return line

    def take(self, count: int) -> list[str]:
        return [self.next() for _ in range(count)]

    def unread(self) -> list[str]:
        """The lines that are there now; waits for nothing."""
        while select.select([self._pipe], [], [], 0)[0]:
            self._fetch()
        lines = self._text.splitlines()
        self._text = ""
        return lines

    def close(self) -> None:
        os.close(self._pipe)

    def _fetch(self) -> None:
        self._text += os.read(self._pipe, 65536).decode()

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteJournal, (self._path,)


class _RemoteJournal:
    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, *words: object) -> None:
        _write_line(self._path, words)

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteJournal, (self._path,)


def _write_line(path: str, words: tuple[object, ...]) -> None:
    # O_NONBLOCK: if the test is over and nobody reads any more, fail and wait for no reader.
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(descriptor, (" ".join(str(word) for word in words) + "\n").encode())
    finally:
        os.close(descriptor)
