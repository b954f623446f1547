"""List actors, tasks, objects, workers, nodes, jobs or placement groups of a running program."""

from __future__ import annotations

import argparse
import sys

from klieg.cli import rows, show
from klieg.cli.program import Program, add_choice, visiting
from klieg.util import state


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", choices=list(rows.TABLES), metavar="TABLE", help=", ".join(rows.TABLES))
    parser.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE", help="rows that fit; also KEY!=VALUE"
    )
    parser.add_argument("--limit", type=int, default=state.LIMIT, help=f"rows at most (default {state.LIMIT})")
    parser.add_argument("--detail", action="store_true", help="all columns")
    rows.add_timeout(parser)
    show.add_format(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    everything = rows.fetch(Program(given), given.table, given.timeout)
    try:
        chosen = state.select(everything, rows.parse_filters(given.filter), given.limit)
    except (ValueError, argparse.ArgumentTypeError) as error:
        print(f"klieg: {error}", file=sys.stderr)
        return 2
    columns = list(chosen[0]) if given.detail and chosen else rows.TABLES[given.table]
    show.rows(chosen, columns, given.format)
    if len(chosen) == given.limit < len(everything):
        print(f"klieg: {given.limit} of {len(everything)} rows; --limit shows more", file=sys.stderr)
    return 0
