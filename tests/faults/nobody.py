"""Another user of this machine: programs run as `nobody`, where this is root and there is a Python for everybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import cloudpickle
import pytest

import klieg

PATHS = [os.path.dirname(os.path.dirname(module.__file__ or "")) for module in (klieg, cloudpickle)]
CHECK = "import sys, klieg; sys.exit(sys.version_info < (3, 11))"


def run(program: str, *arguments: str) -> tuple[str, str, int]:
    """Run a program as nobody: stdout, stderr, exit code. Skips the test, with the reason, where that cannot be."""
    return _run(_python(), textwrap.dedent(program), *arguments)


def _python() -> str:
    if os.getuid() != 0:
        pytest.skip("only root may run a program as another user")
    if shutil.which("runuser") is None:
        pytest.skip("there is no runuser here")
    tried = [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"]
    for python in tried:
        if _run(python, CHECK)[2] == 0:
            return python
    pytest.skip(f"the user nobody can run none of {', '.join(tried)} with this klieg")


def _run(python: str, program: str, *arguments: str) -> tuple[str, str, int]:
    command = ["runuser", "-u", "nobody", "--", python, "-B", "-c", program, *arguments]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(PATHS), "HOME": "/nonexistent"}
    variables |= {key: value for key, value in os.environ.items() if key.startswith("KLIEG_TEST")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, env=variables, cwd="/")
    return result.stdout, result.stderr, result.returncode
