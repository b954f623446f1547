"""`klieg doctor`: what it finds on a machine that is well, on one that is not, and of runs that were killed."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import gates
import pytest
from outside import command

from klieg.engines import rundir
from klieg.engines.local import health


def findings(*arguments: str, code: int = 0, **variables: str) -> dict[str, dict[str, str]]:
    text, errors = command("doctor", "--format", "json", *arguments, code=code, **variables)
    assert errors == ""
    return {found["check"]: found for found in json.loads(text)}


def test_on_a_machine_that_is_well_every_check_is_made_and_none_is_bad(tmp_path):
    found = findings(KLIEG_TMPDIR=str(tmp_path))
    assert len(found) == len(health.CHECKS) + 1
    assert {finding["state"] for finding in found.values()} <= {"ok", "look"}
    assert "ran a task" in found["trial"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_it_is_told_in_lines_with_what_to_do():
    text, _ = command("doctor", TMPDIR=os.environ["TMPDIR"])
    assert text.startswith("ok    system           Python 3.")
    assert len([line for line in text.splitlines() if not line.startswith(" ")]) == len(health.CHECKS) + 1


def test_too_few_descriptors_are_bad_and_the_exit_code_says_so():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        [sys.executable, "-m", "klieg.cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard)),
    )
    assert done.returncode == 1
    assert "bad   open files       32 a process" in done.stdout
    assert f"ulimit -n {hard}" in done.stdout


def test_a_folder_that_a_killed_run_has_left_is_named_and_removed_on_request(tmp_path):
    path = rundir.make([str(tmp_path / f"{rundir.prefix()}left")])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        rundir.bind(sock, path)
    found = findings(KLIEG_TMPDIR=str(tmp_path))["left folders"]
    assert (found["state"], found["found"]) == ("look", path)
    assert "--clean" in found["remedy"]
    findings("--clean", KLIEG_TMPDIR=str(tmp_path))
    assert not os.path.exists(path)


def test_processes_of_a_run_that_does_not_answer_are_named_and_those_of_one_that_does_are_not(live):
    # A shell stands for whoever adopts orphans.
    shell = ["sh", "-c", "KLIEG_RUN_ID=left sleep 60 & echo $!; read line; kill -9 $!"]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as adopter:
        left = adopter.stdout.readline().strip()
        found = findings()["left processes"]
        adopter.communicate("\n")
    assert left in found["found"].split()
    assert f"kill -9 {found['found']}" in found["remedy"]
    assert str(live.pid) not in found["found"].split()


def test_processes_whose_program_lives_are_not_named_though_nobody_answers():
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "KLIEG_RUN_ID": "elsewhere"}) as process:
        assert gates.soon(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        found = findings()["left processes"]
        process.kill()
    assert str(process.pid) not in found["found"].split()


@pytest.mark.parametrize("directory", ["/nonexistent", "{}"])
def test_a_directory_for_values_is_looked_at(monkeypatch, tmp_path, directory):
    monkeypatch.setenv("KLIEG_STORE_DIR", directory.format(tmp_path))
    found = health.shared_memory()
    assert found.state == ("bad" if directory == "/nonexistent" else "ok")
    assert directory.format(tmp_path) in found.found


def test_where_no_folder_can_be_made_the_variable_is_named(monkeypatch):
    def refuse(places):
        raise OSError("full")

    monkeypatch.setattr(rundir, "make", refuse)
    assert "KLIEG_TMPDIR" in health.run_folder().remedy
