"""What a process asks of the kernel for itself."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15

_libc: Final = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends; ends at once if it has already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_title(title: str) -> None:
    """Name this process, as `ps` and `top` show it; they show 15 characters."""
    _libc.prctl(_PR_SET_NAME, f"klieg:{title}"[:15].encode())


def descriptors_left() -> int:
    """How many more files, sockets and the like this process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd"))


def no_descriptors_left(what: str) -> str:
    """The sentence for a process that has come up against its limit on open files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"{what} that has no room for it: its limit on open files (RLIMIT_NOFILE) is {limit}; `ulimit -n` raises it"
