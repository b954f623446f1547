"""What calls and actors hold: CPUs, GPUs with names, memory, custom resources, fractions; and workers that wear out."""

from __future__ import annotations

import os
import time

import gates
import pytest

import klieg
from klieg.exceptions import ActorUnschedulableError, TaskUnschedulableError


@pytest.fixture
def klieg_runtime(engine, nothing_leaks, monkeypatch):
    """Four CPUs, two GPUs that nobody has to own, and some gold."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    klieg.init(engine=engine, num_cpus=4, num_gpus=2, resources={"gold": 2})
    yield
    klieg.shutdown()


@klieg.remote
def gpus():
    return klieg.get_gpu_ids()


@klieg.remote
def held():
    return klieg.get_runtime_context().get_assigned_resources()


@klieg.remote
class Plain:
    def gpus(self):
        return klieg.get_gpu_ids(), klieg.get_runtime_context().get_accelerator_ids()

    def variable(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_task_knows_its_gpus_and_the_others_have_none():
    assert klieg.get(gpus.options(num_gpus=2).remote()) == [0, 1]
    assert klieg.get(gpus.options(num_gpus=0.5).remote()) in ([0], [1])
    assert klieg.get(gpus.remote()) == klieg.get_gpu_ids() == []


def test_actors_have_gpus_of_their_own():
    actors = [Plain.options(num_gpus=1).remote() for _ in range(2)]
    assert sorted(klieg.get(actor.gpus.remote()) for actor in actors) == [([0], {"GPU": ["0"]}), ([1], {"GPU": ["1"]})]


def test_halves_share_one_gpu():
    actors = [Plain.options(num_gpus=0.5).remote() for _ in range(4)]
    found = [klieg.get(actor.gpus.remote())[0] for actor in actors]
    assert sorted(found) == [[0], [0], [1], [1]]


def test_a_gpu_is_free_again_when_its_actor_is_dead():
    for _ in range(3):
        actor = Plain.options(num_gpus=2).remote()
        assert klieg.get(actor.gpus.remote())[0] == [0, 1]
        klieg.kill(actor)


@pytest.mark.needs_process("an environment of its own")
def test_cuda_sees_the_gpus_of_the_call_alone():
    @klieg.remote(num_gpus=1)
    def variable():
        return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()

    (seen, first), (_, second) = klieg.get(variable.remote()), klieg.get(variable.remote())
    assert seen in ("0", "1")
    assert first != second  # a process keeps what it has of a GPU's memory, so it ends with the call
    assert klieg.get(Plain.options(num_gpus=2).remote().variable.remote()) == "0,1"
    assert klieg.get(Plain.remote().variable.remote()) is None


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_the_names_of_gpus_are_those_that_this_process_may_see(engine, monkeypatch):
    klieg.shutdown()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,3")
    klieg.init(engine=engine, num_cpus=1)
    assert klieg.cluster_resources()["GPU"] == 2
    assert sorted(klieg.get(gpus.options(num_gpus=2).remote())) == ["3", "GPU-aa"]
    klieg.shutdown()
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        klieg.init(engine=engine, num_gpus=3)


def test_each_kind_of_resource_is_counted(gate, journal):
    @klieg.remote(num_cpus=1.5, num_gpus=0.25, resources={"gold": 0.5}, memory=1000)
    def wait(gate, journal):
        journal.note("in")
        gate.wait()

    before = klieg.available_resources()
    ref = wait.remote(gate, journal)
    assert journal.next() == "in"
    after = klieg.available_resources()
    gate.open()
    klieg.get(ref)
    held = {key: before[key] - after[key] for key in before if before[key] != after[key]}
    assert held == {"CPU": 1.5, "GPU": 0.25, "gold": 0.5, "memory": 1000}
    assert gates.soon(lambda: klieg.available_resources() == before)


def test_an_actor_holds_its_resources_until_it_is_dead():
    actor = Plain.options(num_cpus=1, resources={"gold": 2}).remote()
    klieg.get(actor.gpus.remote())
    assert klieg.available_resources()["CPU"] == 3
    assert "gold" not in klieg.available_resources()
    klieg.kill(actor)
    assert gates.soon(lambda: klieg.available_resources().get("gold") == 2)


def test_an_actor_waits_for_its_resources(gate):
    first = Plain.options(resources={"gold": 2}).remote()
    klieg.get(first.gpus.remote())
    second = Plain.options(resources={"gold": 1}).remote()
    ref = second.gpus.remote()
    assert klieg.wait([ref], timeout=0.1) == ([], [ref])
    klieg.kill(first)
    assert klieg.get(ref)[0] == []


def test_at_most_as_many_tasks_run_as_there_are_resources_for(gate, journal):
    @klieg.remote(num_cpus=0, resources={"gold": 1})
    def wait(gate, journal):
        journal.note("in")
        gate.wait()

    refs = [wait.remote(gate, journal) for _ in range(5)]
    assert journal.take(2) == ["in", "in"]
    assert klieg.wait(refs, timeout=0.1) == ([], refs)
    assert journal.unread() == []
    gate.open()
    klieg.get(refs)


@pytest.mark.not_on_ray("an autoscaler may still bring the resource: Ray waits for it, and says so in its log")
@pytest.mark.parametrize(
    "options",
    [{"num_cpus": 5}, {"num_gpus": 3}, {"memory": 1 << 60}, {"resources": {"silver": 1}}, {"accelerator_type": "H9"}],
)
def test_a_demand_that_can_never_be_met_is_an_error_that_says_so(options):
    with pytest.raises(TaskUnschedulableError, match="asks for"):
        klieg.get(held.options(**options).remote())
    with pytest.raises(ActorUnschedulableError, match="asks for"):
        klieg.get(Plain.options(**options).remote().gpus.remote())


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_a_kind_of_accelerator_can_be_declared_and_asked_for(engine):
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1, resources={"accelerator_type:H9": 1})
    assert klieg.get(held.options(accelerator_type="H9").remote()) == {"CPU": 1, "accelerator_type:H9": 0.001}


@pytest.mark.parametrize(
    "options",
    [
        {"num_gpus": 1.5},
        {"num_cpus": 0.00001},
        {"memory": -1},
        {"num_cpus": float("inf")},
        {"resources": {"gold": 0.00001}},
    ],
)
def test_an_amount_that_cannot_be_counted_is_refused(options):
    for target in (lambda: 1, Plain._cls):
        with pytest.raises(ValueError, match=r"0\.0001"):
            klieg.remote(**options)(target)


def test_a_task_that_waits_lends_its_cpus_and_keeps_the_rest():
    @klieg.remote(num_cpus=4, resources={"gold": 2})
    def outer():
        inner = klieg.remote(num_cpus=4)(lambda: gates.soon(lambda: "gold" not in klieg.available_resources()))
        return klieg.get(inner.remote())

    assert klieg.get(outer.remote())


@pytest.mark.not_on_ray("Ray decides which of several callers is served first")
def test_callers_take_turns_though_one_has_more_to_do(gate, journal):
    """A driver with a long queue of tasks does not keep an actor's tasks from running."""

    @klieg.remote(num_cpus=4)
    def work(name, gate, journal):
        gate.wait()
        time.sleep(0.005)
        journal.note(name)

    @klieg.remote(num_cpus=0)
    class Other:
        def run(self, gate, journal):
            refs = [work.remote("other", gate, journal) for _ in range(2)]
            journal.note("asked")
            klieg.get(refs)

    refs = [work.remote("mine", gate, journal) for _ in range(200)]
    done = Other.remote().run.remote(gate, journal)
    assert journal.next() == "asked"
    gate.open()
    klieg.get([done, *refs])
    order = journal.take(202)
    assert order[100:] == ["mine"] * 102


