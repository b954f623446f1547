"""Forks workers from the head, which is single-threaded and warm: two milliseconds and a megabyte each."""

from __future__ import annotations

import gc
import itertools
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from klieg.engines.local.failpoints import PLAN, failpoint
from klieg.engines.local.process import die_with
from klieg.engines.local.store.ledger import Ledger

_turns = itertools.count(1)


def fork(head_end: socket.socket, ledger: Ledger) -> int:
    """Start a worker that will be told by its end of a socket what to be.

    Returns its process id here, and never in the child. Raises OSError where the machine refuses.
    """
    failpoint("head.before_fork")
    gc.freeze()  # the collector must not touch, and so copy, the pages that parent and child share
    parent, turn = os.getpid(), next(_turns)
    pid = os.fork()
    if not pid:
        PLAN.begin(turn)
        _run_child(parent, head_end, ledger)
    failpoint("head.after_fork")
    return pid


def _run_child(parent: int, head_end: socket.socket, ledger: Ledger) -> NoReturn:
    code = 1
    try:
        os.setsid()  # its own group: Ctrl-C at the terminal is the driver's, and children of users can be ended with it
        die_with(parent)
        _close_all_but({0, 1, 2, head_end.fileno()})
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from klieg.engines.local import worker  # imported already: the head is warm

        worker.main(head_end, ledger)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _close_all_but(keep: set[int]) -> None:
    """Close what belongs to the head. The objects around those descriptors stay alive, unused, in the frames below."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue


class Exit:
    """How a process ended."""

    def __init__(self, status: int) -> None:
        self.status = status

    def __str__(self) -> str:
        code = os.waitstatus_to_exitcode(self.status)
        if code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", possibly because the machine ran out of memory" if -code == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}"


class Watched:
    """A child's pidfd in the reactor: tells once when the child has ended, reaps it and ends what it has started."""

    def __init__(self, reactor: Any, pid: int, on_exit: Callable[[Exit], None]) -> None:
        self.pid = pid
        self._reactor = reactor
        self._on_exit = on_exit
        self._fd = os.pidfd_open(pid)
        reactor.add(self._fd, self, select.EPOLLIN)

    def on_events(self, mask: int) -> None:
        self._reactor.remove(self._fd)
        os.close(self._fd)
        end_group(self.pid)  # before it is reaped: while the zombie is there, nobody else can have its number
        _, status = os.waitpid(self.pid, 0)
        self._on_exit(Exit(status))

    def let_go(self) -> None:
        """The head's forks close what they do not need themselves."""


def end_group(pid: int) -> None:
    """Kill the process and everything it has started in its own group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(pid, signal.SIGKILL)  # it has not come to its `setsid` yet, or it is a zombie: no harm
        except ProcessLookupError:
            return
