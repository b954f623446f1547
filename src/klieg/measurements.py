"""What a program has counted and measured in this process, for `klieg.util.metrics`: plain values by name and tags."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Tags = tuple[tuple[str, str], ...]
"""Sorted by key."""

_lock = threading.Lock()
_metrics: dict[str, dict[str, Any]] = {}


def declare(name: str, kind: str, description: str, boundaries: Sequence[float]) -> None:
    """Make a metric known; ValueError if its name is that of one of another kind, or with other boundaries."""
    with _lock:
        known = _metrics.setdefault(
            name, {"name": name, "kind": kind, "description": description, "boundaries": list(boundaries), "series": {}}
        )
    if (known["kind"], known["boundaries"]) != (kind, list(boundaries)):
        raise ValueError(f"There is a {known['kind']} named {name!r} already; a {kind} needs another name.")


def add(name: str, tags: Tags, value: float) -> None:
    """To a counter."""
    with _lock:
        series = _metrics[name]["series"]
        series[tags] = series.get(tags, 0.0) + value


def put(name: str, tags: Tags, value: float) -> None:
    """Into a gauge."""
    with _lock:
        _metrics[name]["series"][tags] = value


def observe(name: str, tags: Tags, value: float) -> None:
    """In a histogram: counts of its buckets, the last of which has no upper bound, and the sum."""
    with _lock:
        boundaries, series = _metrics[name]["boundaries"], _metrics[name]["series"]
        counts, total = series.get(tags) or ([0] * (len(boundaries) + 1), 0.0)
        counts[bisect.bisect_left(boundaries, value)] += 1
        series[tags] = (counts, total + value)


def dump() -> list[dict[str, Any]]:
    """Everything measured in this process, as JSON can carry it."""
    with _lock:
        return [
            {**metric, "series": [[dict(tags), _copy(value)] for tags, value in metric["series"].items()]}
            for metric in _metrics.values()
        ]


def _copy(value: Any) -> Any:
    return value if isinstance(value, float) else [list(value[0]), value[1]]


def is_empty() -> bool:
    return not _metrics


def reset() -> None:
    """Forget what was measured, and keep what was declared: the runtime is over."""
    with _lock:
        for metric in _metrics.values():
            metric["series"].clear()


def dump_counts() -> list[dict[str, Any]]:
    """What outlives this process: a gauge tells of a process that there is."""
    return [metric for metric in dump() if metric["kind"] != "gauge"]


def added_up(metrics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Several dumps as one."""
    found = merged([{"pid": 0, "metrics": metrics}])
    return [{**metric, "series": [[dict(tags), value] for tags, value in metric["series"].items()]} for metric in found]


def merged(replies: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each metric: counters and histograms of all processes added up, gauges with the pid as a tag."""
    found: dict[str, dict[str, Any]] = {}
    for reply in replies:
        for metric in reply["metrics"]:
            entry = found.setdefault(metric["name"], {**metric, "series": {}})
            for tags, value in metric["series"]:
                if metric["kind"] == "gauge":
                    tags = {**tags, "pid": str(reply["pid"])}
                key = tuple(sorted(tags.items()))
                entry["series"][key] = _sum(entry["series"].get(key), value)
    return list(found.values())


def _sum(before: Any, value: Any) -> Any:
    if before is None:
        return value
    if isinstance(value, int | float):
        return before + value
    return [[a + b for a, b in zip(before[0], value[0], strict=True)], before[1] + value[1]]


def exposition(metrics: Iterable[Mapping[str, Any]]) -> str:
    """The text that Prometheus reads, of merged metrics."""
    lines: list[str] = []
    for metric in metrics:
        name = metric["name"]
        lines += [f"# HELP {name} {_escaped(metric['description'])}", f"# TYPE {name} {metric['kind']}"]
        for tags, value in metric["series"].items():
            lines += (
                _histogram(name, tags, metric["boundaries"], value)
                if metric["kind"] == "histogram"
                else [f"{name}{_labels(tags)} {value:g}"]
            )
    return "".join(f"{line}\n" for line in lines)


def _histogram(name: str, tags: Tags, boundaries: Sequence[float], value: Any) -> list[str]:
    counts, total = value
    lines, running = [], 0
    for bound, count in zip([*(f"{b:g}" for b in boundaries), "+Inf"], counts, strict=True):
        running += count
        lines.append(f"{name}_bucket{_labels((*tags, ('le', bound)))} {running}")
    return [*lines, f"{name}_sum{_labels(tags)} {total:g}", f"{name}_count{_labels(tags)} {running}"]


def _labels(tags: Tags) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in tags) + "}" if tags else ""


_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
