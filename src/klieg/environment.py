"""Environment variables that change what klieg does: one table, read when the setting is needed.

Each has two spellings, Ray's `RAY_X` and klieg's `KLIEG_X`; klieg's wins, and an argument of `init`
wins over both.
"""

from __future__ import annotations

import math
import os
from typing import Final

VARIABLES: Final = {
    "NAMESPACE": "where named actors live when `init` does not say so",
    "TASK_MAX_RETRIES": "how often a task is run again after its worker died; default 3, -1: without end",
    "LOGGING_CONFIG_ENCODING": "TEXT or JSON: how a `LoggingConfig` that does not say so shows log records",
    "LOG_TO_DRIVER": "0 silences what workers print",
    "IGNORE_UNHANDLED_ERRORS": "1: errors whose ref was dropped unread are not reported",
    "WARN_BLOCKING_GET_INSIDE_ASYNC": "0: no warning where `init(blocking_get='warn')` allows what would be an error",
    "ENABLE_AUTO_CONNECT": "0: the first use of the API does not start the runtime",
    "LOOP_WARNING": "seconds for which a method may hold an async actor's loop unreported; default 1, 0: for ever",
    "STALL_WARNING": "seconds for which a full limit may let no call start unreported; default 10, 0: for ever",
    "POLL_SECONDS": "seconds for which whoever waits looks at the sockets before it sleeps; default 0.0002, 0: none",
    "TMPDIR": "where a runtime makes its private folder, for the commands of `klieg` that look into it",
    "PROFILING": "1: record what runs when, for `klieg.timeline()`",
    "OMP_NUM_THREADS": "how many threads numeric libraries use in workers; default: the CPUs of the task, at least 1",
    "STORE_DIR": "a directory for large values, for want of memory that is no file (memfd); better a tmpfs",
    "USE_MULTIPROCESSING_CPU_COUNT": "1: count the machine's CPUs, not those that this process may use",
}
"""Name without prefix, and what it does."""


def text(name: str) -> str | None:
    """What the variable says; None if it is not set in either spelling."""
    assert name in VARIABLES
    found = os.environ.get(f"KLIEG_{name}")
    return os.environ.get(f"RAY_{name}") if found is None else found


def flag(name: str, default: bool) -> bool:
    """True for "1" and "true", as Ray reads them; False for anything else."""
    found = text(name)
    return default if found is None else found.strip().lower() in ("1", "true")


def seconds(name: str, default: float) -> float:
    """A number of seconds of at least 0; ValueError that names the variable for anything else."""
    found = text(name)
    if found is None:
        return default
    try:
        number = float(found)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise ValueError(f"The environment variable KLIEG_{name} must be a number of seconds of at least 0: {found!r}.")
    return number


def integer(name: str, default: int, least: int) -> int:
    """A whole number of at least `least`; ValueError that names the variable for anything else."""
    found = text(name)
    if found is None:
        return default
    try:
        number = int(found)
    except ValueError:
        number = least - 1
    if number < least:
        raise ValueError(f"The environment variable RAY_{name} must be a whole number of at least {least}: {found!r}.")
    return number
