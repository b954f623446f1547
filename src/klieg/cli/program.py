"""The running program that a command looks into: which one is meant, and what it answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from klieg.engines import visit
from klieg.engines.visit import VisitError

Run = Callable[[argparse.Namespace], int]


class Program:
    """A running program, chosen on the command line or the only one there is."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Raises VisitError if it is not clear which one is meant, or if there is none."""
        self.path, self.about = visit.choose(given.pid)

    def ask(self, want: str, **details: Any) -> Any:
        """Its answer to a question; VisitError if it has none."""
        return visit.ask(self.path, {"want": want, **details})


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which program is meant."""
    parser.add_argument("--pid", type=int, help="the driver's process id, if several programs run (or KLIEG_PID)")


def visiting(run: Run) -> Run:
    """Have a verb end with one line and exit code 1 where there is no program, or no answer."""

    def run_or_explain(given: argparse.Namespace) -> int:
        try:
            return run(given)
        except VisitError as error:
            print(f"klieg: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:  # `klieg ... | head` has read enough
            sys.stdout = None  # nothing is left to flush at the end
            return 0

    return run_or_explain
