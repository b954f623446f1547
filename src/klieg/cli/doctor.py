"""Check whether this machine has what klieg needs, and whether a killed run has left something; say what to do."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING

import klieg
from klieg.cli import show
from klieg.engines import rundir

if TYPE_CHECKING:
    from klieg.engines.local.health import Finding


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clean", action="store_true", help="remove the folders that killed runs have left")
    show.add_format(parser)


def run(given: argparse.Namespace) -> int:
    """Make every check; the exit code is 1 if one of them is bad."""
    if sys.platform != "linux":
        print("klieg: the local engine needs Linux; klieg.init(engine='inline') runs everywhere", file=sys.stderr)
        return 1
    from klieg.engines.local.health import CHECKS  # what it imports is not everywhere

    findings = []
    for check in (*CHECKS, trial):
        findings.append(check())
        if given.format != "json":
            _tell(findings[-1])
    if given.clean:
        rundir.remove_dead()
    if given.format == "json":
        show.rows([dataclasses.asdict(finding) for finding in findings], [], "json")
    return int(any(finding.state == "bad" for finding in findings))


def trial() -> Finding:
    """Start a runtime, and have a task run in it."""
    from klieg.engines.local.health import Finding

    started = time.perf_counter()
    try:
        klieg.init(num_cpus=1, log_to_driver=False)
        klieg.get(klieg.remote(os.getpid).remote(), timeout=30)
    except Exception as error:
        return Finding("trial", "bad", f"{type(error).__name__}: {error}", "see the checks above")
    finally:
        klieg.shutdown()
    return Finding("trial", "ok", f"started, ran a task and stopped in {time.perf_counter() - started:.2f} s")


def _tell(finding: Finding) -> None:
    print(f"{finding.state:<5} {finding.check:<16} {show.clean(finding.found)}", flush=True)
    if finding.remedy:
        print(f"{'':<22} -> {show.clean(finding.remedy)}", flush=True)
