"""A: a worker dies, at 14 stages and in 9 ways. The affected calls fail clearly, nothing else does."""

import contextlib
import os
import signal

import gates
import processes
import pytest
import victims
from sizes import cross, some

import klieg
from klieg import engine
from klieg.exceptions import ActorDiedError, ActorUnavailableError, WorkerCrashedError

WAYS = list(victims.SAYS)
SIGNALS = {
    "kill": signal.SIGKILL,
    "segv": signal.SIGSEGV,
    "abort": signal.SIGABRT,
    "bus": signal.SIGBUS,
    "term": signal.SIGTERM,
}


def assert_dead(ref, way):
    """The ref fails, and the error says how the process ended."""
    with pytest.raises(ActorDiedError, match=victims.SAYS[way]):
        klieg.get(ref, timeout=20)


def ping_unless_restarting(actor):
    with contextlib.suppress(ActorUnavailableError):
        klieg.get(actor.ping.remote(), timeout=20)


def assert_neighbour_is_well():
    """Another actor, and tasks, are untouched by what happened."""
    assert klieg.get(klieg.remote(victims.echo).remote(5), timeout=20) == 5


BEFORE_READY = {
    "A1": "worker.before_hello",
    "A2": "worker.class_loading",
    "A4": "worker.after_init",
}


@pytest.mark.parametrize(("stage", "way"), cross([*BEFORE_READY], WAYS))
def test_death_before_ready_is_an_actor_died_error(failing, stage, way):
    failing.init(f"{BEFORE_READY[stage]}={way}")
    actor = victims.actor_class("plain").remote()
    assert_dead(actor.ping.remote(), way)
    assert_dead(actor.ping.remote(), way)
    assert failing.hits(BEFORE_READY[stage]) == 1


@pytest.mark.parametrize(("kind", "way"), cross(victims.KINDS, WAYS))
def test_death_in_the_constructor_is_an_actor_died_error(runtime, kind, way):
    neighbour = victims.actor_class("plain").remote()
    actor = victims.actor_class(kind).remote(way)
    assert_dead(actor.ping.remote(), way)
    assert klieg.get(neighbour.add.remote(), timeout=20) == 1


@pytest.mark.parametrize(("kind", "way"), cross(victims.KINDS, [way for way in WAYS if way != "sysexit"]))
def test_death_while_idle_fails_the_next_call(runtime, kind, way, gate):
    actor = victims.actor_class(kind).remote()
    pid = klieg.get(actor.die_at.remote(gate, way), timeout=20)
    gate.open()
    assert gates.soon(lambda: not os.path.exists(f"/proc/{pid}"))
    assert_dead(actor.ping.remote(), way)


WITH_A_CALL = {
    "A6": "worker.call_received",
    "A8": "worker.call_done",
    "A8b": "worker.result_pickled",
    "A9": "worker.in_result_frame",
}


@pytest.mark.parametrize(("stage", "way"), cross([*WITH_A_CALL], WAYS))
def test_death_with_a_call_in_hand_fails_the_call_and_those_behind_it(failing, stage, way):
    failing.init(f"{WITH_A_CALL[stage]}={way}")
    actor = victims.actor_class("plain").remote()
    for ref in [actor.echo.remote(i) for i in range(3)]:
        assert_dead(ref, way)
    assert failing.hits(WITH_A_CALL[stage]) == 1


@pytest.mark.parametrize(("stage", "way"), cross([*WITH_A_CALL], ["kill", "exit0", "segv"]))
@pytest.mark.parametrize("kind", ["async", "threaded"])
def test_death_with_a_call_in_hand_is_the_same_in_other_actors(failing, kind, stage, way):
    failing.init(f"{WITH_A_CALL[stage]}={way}")
    actor = victims.actor_class(kind).remote()
    for ref in [actor.echo.remote(i) for i in range(3)]:
        assert_dead(ref, way)


@pytest.mark.parametrize(("kind", "way"), cross(victims.KINDS, WAYS))
def test_death_in_a_method_fails_the_call(runtime, kind, way):
    actor = victims.actor_class(kind).remote()
    klieg.get(actor.ping.remote(), timeout=20)
    assert_dead(actor.die.remote(way), way)
    assert_dead(actor.ping.remote(), way)


@pytest.mark.parametrize("way", some(WAYS, start=0))
def test_a_result_that_was_sent_stands(failing, way):
    failing.init(f"worker.result_sent={way}")
    actor = victims.actor_class("plain").remote()
    first = actor.echo.remote("sent")
    assert klieg.get(first, timeout=20) == "sent"
    assert_dead(actor.ping.remote(), way)
    assert klieg.get(first) == "sent"
    assert failing.hits("worker.result_sent") == 1


