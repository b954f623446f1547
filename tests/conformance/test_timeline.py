"""`klieg.timeline()`: what ran when, with queueing, running and waiting apart."""

from __future__ import annotations

import asyncio
import json
import logging
import os

import pytest

import klieg

pytestmark = pytest.mark.not_on_ray("Ray lists its tasks and actors itself")


@pytest.fixture
def klieg_runtime(engine, nothing_leaks):
    klieg.init(engine=engine, num_cpus=4, profiling=True)
    yield
    klieg.shutdown()


@klieg.remote
def inner(gate, journal):
    journal.note("in")
    gate.wait()


@klieg.remote
def outer(gate, journal):
    ref = inner.remote(gate, journal)
    return klieg.get(ref)


@klieg.remote
class Async:
    def __init__(self):
        self.event = asyncio.Event()

    async def waits(self, journal):
        journal.note("in")
        await self.event.wait()

    async def releases(self):
        self.event.set()

    async def returns(self):
        return 1


def spans(events, category, name):
    """(begin, end) of each span of a category, in microseconds."""
    whole = [
        (e["ts"], e["ts"] + e["dur"]) for e in events if (e["ph"], e.get("cat"), e["name"]) == ("X", category, name)
    ]
    begun = {e["id"]: [] for e in events if e.get("cat") == category and "id" in e and e["name"] == name}
    for e in events:
        if e.get("cat") == category and "id" in e and e["name"] == name:
            begun[e["id"]].append(e["ts"])
    return whole + [(one[i], one[i + 1]) for one in begun.values() for i in range(0, len(one), 2)]


def inside(one, other):
    return other[0] <= one[0] <= one[1] <= other[1]


def run(ref, gate, journal):
    assert journal.next() == "in"
    gate.open()
    klieg.get(ref)
    return klieg.timeline()


def test_a_call_is_queued_then_runs_and_waits_while_it_runs(gate, journal):
    ref = outer.remote(gate, journal)
    while "return klieg.get(ref)" not in klieg.dump():  # the inner call may be first at its gate
        pass
    events = run(ref, gate, journal)
    (queued,), (running,) = spans(events, "queued", "outer"), spans(events, "running", "outer")
    waiting = spans(events, "waiting", "outer")
    assert queued[1] == pytest.approx(running[0], abs=1)
    assert waiting
    assert all(inside(span, running) for span in waiting)
    (called,) = spans(events, "running", "inner")
    assert called[1] - called[0] > 0


def test_a_coroutine_waits_while_it_is_suspended(journal):
    actor = Async.remote()
    ref = actor.waits.remote(journal)
    assert journal.next() == "in"
    klieg.get([actor.releases.remote(), ref])
    events = klieg.timeline()
    (running,), (waiting,) = spans(events, "running", "Async.waits"), spans(events, "waiting", "Async.waits")
    (releasing,) = spans(events, "running", "Async.releases")
    assert inside(waiting, running)
    assert waiting[0] <= releasing[0] <= waiting[1]


def test_a_call_that_never_waits_has_no_wait():
    actor = Async.remote()
    klieg.get(actor.returns.remote())
    events = klieg.timeline()
    assert len(spans(events, "running", "Async.returns")) == 1
    assert spans(events, "waiting", "Async.returns") == []


def test_a_call_that_still_runs_is_there_too(gate, journal):
    ref = inner.remote(gate, journal)
    assert journal.next() == "in"
    assert len(spans(klieg.timeline(), "running", "inner")) == 1
    gate.open()
    klieg.get(ref)


def test_events_name_their_process_their_thread_and_their_maker(gate, journal):
    ref = outer.remote(gate, journal)
    events = run(ref, gate, journal)
    (running,) = [e for e in events if (e.get("cat"), e["name"]) == ("running", "inner")]
    assert running["args"]["parent_task_id"] == ref.task_id().hex()
    named = {e["pid"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {e["pid"] for e in events} == named
    assert {(e["pid"], e["tid"]) for e in events if "tid" in e} == threads


def test_the_trace_can_be_written_to_a_file(tmp_path):
    klieg.get(Async.remote().returns.remote())
    assert klieg.timeline(tmp_path / "trace.json") is None
    events = json.loads((tmp_path / "trace.json").read_text())
    assert {"ph", "name", "pid"} <= set(events[0])
    assert all(e["ts"] >= 0 for e in events if "ts" in e)


@pytest.mark.needs_process("a worker that ends")
def test_what_an_ended_worker_has_recorded_is_kept(gate):
    actor = Async.remote()
    klieg.get(actor.returns.remote())
    klieg.get(actor.__ray_ready__.remote())
    pid = klieg.util.state.list_actors()[0].pid
    del actor
    import gates

    assert gates.soon(lambda: not os.path.exists(f"/proc/{pid}"))
    assert len(spans(klieg.timeline(), "running", "Async.returns")) == 1


def test_without_recording_there_is_a_warning_and_nothing_else(engine, caplog):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1)
    klieg.get(Async.remote().returns.remote())
    with caplog.at_level(logging.WARNING, logger="klieg"):
        events = klieg.timeline()
    assert [e for e in events if e["ph"] != "M"] == []
    assert "profiling=True" in caplog.text


def test_the_environment_turns_recording_on(engine, monkeypatch):
    klieg.shutdown()
    monkeypatch.setenv("RAY_PROFILING", "1")
    klieg.init(engine=engine, num_cpus=1)
    klieg.get(Async.remote().returns.remote())
    assert len(spans(klieg.timeline(), "running", "Async.returns")) == 1


def test_recorded_coroutines_are_cancelled_and_fail_as_others_do(gate):
    @klieg.remote
    class Actor:
        async def sleeps(self):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                raise

        async def fails(self):
            await asyncio.sleep(0)
            raise ValueError("mine")

    actor = Actor.remote()
    ref = actor.sleeps.remote()
    klieg.get(actor.__ray_ready__.remote())
    klieg.cancel(ref)
    with pytest.raises(klieg.exceptions.TaskCancelledError):
        klieg.get(ref)
    with pytest.raises(ValueError, match="mine"):
        klieg.get(actor.fails.remote())
