"""The commands of `klieg`, run against a program from outside: plain on a pipe, tables on a terminal."""

from __future__ import annotations

import json

import gates
import pytest
from outside import Live, command, on_a_terminal, table, wait_for_door


def test_status_tells_what_there_is_and_what_is_used(live):
    text, _ = command("status")
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    assert lines["program"].startswith(f"pid {live.pid}: ")
    assert (lines["CPU in use"], lines["gold in use"]) == ("1.5 of 2", "0 of 1")
    assert lines["waiting"] == "2 for CPU: 1"
    assert (lines["actors"], lines["namespace"]) == ("ALIVE: 1", "theirs")


def test_status_as_json_is_for_programs(live):
    status = json.loads(command("status", "--format", "json")[0])
    assert (status["pid"], status["total"]["CPU"], status["actors"]) == (live.pid, 2, {"ALIVE": 1})


def test_actors_are_listed(live):
    (row,) = table(command("list", "actors")[0])
    assert (row["class_name"], row["state"], row["name"]) == ("Counter", "ALIVE", "the counter")
    assert row["required_resources"] == "CPU: 0.5"


def test_tasks_are_listed_and_counted(live):
    rows = table(command("list", "tasks")[0])
    assert sorted((row["name"], row["state"]) for row in rows) == [
        ("Counter.wait", "RUNNING"),
        ("work", "PENDING_NODE_ASSIGNMENT"),
        ("work", "PENDING_NODE_ASSIGNMENT"),
        ("work", "RUNNING"),
    ]
    summary = {row["what"]: row for row in table(command("summary", "tasks")[0])}
    assert (summary["work"]["RUNNING"], summary["work"]["PENDING_NODE_ASSIGNMENT"]) == ("1", "2")
    assert table(command("summary", "actors")[0]) == [{"what": "Counter", "ALIVE": "1"}]


def test_workers_jobs_nodes_and_placement_groups_are_listed(live):
    assert {row["state"] for row in table(command("list", "workers")[0])} == {"DRIVER", "ACTOR", "LEASED"}
    assert table(command("list", "jobs")[0])[0]["driver_pid"] == str(live.pid)
    assert table(command("list", "nodes")[0])[0]["state"] == "ALIVE"
    assert command("list", "placement-groups")[0].count("\n") == 1
    live.do("group = klieg.util.placement_group([{'gold': 1}], name='mine'); assert group.wait(10)")
    assert [row["name"] for row in table(command("list", "placement-groups")[0])] == ["mine"]


def test_lists_are_filtered_limited_and_detailed(live):
    text, errors = command("list", "tasks", "--filter", "name=work", "--limit", "2")
    assert [row["name"] for row in table(text)] == ["work", "work"]
    assert "2 of 4" in errors
    assert "parent_task_id" in command("list", "tasks", "--detail")[0].splitlines()[0]
    assert table(command("list", "tasks", "--filter", "state!=RUNNING", "--filter", "name=Counter.wait")[0]) == []
    _, errors = command("list", "tasks", "--filter", "nonsense=1", code=2)
    assert "nonsense" in errors


def test_one_row_is_shown_whole_by_the_beginning_of_its_id(live):
    (row,) = table(command("list", "actors")[0])
    text, _ = command("get", "actors", row["actor_id"][:8])
    assert any(line.split() == ["ray_namespace", "theirs"] for line in text.splitlines())
    assert json.loads(command("get", "actors", row["actor_id"], "--format", "json")[0])["name"] == "the counter"
    _, errors = command("get", "actors", "no-such-id", code=1)
    assert "no-such-id" in errors


def test_logs_are_the_last_lines_with_escapes_made_visible(live):
    text, _ = command("logs")
    assert "counted" in text
    assert "\x1b" not in text
    assert r"\x1b]0;evil\x07 line" in text
    assert command("logs", "the counter", "--tail", "1")[0].endswith(" line\n")
    assert command("logs", "Counter")[0] == text
    assert command("logs", "nobody")[0] == ""


def test_stacks_are_those_of_the_running_calls(live):
    text, _ = command("stack")
    assert ", in work" in text
    assert f"pid {live.pid}" in text
    assert "Counter.wait" in text


def test_the_dump_begins_with_calls_that_wait_for_one_another(live):
    live.do(CIRCLE)
    assert gates.soon(lambda: command("dump")[0].startswith("These calls wait for one another"))
    text, _ = command("dump")
    assert "Side.call #" in text.partition("\n\n")[0]
    assert "Counter.wait" in text


CIRCLE = (
    "Side = klieg.remote(num_cpus=0)(type('Side', (), {"
    "'call': lambda self, other, me: klieg.get(other.answer.remote(me)), "
    "'answer': lambda self, back: klieg.get(back.end.remote()), 'end': lambda self: None})); "
    "side, other = Side.remote(), Side.remote(); circle = side.call.remote(other, side)"
)


