"""Tables for people and for programs: aligned on a terminal, with rich if it is there; tab-separated on a pipe; JSON.

What users have named or printed is shown with its control characters escaped, one row a line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

LONGEST_CELL: Final = 200
"""Characters of one value that a table shows; JSON and `klieg get` show all."""

Rows = Sequence[Mapping[str, Any]]


def add_format(parser: argparse.ArgumentParser) -> None:
    """The argument that says how to write rows."""
    parser.add_argument("--format", choices=["default", "table", "json"], default="default", help="how to write it")


def clean(text: object) -> str:
    """The text on one line, with control characters and escape sequences made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def rows(rows: Rows, columns: Sequence[str], how: str = "default") -> None:
    """Write rows: those columns of them in a table, all of them as JSON."""
    if how == "json":
        print(json.dumps(list(rows), indent=2))
        return
    cells = [[clean(_cell(row.get(column)))[:LONGEST_CELL] for column in columns] for row in rows]
    if not sys.stdout.isatty() and how != "table":
        for line in [columns, *cells]:
            print("\t".join(line))
    elif importlib.util.find_spec("rich") is not None and sys.stdout.isatty():
        _rich_table(cells, columns)
    else:
        _aligned(cells, columns)


def pairs(row: Mapping[str, Any], how: str = "default") -> None:
    """Write one row, a line for each of its values."""
    if how == "json":
        print(json.dumps(dict(row), indent=2))
        return
    width = max(map(len, row), default=0)
    for key, value in row.items():
        print(f"{key:<{width}}  {clean(_cell(value))}")


def brief(row: Mapping[str, Any]) -> str:
    """Names with amounts, on one line."""
    return clean(_cell(dict(row)))


def size(count: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_cell(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def _aligned(cells: list[list[str]], columns: Sequence[str]) -> None:
    lines = [list(columns), *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        print(text[:limit])


def _rich_table(cells: list[list[str]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for line in cells:
        table.add_row(*map(Text, line))  # not markup: names may hold brackets
    Console().print(table)
