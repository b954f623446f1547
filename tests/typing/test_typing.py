"""mypy and pyright read `checked.py`: they infer what it asserts, and object where it says so and nowhere else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = Path(__file__).with_name("checked.py")
MARKED = {number for number, line in enumerate(CHECKED.read_text().splitlines(), 1) if line.endswith("# error")}


def objections(*command: str) -> set[int]:
    """The lines of the file that a type checker has something against."""
    done = subprocess.run([sys.executable, "-m", *command, str(CHECKED)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    return {int(line) for line in re.findall(r"checked\.py:(\d+):(?:\d+ -)? error: ", done.stdout)}


def test_mypy_agrees(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    assert objections("mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}") == MARKED


def test_pyright_agrees():
    pytest.importorskip("pyright", reason="pyright is not installed")
    if shutil.which("node") is None:
        pytest.skip("pyright needs node, and would download it")
    probe = subprocess.run([sys.executable, "-m", "pyright", "--version"], capture_output=True, text=True, timeout=120)
    if probe.returncode:  # the package fetches the checker itself when it is first used
        pytest.skip(f"pyright does not start here: {(probe.stdout + probe.stderr).strip()[-200:]}")
    assert objections("pyright", "--pythonpath", sys.executable) == MARKED


def test_enough_is_refused():
    assert len(MARKED) > 15
