"""Show what every process of a running program is doing: circles of waits, running calls with stacks, full groups."""

from __future__ import annotations

import argparse
from typing import Any

from klieg.cli import rows
from klieg.cli.program import Program, add_choice, visiting
from klieg.cli.show import clean
from klieg.diagnosis import describe


def add(parser: argparse.ArgumentParser) -> None:
    rows.add_timeout(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    program = Program(given)

    def look() -> list[dict[str, Any]]:
        answer = program.ask("survey", question="snapshot", timeout=given.timeout, details={})
        return [*answer["replies"], *({"silent": silent} for silent in answer["silent"])]

    print("\n".join(map(clean, describe(look).split("\n"))), end="")
    return 0
