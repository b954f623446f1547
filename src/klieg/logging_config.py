"""`init(logging_config=LoggingConfig(...))`: how log records look, and that those of workers reach the driver."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Final

from klieg import environment

ENCODINGS: Final = ("TEXT", "JSON")


def _encoding() -> str:
    return environment.text("LOGGING_CONFIG_ENCODING") or "TEXT"


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Log records of the driver and of all workers, through the driver's loggers and handlers.

    Raises ValueError for an encoding, a level or an attribute that does not exist.
    """

    encoding: str = dataclasses.field(default_factory=_encoding)
    """TEXT or JSON; default: RAY_LOGGING_CONFIG_ENCODING, or TEXT."""
    log_level: str | int = "INFO"
    """Of the root logger, in every process."""
    additional_log_standard_attrs: Sequence[str] = ()
    """Attributes of `logging.LogRecord` that are shown, too, such as "name"."""

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding is {' or '.join(ENCODINGS)}, not {self.encoding!r}.")
        known = logging.getLevelNamesMapping()
        if self.log_level not in known and not isinstance(self.log_level, int):
            raise ValueError(f"log_level is one of {', '.join(known)}, or a number, not {self.log_level!r}.")
        there = vars(logging.makeLogRecord({}))
        for attribute in self.additional_log_standard_attrs:
            if attribute not in there:
                raise ValueError(f"A log record has no attribute {attribute!r}; it has {', '.join(there)}.")

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "encoding": self.encoding,
            "log_level": self.log_level,
            "additional_log_standard_attrs": list(self.additional_log_standard_attrs),
        }
