"""What workers print: whole lines, each written at once, so that those of several threads and workers never mix."""

from __future__ import annotations

import io
import logging
import os
import re
import select
import sys
import threading
from collections import deque
from typing import Any, Final

LINES_KEPT: Final = 1000
"""Lines that a process remembers of what it has printed, for `klieg logs`."""

LONGEST_KEPT: Final = 2000
"""Characters of a line that are remembered."""

_RECENT: Final[deque[str]] = deque(maxlen=LINES_KEPT)


def recent(most: int) -> list[str]:
    """The last lines that this process has printed, the oldest first."""
    return list(_RECENT)[-most:] if most > 0 else []


class WholeLines(io.TextIOBase):
    """A text stream over a descriptor that writes line by line; each thread has an unfinished line of its own."""

    def __init__(self, fd: int, like: Any) -> None:
        self._fd = fd
        self._like = like
        self._lines = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        return "utf-8"

    @property
    def buffer(self) -> Any:
        """The binary stream below, for those who write bytes."""
        return self._like.buffer

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        line = getattr(self._lines, "unfinished", "") + text
        end = line.rfind("\n") + 1
        self._lines.unfinished = line[end:]
        if end:
            self._put(line[:end])
        return len(text)

    def flush(self) -> None:
        unfinished = getattr(self._lines, "unfinished", "")
        if unfinished:
            self._lines.unfinished = ""
            self._put(unfinished)

    def _put(self, text: str) -> None:
        _RECENT.extend(line[:LONGEST_KEPT] for line in text.splitlines())
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody has set the pipe that we share not to block: wait for room
                _wait_for_room(self._fd)
            except OSError:  # nobody reads any more; what a worker prints must not end it
                return


def _wait_for_room(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def install() -> None:
    """Make this process print whole lines."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, WholeLines(fd, getattr(sys, f"__{name}__")))


class OneRecord(logging.Formatter):
    """Text of users in a record, a name perhaps, can neither steer a terminal nor begin a line that looks like one."""

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], super().format(record))
        return text.replace("\n", "\n  ")


_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
"""Control characters but tab and newline, and those that change the direction of text."""


class OwnWarnings(logging.StreamHandler[Any]):
    """Prints what klieg itself warns of in a worker, as long as the user's code has set up no logging of its own."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self.setFormatter(OneRecord(f"%(levelname)s ({who} pid={os.getpid()}): %(message)s"))

    def filter(self, record: logging.LogRecord) -> bool:
        return not logging.root.handlers


def show_warnings(who: str) -> None:
    """Have klieg's warnings in this worker, whose calls are those of `who`, printed to stderr."""
    logging.getLogger("klieg").addHandler(OwnWarnings(who))
