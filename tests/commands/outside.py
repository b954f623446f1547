"""A program that runs, to be looked into by commands in processes of their own, as from another terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import gates

from klieg.engines import rundir, visit

PATIENCE = 30.0
"""Seconds that a command may take; it needs a fraction of one."""

PROGRAM = """
    import sys
    import klieg

    klieg.init(num_cpus=2, resources={"gold": 1}, namespace="theirs")

    @klieg.remote(name="the counter", num_cpus=0.5)
    class Counter:
        def ping(self):
            print("counted")
            print("\\x1b]0;evil\\x07 line")
            return 1

        def wait(self, path):
            open(path).read()

    @klieg.remote
    def work(path):
        open(path).read()

    counter = Counter.remote()
    klieg.get(counter.ping.remote())
    running = counter.wait.remote(sys.argv[1])
    tasks = [work.remote(sys.argv[1]) for _ in range(3)]
    value = klieg.put(b"x" * 5000)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            exec(line)
        except Exception as error:
            print(type(error).__name__, flush=True)
        print("done", flush=True)
"""


class Live:
    """A running program: told what to do by lines of Python, looked into by commands."""

    def __init__(self, folder: Path) -> None:
        self.pipe = folder / "pipe"
        os.mkfifo(self.pipe)  # what its calls wait at, until it ends
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(self.pipe)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.read_until("ready")

    @property
    def pid(self) -> int:
        return self.process.pid

    def do(self, line: str) -> list[str]:
        """Have the program run a line; returns what it printed."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read_until("done")

    def read_until(self, last: str) -> list[str]:
        lines: list[str] = []
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) and line != f"{last}\n":
            lines.append(line.rstrip("\n"))
        assert line, "the program has ended"
        return lines

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def wait_for_door(pid: int) -> bool:
    """True once the program's runtime lets visitors in."""
    return gates.soon(lambda: any(about["pid"] == pid for _, about in visit.running()))


def doors() -> list[str]:
    """The folders of all runtimes, dead ones too."""
    return list(rundir.found())


def command(*arguments: str, code: int = 0, **variables: str) -> tuple[str, str]:
    """Run `klieg ...` with its output in pipes; what it wrote to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "klieg.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **variables},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def on_a_terminal(*arguments: str, **variables: str) -> str:
    """Run `klieg ...` on a pseudo-terminal; what it wrote there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "klieg.cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", **variables},
    ):
        os.close(theirs)
        written = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # nobody holds the other end any more
                break
            if not data:
                break
            written += data
    os.close(ours)
    return written.decode()


def table(text: str) -> list[dict[str, str]]:
    """The rows of what a command has written to a pipe."""
    header, *lines = [line.split("\t") for line in text.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]
