"""Show what every process of a running program is doing: running calls with their stacks, full groups, who waits."""

from __future__ import annotations

import argparse

from klieg.cli import rows
from klieg.cli.program import Program, add_choice, visiting
from klieg.diagnosis import render


def add(parser: argparse.ArgumentParser) -> None:
    rows.add_timeout(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    answer = Program(given).ask("survey", question="snapshot", timeout=given.timeout, details={})
    print(render([*answer["replies"], *({"silent": silent} for silent in answer["silent"])]), end="")
    return 0
