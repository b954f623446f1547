"""Named places where a test can make this process fail: nothing happens unless KLIEG_FAILPOINT is set.

    KLIEG_FAILPOINT="worker.after_result_pickled=kill:0.02;worker.before_init=exit"

kill: SIGKILL. exit: `os._exit(7)`. raise: RuntimeError. stop: SIGSTOP. The number behind the colon is the probability,
1 if left out; the choice is made by a generator seeded with KLIEG_FAILPOINT_SEED and the process id's turn, so that
a failing run can be told again. Each hit appends a line to the file KLIEG_FAILPOINT_LOG, if there is one.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

NAMES = (
    "worker.before_hello",
    "worker.before_init",
    "worker.after_init",
    "worker.call_received",
    "worker.after_result_pickled",
    "worker.before_exit",
    "head.before_fork",
    "head.before_answer",
)
"""Every fail-point there is."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _exit() -> None:
    os._exit(7)


def _raise() -> None:
    raise RuntimeError("a fail-point was told to raise")


_ACTIONS: dict[str, Callable[[], None]] = {"kill": _kill, "exit": _exit, "raise": _raise, "stop": _stop}


def parse(text: str) -> dict[str, tuple[Callable[[], None], float]]:
    """The plan that the variable's text describes; ValueError for an unknown name or action."""
    plan = {}
    for entry in filter(None, text.split(";")):
        name, _, action = entry.partition("=")
        verb, _, probability = action.partition(":")
        if name not in NAMES or verb not in _ACTIONS:
            raise ValueError(f"KLIEG_FAILPOINT: {entry!r} names no fail-point or action; there are {NAMES}.")
        plan[name] = (_ACTIONS[verb], float(probability or 1))
    return plan


_plan = parse(os.environ.get("KLIEG_FAILPOINT", ""))
_random: random.Random | None = None


def _hit(name: str) -> None:
    global _random
    if name not in _plan:
        return
    if _random is None:
        _random = random.Random(f"{os.environ.get('KLIEG_FAILPOINT_SEED', '0')}/{os.getpid()}")
    action, probability = _plan[name]
    if _random.random() >= probability:
        return
    log = os.environ.get("KLIEG_FAILPOINT_LOG")
    if log:
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{name} {os.getpid()}\n".encode())
        os.close(fd)
    action()


def _miss(name: str) -> None:
    return


failpoint: Callable[[str], None] = _hit if _plan else _miss
"""Fail here if the plan says so."""