def test_a_timeline_can_be_recorded_from_outside(live, tmp_path):
    _, errors = command("timeline", code=1)
    assert "--seconds" in errors
    trace = tmp_path / "trace.json"
    text, _ = command("timeline", "--seconds", "0.1", "-o", str(trace))
    names = {event["name"] for event in json.loads(trace.read_text()) if event.get("cat") == "running"}
    assert {"Counter.wait", "work"} <= names
    assert str(trace) in text
    command("timeline", code=1)  # it has been turned off again


def test_an_actor_can_be_killed_by_name_or_id(live):
    (row,) = table(command("list", "actors")[0])
    assert row["actor_id"] in command("kill-actor", "the counter")[0]
    assert live.do("klieg.get(counter.ping.remote())") == ["ActorDiedError"]
    _, errors = command("kill-actor", "the counter", code=1)
    assert "no living actor" in errors
    live.do("other = Counter.options(name=None, num_cpus=0).remote(); klieg.get(other.ping.remote())")
    (row,) = table(command("list", "actors", "--filter", "state=ALIVE")[0])
    command("kill-actor", row["actor_id"])
    assert live.do("klieg.get(other.ping.remote())") == ["ActorDiedError"]


def test_on_a_terminal_there_are_tables(live):
    pytest.importorskip("rich", reason="rich is not installed")
    text = on_a_terminal("list", "actors")
    assert "\x1b[1m" in text
    assert "the counter" in text
    assert "\t" not in text


def test_on_a_terminal_without_rich_there_are_aligned_columns(live, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u, sys\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'rich' else found(name, *rest)\n"
    )
    text = on_a_terminal("list", "actors", PYTHONPATH=str(tmp_path))
    assert "\x1b" not in text
    assert "\t" not in text
    header, row = text.splitlines()
    assert header.index("state") == row.index("ALIVE")


def test_without_a_program_a_command_says_so(nothing_leaks):
    for verb in (["status"], ["list", "actors"], ["stack"], ["kill-actor", "x"]):
        _, errors = command(*verb, code=1)
        assert "No program" in errors


def test_of_several_programs_one_has_to_be_named(live, tmp_path):
    (tmp_path / "other").mkdir()
    other = Live(tmp_path / "other")
    try:
        assert wait_for_door(other.pid)
        _, errors = command("status", code=1)
        assert f"--pid {live.pid} " in errors
        assert f"--pid {other.pid} " in errors
        assert f"pid {other.pid}:" in command("status", "--pid", str(other.pid))[0]
        assert f"pid {live.pid}:" in command("status", KLIEG_PID=str(live.pid))[0]
    finally:
        other.kill()


def test_every_verb_explains_itself():
    from klieg.cli import VERBS

    text, _ = command("--help")
    assert all(verb in text for verb in VERBS)
    for verb in VERBS:
        assert "usage: klieg" in command(verb, "--help")[0]


def test_a_reader_that_has_enough_is_no_error(live):
    import subprocess
    import sys

    pipeline = f"{sys.executable} -m klieg.cli list tasks --format json | head -n 1"
    done = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_the_microbenchmark_measures(nothing_leaks):
    rows = table(command("microbenchmark", "--seconds", "0.01")[0])
    assert len(rows) == 9
    assert all(int(row["per second"]) > 0 for row in rows)


def test_memory_is_shown_for_each_process_and_the_largest_objects(live):
    live.do("large = klieg.put(bytes(300_000))")
    processes, store, objects = command("memory", "--limit", "1")[0].split("\n\n")
    rows = {row["title"]: row for row in table(processes + "\n")}
    assert rows.keys() == {"driver", "Counter", "task"}
    assert all(row["memory"].endswith("MiB") for row in rows.values())
    assert (rows["driver"]["stored"], rows["Counter"]["stored"]) == ("296.0 KiB", "0 B")
    assert store.startswith("object store: 296.0 KiB of ")
    (row,) = table(objects)
    assert (row["kind"], row["pid"], row["shared"]) == ("put", str(live.pid), "293.0 KiB")
    everything = json.loads(command("memory", "--format", "json")[0])
    assert everything["processes"][0]["memory"] > 1 << 20
    assert everything["objects"][0]["object_size"] > 300_000


def test_objects_are_listed_and_counted(live):
    hexadecimal = live.do("print(value.hex())")[0]
    (row,) = [row for row in table(command("list", "objects")[0]) if row["object_id"] == hexadecimal]
    assert (row["kind"], row["task_status"], row["pid"]) == ("put", "FINISHED", str(live.pid))
    assert f"object_id       {hexadecimal}" in command("get", "objects", hexadecimal)[0]
    counted = {row["what"]: row for row in table(command("summary", "objects")[0])}
    assert (counted["put"]["FINISHED"], counted["result"]["PENDING"]) == ("1", "4")
