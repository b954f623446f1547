"""Log records with the call that made them: from every worker to the driver's handlers, if `init` was asked for it.

logger.info(...) in a worker ──► Sender ──► head ──► driver: its loggers' handlers, and the one that `start` adds
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from klieg import ids
from klieg.concurrency.call import CURRENT

FIELDS: Final = (
    "name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName", "created", "msecs",
    "relativeCreated", "thread", "threadName", "process", "processName", "taskName",
)  # fmt: skip
"""What of a record travels beside its message."""

CALL: Final = ("task_id", "task_name", "actor_id")
"""What klieg adds to it."""


def mark(record: logging.LogRecord) -> bool:
    """Note on the record which call made it, if one did."""
    call = CURRENT.get()
    if call is not None and not hasattr(record, "task_id"):
        record.task_id = ids.TaskID.from_int(call.number).hex()
        record.task_name = call.spec.name
        host = call.host
        record.actor_id = ids.ActorID.from_int(host.token.id).hex() if host.token is not None else ""
    return True


class Sender(logging.Handler):
    """The one handler of a worker's root logger: hands records on, as values."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send
        self.addFilter(mark)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(dumps(record))
        except Exception:
            self.handleError(record)


def dumps(record: logging.LogRecord) -> dict[str, Any]:
    """The record as JSON can carry it: its message made, its exception as text."""
    found = {key: getattr(record, key, None) for key in (*FIELDS, *CALL)}
    found["msg"] = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        found["exc_text"] = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
    return found


def handle(fields: Mapping[str, Any]) -> None:
    """Give a worker's record to the handlers of this process, as if it had been made here."""
    record = logging.makeLogRecord({key: value for key, value in fields.items() if value is not None})
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


class Text(logging.Formatter):
    """One line a record, and its call behind it."""

    def __init__(self, attributes: tuple[str, ...]) -> None:
        super().__init__("%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s")
        self._attributes = attributes

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        shown = {key: getattr(record, key, None) for key in (*CALL, *self._attributes)}
        return " ".join([super().formatMessage(record), *(f"{key}={value}" for key, value in shown.items() if value)])


class Json(logging.Formatter):
    """One JSON object a record."""

    def __init__(self, attributes: tuple[str, ...]) -> None:
        super().__init__()
        self._attributes = attributes

    def format(self, record: logging.LogRecord) -> str:
        shown = {key: getattr(record, key, None) for key in ("process", *CALL, *self._attributes)}
        text = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            **{key: value for key, value in shown.items() if value},
        }
        if record.exc_info:
            record.exc_text = record.exc_text or self.formatException(record.exc_info)
        if record.exc_text:
            text["exc_text"] = record.exc_text
        return json.dumps(text)


_added: logging.Handler | None = None
_level_before = logging.WARNING


def start(config: Mapping[str, Any]) -> None:
    """Show this process's records, and those that workers send, on stderr, as `LoggingConfig` says."""
    global _added, _level_before
    _added = logging.StreamHandler()
    attributes = tuple(config["additional_log_standard_attrs"])
    _added.setFormatter(Json(attributes) if config["encoding"] == "JSON" else Text(attributes))
    _added.addFilter(mark)
    _level_before = logging.root.level
    logging.root.addHandler(_added)
    logging.root.setLevel(config["log_level"])


def start_sending(config: Mapping[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    """In a worker: every record of at least the level goes to the driver."""
    logging.root.addHandler(Sender(send))
    logging.root.setLevel(config["log_level"])


def stop() -> None:
    """Undo `start`."""
    global _added
    if _added is not None:
        logging.root.removeHandler(_added)
        logging.root.setLevel(_level_before)
        _added = None
