"""Show what holds memory in a running program: its processes, the object store, and the largest objects."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from klieg.cli import rows, show
from klieg.cli.program import Program, add_choice, visiting

LARGEST: Final = 20
"""Objects that are shown if not told otherwise."""

PROCESS_COLUMNS: Final = ("pid", "title", "memory", "stored", "spilled")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=LARGEST, help=f"objects at most (default {LARGEST})")
    rows.add_timeout(parser)
    show.add_format(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    program = Program(given)
    (store,) = program.ask("table", of="store")
    processes = _processes(program, store)
    objects = rows.fetch(program, "objects", given.timeout)
    if given.format == "json":
        print(json.dumps({"processes": processes, "store": store, "objects": objects}, indent=2))
        return 0
    show.rows([_readable(row, "memory", "stored", "spilled") for row in processes], PROCESS_COLUMNS, given.format)
    print(f"\nobject store: {show.size(store['used'])} of {show.size(store['limit'])} in use; the largest objects:\n")
    shown = [_readable(row, "object_size", "shared", "spilled") for row in objects[: given.limit]]
    show.rows(shown, rows.TABLES["objects"], given.format)
    return 0


def _processes(program: Program, store: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes, those first that have most memory of their own; what they store belongs to all."""
    holdings = {holding["pid"]: holding for holding in store["processes"]}
    nothing = {"memory": 0, "disk": 0}
    found = []
    for row in program.ask("table", of="workers"):
        held = holdings.get(row["pid"], nothing)
        found.append({**row, "stored": held["memory"], "spilled": held["disk"]})
    return sorted(found, key=lambda row: -row["memory"])


def _readable(row: Any, *keys: str) -> dict[str, Any]:
    return {**row, **{key: show.size(row[key]) for key in keys}}
