"""Errors whose ref was dropped before anybody looked: reported once, so that nothing is lost silently."""

from __future__ import annotations

import logging

from klieg import environment
from klieg.engines import failures
from klieg.exceptions import RuntimeShutdownError
from klieg.outcome import UNREAD

logger = logging.getLogger("klieg")


def report_unread() -> None:
    """Log every error nobody read. Called by a thread that has nothing in hand; never by a finalizer."""
    while UNREAD:
        payload = UNREAD.popleft()
        if environment.flag("IGNORE_UNHANDLED_ERRORS", False) or not isinstance(payload, bytes):
            continue
        error = failures.loads(payload)
        if isinstance(error, RuntimeShutdownError):
            continue  # whoever ended the runtime knows that calls were under way
        logger.error(
            "Unhandled error: the ref of a failed call was dropped unread "
            "(silence this with RAY_IGNORE_UNHANDLED_ERRORS=1).\n%s",
            error,
        )
