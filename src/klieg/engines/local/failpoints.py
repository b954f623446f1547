"""Named places where a test can make this process fail: nothing happens unless KLIEG_FAILPOINT is set.

    KLIEG_FAILPOINT="worker.result_pickled=kill:0.02;worker.class_loading=exit7;head.before_kill=kill@2"

The number behind the colon is the probability of a failure at each pass, 1 if left out; behind the @ stands the one
pass of a process at which it fails. The choice is made by a generator seeded with KLIEG_FAILPOINT_SEED and the turn of
the process (0 for the head, then 1, 2, 3 for the workers in the order of their forks), so that a failing run can be
told again. Each hit appends a line `name pid action` to the file KLIEG_FAILPOINT_LOG, if there is one.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final

WORKER_POINTS: Final = (
    "worker.before_hello",  # forked, nothing said yet
    "worker.class_loading",  # the actor's class is about to be unpickled
    "worker.after_init",  # the constructor has returned, the calls that wait for it have not started
    "worker.restarting",  # the constructor is about to run again
    "worker.call_received",  # read from the socket, not started
    "worker.call_done",  # the user's code has returned, the result is not pickled
    "worker.result_pickled",  # nothing of it is sent
    "worker.in_result_frame",  # half of the frame is sent
    "worker.result_sent",  # the whole frame is written to the socket
    "worker.before_exit",  # in a graceful exit, before the hooks
    "store.unsealed",  # a segment is allocated and written, and nobody knows of it
)

HEAD_VERBS: Final = (
    "hello", "reserve", "create", "connect", "kill", "find", "names", "lease", "give_back", "why", "watch",
    "end_worker",
)  # fmt: skip

HEAD_POINTS: Final = (
    "head.before_fork",
    "head.after_fork",
    *(f"head.before_{verb}" for verb in HEAD_VERBS),
    *(f"head.after_{verb}" for verb in HEAD_VERBS),
)

NAMES: Final = frozenset(WORKER_POINTS + HEAD_POINTS)
"""Every fail-point there is."""


def _signal(number: signal.Signals) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)  # to this very thread: it must not get one step further


def _raise() -> None:
    raise RuntimeError("a fail-point was told to raise")


def _read_nothing() -> None:
    ctypes.string_at(0)


def _overflow() -> None:
    """Use up a C stack. Since Python 3.12 counts how deep it goes into C, it takes a thread with a stack of 64 KiB."""
    sys.setrecursionlimit(1 << 30)

    def again() -> None:
        turn()

    turn = ctypes.CFUNCTYPE(None)(again)
    before = threading.stack_size(1 << 16)
    thread = threading.Thread(target=turn)
    thread.start()
    threading.stack_size(before)
    thread.join()


ACTIONS: Final[Mapping[str, Callable[[], None]]] = {
    "kill": _signal(signal.SIGKILL),
    "segv": _read_nothing,
    "abort": os.abort,
    "bus": _signal(signal.SIGBUS),
    "term": _signal(signal.SIGTERM),
    "exit0": lambda: os._exit(0),
    "exit7": lambda: os._exit(7),
    "sysexit": lambda: sys.exit(3),
    "overflow": _overflow,
    "stop": _signal(signal.SIGSTOP),
    "raise": _raise,
}
"""What can happen at a fail-point: nine ways to die, and two that leave the process there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What is to happen at one fail-point."""

    action: str
    probability: float = 1.0
    only: int = 0
    """The one pass of a process at which it happens; 0: at any."""


def parse(text: str) -> dict[str, Failure]:
    """The plan that the variable's text describes; ValueError for an unknown name or action."""
    plan = {}
    for entry in filter(None, text.split(";")):
        name, _, rest = entry.partition("=")
        rest, _, only = rest.partition("@")
        action, _, probability = rest.partition(":")
        if name not in NAMES or action not in ACTIONS:
            raise ValueError(
                f"KLIEG_FAILPOINT: {entry!r} names no fail-point or no action. The fail-points are "
                f"{', '.join(sorted(NAMES))}; the actions are {', '.join(ACTIONS)}."
            )
        plan[name] = Failure(action, float(probability or 1), int(only or 0))
    return plan


class Plan:
    """What this process is to do at its fail-points, and how often it has passed each of them."""

    def __init__(self, failures: Mapping[str, Failure], seed: str, log: str | None) -> None:
        self._failures = failures
        self._seed = seed
        self._log = log
        self._lock = threading.Lock()
        self.begin(0)

    def begin(self, turn: int) -> None:
        """This process is the runtime's so many-th: it draws from a sequence of its own."""
        self._random = random.Random(f"{self._seed}/{turn}")
        self._passes = dict.fromkeys(self._failures, 0)

    def due(self, name: str) -> str | None:
        """Pass a fail-point: the action that is to happen now, if any."""
        failure = self._failures.get(name)
        if failure is None:
            return None
        with self._lock:
            self._passes[name] += 1
            if failure.only and self._passes[name] != failure.only:
                return None
            if self._random.random() >= failure.probability:
                return None
        return failure.action

    def hit(self, name: str) -> None:
        action = self.due(name)
        if action is not None:
            self.act(name, action)

    def act(self, name: str, action: str) -> None:
        if self._log:
            fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(fd, f"{name} {os.getpid()} {action}\n".encode())
            os.close(fd)
        ACTIONS[action]()


PLAN: Final = Plan(
    parse(os.environ.get("KLIEG_FAILPOINT", "")),
    os.environ.get("KLIEG_FAILPOINT_SEED", "0"),
    os.environ.get("KLIEG_FAILPOINT_LOG"),
)

ARMED: Final = bool(os.environ.get("KLIEG_FAILPOINT"))
"""True if there is a plan. The path of a call looks at this first: `if ARMED: failpoint(name)`."""


def _miss(name: str) -> None:
    return


failpoint: Final[Callable[[str], None]] = PLAN.hit if ARMED else _miss
"""Fail here if the plan says so."""
