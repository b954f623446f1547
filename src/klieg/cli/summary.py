"""Show how many actors, tasks or objects of a running program there are of each kind."""

from __future__ import annotations

import argparse
import json
from typing import Any

from klieg.cli import rows, show
from klieg.cli.program import Program, add_choice, visiting
from klieg.engines import inventory
from klieg.util import state


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=["actors", "tasks", "objects"], metavar="TABLE", help="actors, tasks, objects")
    rows.add_timeout(parser)
    show.add_format(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    summary = _summary(Program(given), given.table, given.timeout)
    if given.format == "json":
        print(json.dumps(summary, indent=2))
        return 0
    lines = [{"what": name, **_flat(entry)} for name, entry in summary["summary"].items()]
    columns = list(dict.fromkeys(key for line in lines for key in line)) or ["what"]
    show.rows(lines, columns, given.format)
    return 0


def _summary(program: Program, table: str, timeout: float) -> dict[str, Any]:
    if table == "tasks":
        return state.task_summary(rows.survey(program, "calls", timeout, most=0))
    if table == "objects":
        return inventory.summary(rows.fetch(program, "objects", timeout))
    return state.actor_summary(program.ask("table", of="actors"))


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Counts as columns of their own."""
    flat = {key: value for key, value in entry.items() if not isinstance(value, dict | str)}
    for counts in (value for value in entry.values() if isinstance(value, dict)):
        flat |= counts
    return flat
