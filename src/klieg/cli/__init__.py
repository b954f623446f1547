"""The command `klieg`: one file for each verb, with `add` for its arguments and `run` for what it does."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

VERBS: Final = {
    "run": "run a program, with klieg in the place of Ray if wanted",
    "status": "what a running program has, uses and waits for",
    "list": "actors, tasks, workers, nodes, jobs or placement groups of a running program",
    "get": "everything about one of them",
    "summary": "how many actors or tasks there are of each kind",
    "dump": "what every process of a running program is doing, with stacks, and who waits for whom",
    "stack": "the same, under Ray's name",
    "memory": "how much memory each process has for itself",
    "logs": "the last lines that the workers of a running program have printed",
    "timeline": "what ran when, as a trace for a browser",
    "kill-actor": "end one actor of a running program",
    "doctor": "whether this machine has what klieg needs, and what killed runs have left",
    "microbenchmark": "how fast klieg is on this machine",
}
"""Each verb is a module of this package, with an underscore for a hyphen."""


def main(arguments: list[str] | None = None) -> int:
    """Carry out `klieg VERB ...`; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="klieg", description="Tasks, actors and futures on one machine.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, summary in VERBS.items():
        of_verb = verbs.add_parser(name, help=summary)
        if given[:1] == [name]:  # the others need not be imported
            verb = importlib.import_module(f"klieg.cli.{name.replace('-', '_')}")
            of_verb.description = verb.__doc__
            verb.add(of_verb)
            of_verb.set_defaults(run=verb.run)
    chosen = parser.parse_args(given)
    code: int = chosen.run(chosen)
    return code
