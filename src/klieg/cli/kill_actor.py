"""End one actor of a running program, named by its name or id, as `klieg.kill` does: its process at once, no hooks."""

from __future__ import annotations

import argparse

from klieg.cli import show
from klieg.cli.program import Program, add_choice, visiting


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "actor", metavar="NAME_OR_ID", help="the actor's name, or its id as `klieg list actors` shows it"
    )
    parser.add_argument("--namespace", help="where the name lives; default: the program's own")
    parser.add_argument("--restart", action="store_true", help="let it come back, if it has restarts left")
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    program = Program(given)
    killed = program.ask("kill_actor", actor=given.actor, namespace=given.namespace, no_restart=not given.restart)
    print(f"killed {show.clean(killed['class_name'])} {killed['actor_id']}")
    return 0