@pytest.mark.needs_process("workers that end")
def test_no_worker_runs_more_calls_of_a_function_than_it_may():
    @klieg.remote(max_calls=2)
    def pid():
        return os.getpid()

    pids = klieg.get([pid.remote() for _ in range(20)])
    assert max(pids.count(one) for one in pids) == 2


@pytest.mark.needs_process("workers that end")
def test_a_worker_that_has_run_its_calls_leaves_by_itself(journal):
    @klieg.remote(max_calls=1)
    def leaves(journal):
        import atexit

        atexit.register(journal.note, "left")
        return 1

    assert klieg.get(leaves.remote(journal)) == 1
    assert journal.next() == "left"


@pytest.mark.needs_process("an environment of its own")
def test_numeric_libraries_take_as_many_threads_as_the_task_has_cpus(engine, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    @klieg.remote
    def threads():
        return os.environ["OMP_NUM_THREADS"]

    assert klieg.get(threads.remote()) == "1"
    assert klieg.get(threads.options(num_cpus=0.5).remote()) == "1"
    assert klieg.get(threads.options(num_cpus=3).remote()) == "3"


@pytest.mark.not_on_ray("Ray starts the processes")
@pytest.mark.needs_process("an environment of its own")
def test_a_number_of_threads_that_is_set_is_kept(engine, monkeypatch):
    klieg.shutdown()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    klieg.init(engine=engine, num_cpus=1)
    assert klieg.get(klieg.remote(lambda: os.environ["OMP_NUM_THREADS"]).remote()) == "7"