@pytest.mark.parametrize("way", some(WAYS, start=1))
def test_a_segment_that_was_not_sealed_is_reclaimed(failing, way):
    failing.init(f"store.unsealed={way}")
    actor = victims.actor_class("plain").remote()
    assert_dead(actor.put_large.remote(), way)
    assert failing.hits("store.unsealed") == 1


@pytest.mark.parametrize(("kind", "way"), cross(victims.KINDS, WAYS))
def test_a_borrowers_death_gives_back_what_it_held(runtime, kind, way):
    actor = victims.actor_class(kind).remote()
    ref = klieg.put("kept")
    klieg.get(actor.keep.remote([ref]), timeout=20)
    assert len(engine.current().loans) == 1
    assert_dead(actor.die.remote(way), way)
    assert gates.soon(lambda: len(engine.current().loans) == 0)
    assert klieg.get(ref) == "kept"


@pytest.mark.parametrize("way", some(WAYS, start=2))
def test_death_in_a_graceful_exit_is_no_hang(failing, way):
    failing.init(f"worker.before_exit={way}")
    actor = victims.actor_class("plain").remote()
    pid = klieg.get(actor.ping.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        klieg.get(actor.__ray_terminate__.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        klieg.get(actor.ping.remote(), timeout=20)
    assert gates.soon(lambda: not os.path.exists(f"/proc/{pid}"))
    assert failing.hits("worker.before_exit") == 1


@pytest.mark.parametrize("way", some(WAYS, start=3))
def test_death_in_a_restart_counts_as_a_restart(failing, way):
    failing.init(f"worker.restarting={way}")
    actor = victims.actor_class("plain", max_restarts=2).remote()
    klieg.get(actor.ping.remote(), timeout=20)
    with pytest.raises(ActorUnavailableError):
        klieg.get(actor.die.remote("kill"), timeout=20)
    gates.soon_raises(ActorDiedError, lambda: ping_unless_restarting(actor))
    assert failing.hits("worker.restarting") == 2


def test_late_news_of_a_restart_make_no_second_start(runtime, kind):
    actor = victims.actor_class(kind, max_restarts=1).remote()
    assert klieg.get(actor.add.remote(), timeout=20) == 1
    actor._token.channel._explained({"restarting": "of a process before this one"}, [])
    assert klieg.get(actor.add.remote(), timeout=20) == 2
    klieg.get(actor.ping.remote(), timeout=20)
    assert klieg.get(actor.add.remote(), timeout=20) == 3


TASK_STAGES = {
    "A1": "worker.before_hello",
    "A6": "worker.call_received",
    "A8": "worker.call_done",
    "A8b": "worker.result_pickled",
    "A9": "worker.in_result_frame",
    "A11": "store.unsealed",
}


@pytest.mark.parametrize(("stage", "way"), cross([*TASK_STAGES], ["kill", "exit0", "abort"]))
def test_a_tasks_worker_that_dies_is_tried_as_often_as_it_may(failing, stage, way):
    failing.init(f"{TASK_STAGES[stage]}={way}")
    task = klieg.remote(victims.put_large).options(max_retries=1)
    with pytest.raises(WorkerCrashedError, match=victims.SAYS[way]):
        klieg.get(task.remote(), timeout=20)
    assert failing.hits(TASK_STAGES[stage]) == 2


@pytest.mark.parametrize("way", some([way for way in WAYS if way != "sysexit"]))
def test_a_task_that_dies_once_succeeds_at_the_next_try(runtime, tmp_path, way):
    task = klieg.remote(victims.die_once)
    assert klieg.get(task.remote(way, str(tmp_path / "note")), timeout=20) == "alive"


@pytest.mark.parametrize("stage", WITH_A_CALL)
def test_a_call_with_retries_survives_a_death_at_any_stage(failing, stage):
    failing.init(f"{WITH_A_CALL[stage]}=kill@5")
    actor = victims.actor_class("plain", max_restarts=-1, max_task_retries=-1).remote()
    assert [klieg.get(actor.echo.remote(i), timeout=20) for i in range(12)] == list(range(12))
    assert failing.hits(WITH_A_CALL[stage]) >= 1


def test_a_workers_own_children_end_with_it(runtime, kind):
    @klieg.remote
    class Parent:
        def start(self):
            import subprocess

            self.child = subprocess.Popen(["sleep", "60"])
            return os.getpid(), self.child.pid

    actor = Parent.remote()
    pid, child = klieg.get(actor.start.remote(), timeout=20)
    os.kill(pid, signal.SIGKILL)
    processes.wait_until_ended(child)


@pytest.mark.parametrize(("kind", "way"), cross(victims.KINDS, [*SIGNALS]))
def test_a_signal_from_outside_is_named(runtime, kind, way):
    actor = victims.actor_class(kind).remote()
    os.kill(klieg.get(actor.ping.remote(), timeout=20), SIGNALS[way])
    assert_dead(actor.ping.remote(), way)
    assert_neighbour_is_well()
