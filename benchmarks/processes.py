"""A measurement in a process of its own, which says what it finds as one JSON object a line."""

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from benchmarks import memory

ROOT = Path(__file__).resolve().parent.parent


def run(command: list[str], limit: float) -> tuple[list[dict[str, Any]], str]:
    """What the command said, and how it ended if it did not end well; it gets `limit` seconds."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        end = _run_limited(command, limit, said, complaints)
        said.seek(0)
        facts = list(_facts(said))
        if end:
            complaints.seek(0)
            end = " ".join([end, *complaints.read().strip().splitlines()[-1:]])
    return facts, end


def can_import(module: str, python: str) -> bool:
    """Whether that interpreter has the module."""
    check = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", check], check=False).returncode == 0


def _run_limited(command: list[str], limit: float, said: TextIO, complaints: TextIO) -> str:
    """Run to the end or the limit. Says what went wrong, or nothing."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=complaints,
        start_new_session=True,
    )
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"hung: ended after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"exit status {status}:" if status else ""


def _environment() -> dict[str, str]:
    """Workers find the benchmarks by PYTHONPATH; Ray reports to nobody and stays on loopback."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        memory.MARK: secrets.token_hex(8),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the switch that keeps every port on 127.0.0.1
    }


def _facts(said: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in said:
        try:
            yield json.loads(line)
        except ValueError:  # a print of somebody else
            continue
