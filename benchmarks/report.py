"""The table of one run, and the same figures as JSON."""

import os
import platform
import statistics
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

NOTHING = "–"
HEADER = ("work", "", "klieg", "ray", "bare", "klieg/ray", "klieg/bare", "target", "reached")


class Results:
    """What each runtime measured in each round, and what went wrong."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.errors: dict[tuple[str, str], str] = {}
        self.versions: dict[str, str] = {}

    def add(self, runtime: str, fact: dict[str, Any]) -> None:
        """Take one object that a contestant said."""
        if "value" in fact:
            self.samples[runtime, fact["row"]].append(fact["value"])
        elif "error" in fact:
            self.errors[runtime, fact["row"]] = fact["error"]
        elif "version" in fact:
            self.versions[runtime] = f"{fact['version']} (Python {fact['python']})".strip()

    def median(self, runtime: str, key: str) -> float | None:
        samples = self.samples.get((runtime, key))
        return statistics.median(samples) if samples else None


# --- Ratios ---


def times_better(row: Row, results: Results) -> float | None:
    """How many times better klieg is than Ray, whichever way the row counts."""
    klieg, ray = results.median("klieg", row.key), results.median("ray", row.key)
    if not klieg or not ray:
        return None
    return ray / klieg if row.less_is_better else klieg / ray


def share_of_bare(row: Row, results: Results) -> float | None:
    klieg, bare = results.median("klieg", row.key), results.median("bare", row.key)
    return klieg / bare if klieg and bare else None


def reached(row: Row, results: Results) -> bool | None:
    """Whether every target of the row is met; None if one of them could not be measured."""
    met = [_met(times_better(row, results), row.target)]
    if row.bare_target is not None:
        met.append(_met(share_of_bare(row, results), row.bare_target))
    if False in met:
        return False
    return None if None in met else True


def _met(ratio: float | None, target: Fraction) -> bool | None:
    return None if ratio is None else ratio >= target


# --- The table ---


def table(chosen: tuple[Row, ...], results: Results) -> str:
    lines = [HEADER, *(_cells(row, results) for row in chosen)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [_line(cells, widths) for cells in lines]
    drawn.insert(1, "─" * max(map(len, drawn)))
    return "\n".join([*drawn, "", *_footnotes(chosen, results)])


def _cells(row: Row, results: Results) -> tuple[str, ...]:
    better, share = times_better(row, results), share_of_bare(row, results)
    return (
        row.title,
        row.unit,
        *(_spread(results, runtime, row.key) for runtime in ("klieg", "ray", "bare")),
        f"{better:.1f}x" if better else NOTHING,
        f"{share:.0%}" if share else NOTHING,
        _target(row),
        {True: "yes", False: "no", None: NOTHING}[reached(row, results)],
    )


def _spread(results: Results, runtime: str, key: str) -> str:
    """The median, and the least and most where there was more than one round."""
    samples = results.samples.get((runtime, key))
    if not samples:
        return "failed" if (runtime, key) in results.errors else NOTHING
    median = _figure(statistics.median(samples))
    if len(samples) == 1:
        return median
    return f"{median} ({_figure(min(samples))}–{_figure(max(samples))})"


def _figure(value: float) -> str:
    """Three digits that count, and never an exponent."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


def _target(row: Row) -> str:
    target = f"{row.target}x"
    return target if row.bare_target is None else f"{target}, {float(row.bare_target):.0%}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    title, unit, *figures = cells
    right = (f"{cell:>{width}}" for cell, width in zip(figures, widths[2:], strict=True))
    return "  ".join([f"{title:<{widths[0]}}", f"{unit:<{widths[1]}}", *right])


def _footnotes(chosen: tuple[Row, ...], results: Results) -> list[str]:
    measurable = [reached(row, results) for row in chosen]
    notes = [f"reached: {measurable.count(True)} of {len(chosen)} rows"]
    notes += [f"{runtime} {version}" for runtime, version in results.versions.items() if version]
    notes.append(", ".join(f"{name} {value}" for name, value in machine().items()))
    notes += [f"{who}, {key}: {error}" for (who, key), error in results.errors.items()]
    return notes


# --- The machine and the JSON ---


def machine() -> dict[str, str]:
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_json(chosen: tuple[Row, ...], results: Results) -> dict[str, Any]:
    return {
        "machine": machine(),
        "versions": results.versions,
        "rows": [_row_as_json(row, results) for row in chosen],
    }


def _row_as_json(row: Row, results: Results) -> dict[str, Any]:
    runtimes = ("klieg", "ray", "bare")
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "samples": {who: results.samples.get((who, row.key), []) for who in runtimes},
        "errors": {w: results.errors[w, row.key] for w in runtimes if (w, row.key) in results.errors},
        "times_better_than_ray": times_better(row, results),
        "share_of_bare": share_of_bare(row, results),
        "target": float(row.target),
        "bare_target": None if row.bare_target is None else float(row.bare_target),
        "reached": reached(row, results),
    }
