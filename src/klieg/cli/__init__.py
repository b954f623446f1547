"""The command `klieg`: one file for each verb, with `add` for its arguments and `run` for what it does."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

VERBS: Final = {"run": "run a program, with klieg in the place of Ray if wanted"}
"""Each verb is a module of this package."""


def main(arguments: list[str] | None = None) -> int:
    """Carry out `klieg VERB ...`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="klieg", description="Tasks, actors and futures on one machine.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, summary in VERBS.items():
        verb = importlib.import_module(f"klieg.cli.{name}")
        of_verb = verbs.add_parser(name, help=summary, description=verb.__doc__)
        verb.add(of_verb)
        of_verb.set_defaults(run=verb.run)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    code: int = given.run(given)
    return code
