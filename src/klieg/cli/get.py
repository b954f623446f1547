"""Show everything about one actor, task, object, worker, node, job or placement group of a running program."""

from __future__ import annotations

import argparse
import sys

from klieg.cli import rows, show
from klieg.cli.program import Program, add_choice, visiting


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=list(rows.TABLES), metavar="TABLE", help=", ".join(rows.TABLES))
    parser.add_argument("id", metavar="ID", help="its id as `klieg list` shows it, or a beginning that no other has")
    rows.add_timeout(parser)
    show.add_format(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    key = rows.id_of(given.table)
    found = [row for row in rows.fetch(Program(given), given.table, given.timeout) if row[key].startswith(given.id)]
    exact = [row for row in found if row[key] == given.id] or found
    if len({row[key] for row in exact}) != 1:
        what = "nothing" if not exact else f"{len(exact)} of them"
        print(f"klieg: {what} among the {given.table} has an id that begins with {given.id!r}", file=sys.stderr)
        return 1
    for row in exact:  # an object is known to each process that holds it
        show.pairs(row, given.format)
    return 0
