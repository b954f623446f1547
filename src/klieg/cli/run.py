"""Run a Python program as `python` would. With --as-ray, `import ray` in it, and in its libraries, gives klieg."""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import sys


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as-ray", action="store_true", help="let `import ray` give klieg")
    parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM is the name of a module")
    parser.add_argument("program", metavar="PROGRAM", help="the path of a script")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="the program's own arguments")


def run(given: argparse.Namespace) -> int:
    """Run the program in this process; its `sys.exit` is this command's."""
    arguments = list(given.arguments)
    as_ray = given.as_ray
    if arguments[:1] == ["--as-ray"]:  # written behind the program, where it reads best
        as_ray = bool(arguments.pop(0))
    if as_ray:
        importlib.import_module("klieg.as_ray")
    sys.argv = [given.program, *arguments]
    if given.module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(given.program, run_name="__main__", alter_sys=True)
        return 0
    sys.path.insert(0, os.path.dirname(os.path.abspath(given.program)))
    runpy.run_path(given.program, run_name="__main__")
    return 0
