"""The tables of a running program, as the verbs `list`, `get` and `summary` show them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from klieg.cli.program import Program
from klieg.engines import inventory, task_table
from klieg.util import state

TABLES: Final = {
    "actors": ("actor_id", "class_name", "state", "name", "pid", "required_resources", "num_restarts", "death_cause"),
    "tasks": ("task_id", "name", "state", "running_for", "worker_pid", "actor_id", "required_resources"),
    "objects": ("object_id", "object_size", "kind", "task_status", "pid", "shared", "spilled", "holders", "call_site"),
    "workers": ("pid", "title", "state", "actor_id", "resources", "gpus", "memory", "worker_id"),
    "nodes": ("node_id", "node_name", "state", "resources_total", "labels"),
    "jobs": ("job_id", "status", "driver_pid", "entrypoint"),
    "placement-groups": ("placement_group_id", "name", "state", "strategy", "bundles", "is_infeasible_because"),
}
"""What can be listed, and the columns that a table shows."""


def fetch(program: Program, table: str, timeout: float) -> list[Mapping[str, Any]]:
    """All rows of a table; says on stderr which processes have not answered."""
    if table == "tasks":
        return list(task_table.merged(survey(program, "calls", timeout)))
    if table == "objects":
        return list(inventory.rows(survey(program, "objects", timeout)))
    rows: list[Mapping[str, Any]] = program.ask("table", of=table.replace("-", "_"))
    return rows


def survey(program: Program, question: str, timeout: float, **details: Any) -> list[Any]:
    """What each process answers."""
    answer = program.ask("survey", question=question, timeout=timeout, details=details)
    for silent in answer["silent"]:
        print(f"klieg: no answer from {silent['title']} (pid {silent['pid']}, {silent['state']})", file=sys.stderr)
    replies: list[Any] = answer["replies"]
    return replies


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """The argument that says how long processes may take to answer."""
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds that processes get to answer (default 5)")


def id_of(table: str) -> str:
    """The key that names a row of the table."""
    return TABLES[table][0] if table != "workers" else "worker_id"


def parse_filters(texts: Sequence[str]) -> list[state.Filter]:
    """Filters as they are written on the command line: `key=value` and `key!=value`."""
    found = []
    for text in texts:
        operator = "!=" if "!=" in text else "="
        key, separator, value = text.partition(operator)
        if not separator:
            raise argparse.ArgumentTypeError(f"a filter is key=value or key!=value, not {text!r}")
        found.append((key, operator, value))
    return found
