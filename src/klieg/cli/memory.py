"""Show how much memory each process of a running program has for itself."""

from __future__ import annotations

import argparse

from klieg.cli import show
from klieg.cli.program import Program, add_choice, visiting


def add(parser: argparse.ArgumentParser) -> None:
    show.add_format(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    workers = sorted(Program(given).ask("table", of="workers"), key=lambda row: -row["memory"])
    columns = ["pid", "title", "memory"]
    rows = workers if given.format == "json" else [{**row, "memory": show.size(row["memory"])} for row in workers]
    show.rows(rows, columns, given.format)
    return 0
