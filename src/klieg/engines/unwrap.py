"""From a future that has its outcome to the value, or to the error it stands for."""

from __future__ import annotations

from typing import Any

from klieg.engines import failures, serialization
from klieg.engines.objects import ObjectFuture
from klieg.exceptions import SystemError_
from klieg.outcome import Error


def unwrap(future: ObjectFuture) -> Any:
    """A fresh copy of the value; raises a fresh copy of the error."""
    outcome = future.outcome
    assert outcome is not None
    if isinstance(outcome, Error):
        outcome.unread = False
        raise failures.loads(outcome.payload)
    try:
        return serialization.loads(outcome.payload)
    except Exception:
        raise
    except BaseException as error:  # an object that exits as it is unpickled must not end its reader
        raise SystemError_(f"The value could not be unpickled: doing so raised {error!r}.") from error


def error_of(future: ObjectFuture) -> Exception | None:
    """The error of a finished future, None if it has a value."""
    outcome = future.outcome
    if not isinstance(outcome, Error):
        return None
    outcome.unread = False
    return failures.loads(outcome.payload)


def mark_read(future: ObjectFuture) -> None:
    """The error of a finished future, if it has one, is expected: it is not to be reported when it is dropped."""
    if isinstance(future.outcome, Error):
        future.outcome.unread = False
