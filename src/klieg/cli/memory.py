"""Show what holds memory in a running program: its processes, and the objects they know, the largest first."""

from __future__ import annotations

import argparse
import json

from klieg.cli import rows, show
from klieg.cli.program import Program, add_choice, visiting

LARGEST = 20
"""Objects that are shown if not told otherwise."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=LARGEST, help=f"objects at most (default {LARGEST})")
    rows.add_timeout(parser)
    show.add_format(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    program = Program(given)
    workers = sorted(program.ask("table", of="workers"), key=lambda row: -row["memory"])
    objects = sorted(rows.fetch(program, "objects", given.timeout), key=lambda row: -row["object_size"])
    if given.format == "json":
        print(json.dumps({"workers": workers, "objects": objects}, indent=2))
        return 0
    print("# private memory of each process")
    show.rows(
        [{**row, "memory": show.size(row["memory"])} for row in workers], ["pid", "title", "memory"], given.format
    )
    print(f"# objects: {len(objects)}, of {show.size(sum(row['object_size'] for row in objects))} in all")
    shown = [{**row, "object_size": show.size(row["object_size"])} for row in objects[: given.limit]]
    show.rows(shown, rows.TABLES["objects"], given.format)
    return 0
