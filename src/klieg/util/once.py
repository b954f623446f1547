"""Say something once: `if log_once("slow disk"): logger.warning(...)`."""

from __future__ import annotations

import threading
import time
from typing import Final

PERIOD: Final = 60.0
"""Seconds after which a key counts as new again, once periodic logging is on."""

_lock = threading.Lock()
_seen: dict[str, float] = {}
_disabled = False
_periodic = False


def log_once(key: str) -> bool:
    """True the first time this process asks with that key, and False from then on."""
    now = time.monotonic()
    with _lock:
        if _disabled or (key in _seen and not (_periodic and now - _seen[key] > PERIOD)):
            return False
        _seen[key] = now
        return True


def disable_log_once_globally() -> None:
    """`log_once` gives False in this process from now on."""
    global _disabled
    _disabled = True


def enable_periodic_logging() -> None:
    """`log_once` gives True for a key once a minute in this process, instead of once."""
    global _periodic
    _periodic = True
