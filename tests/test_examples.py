"""The programs in `examples` run to their end and print what they are there to show."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PATIENCE = 120
"""Seconds until a program that takes a few is given up."""

DEMO = [sys.executable, str(EXAMPLES / "demo"), "--pages", "100", "--sources", "200"]

needs_aiohttp = pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="the demo needs aiohttp")


def run(*command: str) -> str:
    """What the program prints; fails the test if it fails, or if it complains."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def run_on_a_terminal(*command: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = bytearray()
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError:  # how Linux says that nobody holds the other side any more
        pass
    os.close(ours)
    assert process.wait(PATIENCE) == 0, printed.decode()
    return printed.decode()


def check_demo(printed: str) -> None:
    most = int(re.search(r"the site counted (\d+) requests open at once", printed)[1])
    assert 1 < most <= 50
    table = printed[printed.index("the one-by-one figure") :]
    assert re.search(r"async actor fetches +100 ", table)
    assert re.search(r"threaded actor packs +100 ", table)
    assert re.search(r"tasks count words +32 ", table)


@needs_aiohttp
@pytest.mark.parametrize("engine", ["local", "inline"])
def test_the_demo_prints_plain_lines_on_a_pipe(engine):
    printed = run(*DEMO, "--engine", engine)
    check_demo(printed)
    assert "100/100" in printed
    assert "\r" not in printed
    assert "\x1b" not in printed


@needs_aiohttp
def test_the_demo_moves_a_bar_on_a_terminal():
    printed = run_on_a_terminal(*DEMO)
    check_demo(printed)
    bars = re.findall(r"\rfetch, 50 at a time +([█░]+)", printed)
    assert len(set(bars)) > 1
    assert "░" not in bars[-1]


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_every_example_of_the_page_prints_what_the_page_says(engine):
    printed = run(sys.executable, str(EXAMPLES / "page.py"), "--engine", engine)
    sections = dict(re.findall(r"^-- (.*)\n((?:(?!-- ).*\n)*)", printed, re.MULTILINE))
    lines = {title: body.splitlines() for title, body in sections.items()}
    assert lines["get and await an async actor"] == ["started"] * 4 + ["finished"] * 4 + ["started", "finished"]
    assert lines["refs in place of get and wait"] == ["asyncio.wait([ref]): [1]"]
    assert lines["refs as concurrent futures"] == ["completed: 1"] * 4
    assert lines["fifty calls start before any ends"] == ["started"] * 50 + ["ended"] * 50
    assert lines["ten at a time"][:11] == ["started"] * 10 + ["ended"]
    assert sorted(lines["ten at a time"]) == ["ended"] * 50 + ["started"] * 50
    # Of one process's threads, inline, Python may write the two lines first and the two ends of lines behind them.
    one, another = "I'm in one thread!", "I'm in another thread!"
    assert "".join(lines["two methods overlap in threads"]) in (one + another, another + one)
    assert "asyncio.run" in lines["an async def task is refused"][0]
    assert printed.splitlines()[-1] == f"every claim of the page holds on the {engine} engine (13 examples)"
