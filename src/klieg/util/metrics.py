"""Counters, gauges and histograms of a program's own, from every process, as text that Prometheus reads.

Each process counts for itself, so that counting is cheap; `export()` asks them all. klieg runs no server: the text can
be served by the program, or written to a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from klieg import engine, measurements

TIMEOUT: Final = 5.0
"""Seconds that processes get to say what they have measured."""

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Metric:
    """A name, and the keys of the tags that tell its series apart. Metrics can be passed to tasks and actors."""

    kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        """Raises ValueError for a name that Prometheus would not take, TypeError for tags that are no strings."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"The name of a metric has letters, digits and underscores: not {name!r}.")
        if isinstance(tag_keys, str) or not all(isinstance(key, str) for key in tag_keys or ()):
            raise TypeError(f"tag_keys is a tuple of strings, not {tag_keys!r}.")
        self._name = name
        self._description = description
        self._tag_keys = tuple(tag_keys or ())
        self._default_tags: dict[str, str] = {}
        self._declare()

    def _declare(self, boundaries: Sequence[float] = ()) -> None:
        measurements.declare(self._name, self.kind, self._description, boundaries)

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Metric:
        """Tags for values that are recorded without; returns this metric."""
        self._check(default_tags)
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Its name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": dict(self._default_tags),
        }

    def _check(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"{self._name} has no tag {key!r}; its tag_keys are {self._tag_keys}.")
            if not isinstance(value, str):
                raise TypeError(f"The tag {key!r} of {self._name} must be a string, not {type(value).__name__}.")

    def _tags(self, tags: Mapping[str, str] | None) -> measurements.Tags:
        given = {**self._default_tags, **(tags or {})}
        self._check(given)
        missing = [key for key in self._tag_keys if key not in given]
        if missing:
            raise ValueError(f"A value of {self._name} lacks the tags {missing}.")
        return tuple(sorted(given.items()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._declare()


class Counter(Metric):
    """Counts up: `requests.inc()`, `requests.inc(3, tags={"path": "/"})`."""

    kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add to it; ValueError for what is not above 0, or for tags that do not fit."""
        if not isinstance(value, int | float):
            raise TypeError(f"value must be a number, not {type(value).__name__}.")
        if value <= 0:
            raise ValueError(f"A counter counts up, not by {value}.")
        measurements.add(self._name, self._tags(tags), float(value))


class Gauge(Metric):
    """A value now, in each process: `depth.set(3)`."""

    kind = "gauge"

    def set(self, value: float | None, tags: Mapping[str, str] | None = None) -> None:
        """Set it; None changes nothing. ValueError for tags that do not fit."""
        if value is None:
            return
        if not isinstance(value, int | float):
            raise TypeError(f"value must be a number, not {type(value).__name__}.")
        measurements.put(self._name, self._tags(tags), float(value))


class Histogram(Metric):
    """How often values fell between boundaries: `seconds.observe(0.2)`."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        """Raises ValueError for boundaries that are missing, not above 0, or not rising."""
        rising = list(boundaries or ())
        if not rising or rising != sorted(set(rising)) or rising[0] <= 0:
            raise ValueError(f"A histogram needs boundaries above 0 that rise, not {boundaries!r}.")
        self.boundaries = rising
        super().__init__(name, description, tag_keys)

    def _declare(self, boundaries: Sequence[float] = ()) -> None:
        super()._declare(self.boundaries)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Record a value; ValueError for tags that do not fit."""
        if not isinstance(value, int | float):
            raise TypeError(f"value must be a number, not {type(value).__name__}.")
        measurements.observe(self._name, self._tags(tags), float(value))


def export() -> str:
    """What all processes have measured, as Prometheus's text: counters and histograms added up, gauges by pid.

    What a worker has measured is kept when it ends by itself, and lost when it is killed; a process that does not
    answer in time is left out. Raises SystemError_ if klieg is not running.
    """
    replies, _ = engine.current().survey("metrics", {}, TIMEOUT)
    return measurements.exposition(measurements.merged(replies))
