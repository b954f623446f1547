"""Write what ran when in a running program as a Chrome trace, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import argparse
import json
import sys
import time

from klieg.cli import rows
from klieg.cli.program import Program, add_choice, visiting
from klieg.trace import chrome_trace


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", default="timeline.json", help="the file to write (default timeline.json); -: stdout"
    )
    parser.add_argument("--seconds", type=float, help="record for so long, if the program does not record by itself")
    rows.add_timeout(parser)
    add_choice(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    program = Program(given)
    if given.seconds is not None:
        rows.survey(program, "timeline", given.timeout, start=True)
        time.sleep(given.seconds)
    replies = rows.survey(program, "timeline", given.timeout, stop=given.seconds is not None)
    if not any(reply["recording"] for reply in replies):
        print(
            "klieg: the program records nothing; --seconds N records for a while, init(profiling=True) all the time",
            file=sys.stderr,
        )
        return 1
    events = chrome_trace(replies)
    if given.output == "-":
        print(json.dumps(events))
        return 0
    with open(given.output, "w", encoding="utf-8") as file:
        json.dump(events, file)
    print(f"{len(events)} events in {given.output}: open it in chrome://tracing or ui.perfetto.dev")
    return 0
