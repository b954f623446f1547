"""Show what a running program has, uses and waits for."""

from __future__ import annotations

import argparse
import time

from klieg.cli import show
from klieg.cli.program import Program, add_choice, visiting


def add(parser: argparse.ArgumentParser) -> None:
    add_choice(parser)
    show.add_format(parser)


@visiting
def run(given: argparse.Namespace) -> int:
    status = Program(given).ask("status")
    if given.format == "json":
        show.pairs(status, "json")
        return 0
    total, free = status["total"], status["free"]
    used = {key: _amount(key, total[key] - free.get(key, 0), total[key]) for key in total}
    show.pairs(
        {
            "program": f"pid {status['pid']}: {status['command']}",
            "running for": _duration(time.time() - status["started"]),
            "namespace": status["namespace"],
            **{f"{key} in use": text for key, text in used.items()},
            "waiting": "; ".join(f"{count} for {show.brief(demand)}" for demand, count in status["waiting"])
            or "nobody",
            "actors": show.brief(status["actors"]) or "none",
            "workers": show.brief(status["workers"]) or "none",
            "placement groups": show.brief(status["placement_groups"]) or "none",
            "private memory": show.size(status["memory"]),
        }
    )
    return 0


def _amount(key: str, used: float, total: float) -> str:
    if "memory" in key:
        return f"{show.size(used)} of {show.size(total)}"
    return f"{used:g} of {total:g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
