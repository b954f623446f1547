"""Show the last lines that the living workers of a running program have printed, all or those of one."""

from __future__ import annotations

import argparse

from klieg.cli import rows, show
from klieg.cli.program import Program, add_choice, visiting


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("who", metavar="WHO", nargs="?", help="a worker's pid or id, an actor's class, name or id")
    parser.add_argument("--tail", type=int, default=1000, help="lines of each at most (default 1000)")
    rows.add_timeout(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    program = Program(given)
    wanted = _workers(program, given.who) if given.who else None
    for reply in rows.survey(program, "lines", given.timeout, most=given.tail):
        if reply["lines"] and (wanted is None or reply["worker_id"] in wanted):
            for line in reply["lines"]:
                print(f"({show.clean(reply['title'])} pid={reply['pid']}) {show.clean(line)}")
    return 0


def _workers(program: Program, who: str) -> set[str]:
    """The ids of the workers that are meant."""
    workers, actors = program.ask("table", of="workers"), program.ask("table", of="actors")
    found = {row["worker_id"] for row in workers if who in (str(row["pid"]), row["worker_id"], row["title"])}
    return found | {row["worker_id"] for row in actors if who in (row["actor_id"], row["name"])}
