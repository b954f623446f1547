"""`klieg.util.state`: what there is in the runtime, from klieg's own tables."""

from __future__ import annotations

import os

import gates
import pytest

import klieg
from klieg.util import placement_group, state

pytestmark = pytest.mark.not_on_ray("Ray lists its tasks and actors itself")

needs_process = pytest.mark.needs_process("processes of its own")


@klieg.remote
class Counter:
    def ping(self):
        return 1

    def wait(self, gate, journal):
        journal.note("in")
        gate.wait()

    def say(self, *lines):
        for line in lines:
            print(line)


@klieg.remote
def wait(gate, journal):
    journal.note("in")
    gate.wait()


def test_an_actor_is_listed_with_its_name_and_what_it_holds():
    counter = Counter.options(name="the counter", num_cpus=0.5).remote()
    klieg.get(counter.ping.remote())
    (row,) = state.list_actors()
    assert (row.actor_id, row.class_name, row.name) == (counter._actor_id.hex(), "Counter", "the counter")
    assert (row.state, row["required_resources"], row.num_restarts) == ("ALIVE", {"CPU": 0.5}, 0)
    assert row.ray_namespace == klieg.get_runtime_context().namespace
    assert state.get_actor(row.actor_id) == row
    assert state.get_actor("no such id") is None


def test_a_dead_actor_is_listed_with_its_cause_of_death():
    counter = Counter.remote()
    klieg.get(counter.ping.remote())
    klieg.kill(counter)
    (row,) = state.list_actors(filters=[("state", "=", "DEAD")])
    assert "klieg.kill" in row.death_cause


def test_an_actor_that_waits_for_resources_is_pending():
    first, second = (Counter.options(num_cpus=4).remote() for _ in range(2))
    klieg.get(first.ping.remote())
    states = {row.actor_id: row.state for row in state.list_actors()}
    assert states == {first._actor_id.hex(): "ALIVE", second._actor_id.hex(): "PENDING_CREATION"}


@needs_process
def test_an_actor_that_was_started_again_says_how_often():
    counter = Counter.options(max_restarts=1, max_task_retries=1).remote()
    klieg.get(counter.ping.remote())
    before = state.list_actors()[0].pid
    klieg.kill(counter, no_restart=False)
    klieg.get(counter.ping.remote())
    (row,) = state.list_actors()
    assert (row.state, row.num_restarts) == ("ALIVE", 1)
    assert row.pid != before


def test_calls_under_way_are_listed_with_where_they_are(gate, journal):
    counter = Counter.remote()
    running = [wait.options(num_cpus=4).remote(gate, journal), counter.wait.remote(gate, journal)]
    assert journal.take(2) == ["in", "in"]
    late = counter.wait.remote(running[0], journal)
    queued = wait.options(num_cpus=4, name="later").remote(gate, journal)
    rows = {row.task_id: row for row in state.list_tasks()}
    one, other, held, last = (rows[ref.task_id().hex()] for ref in (*running, late, queued))
    assert (one.name, one.type, one.state) == ("wait", "NORMAL_TASK", "RUNNING")
    assert (other.name, other.type, other.state) == ("Counter.wait", "ACTOR_TASK", "RUNNING")
    assert other.actor_id == counter._actor_id.hex()
    assert other.running_for >= 0
    assert one.required_resources == {"CPU": 4}
    assert held.state == "PENDING_ARGS_AVAIL"
    assert (last.name, last.func_or_class_name, last.state) == ("later", "wait", "PENDING_NODE_ASSIGNMENT")
    assert state.get_task(queued) == state.get_task(queued.task_id().hex()) == last
    klieg.cancel(late)
    gate.open()
    klieg.get([*running, queued])
    assert gates.soon(lambda: state.list_tasks() == [])


def test_a_call_names_the_call_that_made_it(gate, journal):
    @klieg.remote(num_cpus=0)
    def outer(gate, journal):
        klieg.get(wait.remote(gate, journal))

    ref = outer.remote(gate, journal)
    assert journal.next() == "in"
    (row,) = state.list_tasks(filters=[("name", "=", "wait")])
    assert row.parent_task_id == ref.task_id().hex()
    gate.open()
    klieg.get(ref)


def test_calls_are_counted_however_many_they_are(gate, journal):
    counter = Counter.remote()
    refs = [counter.wait.remote(gate, journal), *(counter.ping.remote() for _ in range(150))]
    assert journal.next() == "in"
    summary = state.summarize_tasks()["cluster"]
    assert summary["summary"]["Counter.wait"]["state_counts"] == {"RUNNING": 1}
    assert sum(summary["summary"]["Counter.ping"]["state_counts"].values()) == 150
    assert (summary["total_tasks"], summary["total_actor_tasks"]) == (0, 151)
    assert len(state.list_tasks()) == 100
    assert len(state.list_tasks(limit=1000)) == 151
    gate.open()
    klieg.get(refs)


@klieg.remote
class Keeper:
    def keep(self, refs):
        self.refs = refs
        klieg.get(refs)

    def put(self):
        self.own = klieg.put(bytes(200_000))


def test_objects_are_listed_with_their_size_owner_and_state(gate, journal):
    large, small = klieg.put(bytes(100_000)), klieg.put("small")
    pending = wait.remote(gate, journal)
    rows = {row.object_id: row for row in state.list_objects()}
    assert set(rows) == {ref.hex() for ref in (large, small, pending)}
    assert next(iter(rows)) == large.hex()  # the largest first
    assert (rows[large.hex()].kind, rows[large.hex()].task_status) == ("put", "FINISHED")
    assert 100_000 <= rows[large.hex()].object_size < 101_000
    assert (rows[pending.hex()].task_status, rows[pending.hex()].made_by) == ("PENDING", "wait")
    assert {row.pid for row in rows.values()} == {os.getpid()}
    assert rows[small.hex()].owner_id == rows[small.hex()].worker_id


@needs_process
def test_an_object_that_several_processes_know_is_listed_for_each_with_its_holders():
    keeper, ref = Keeper.remote(), klieg.put(bytes(100_000))
    klieg.get([keeper.keep.remote([ref]), keeper.put.remote()])
    mine, borrowed = sorted(state.get_objects(ref.hex()), key=lambda row: row.kind == "borrowed")
    assert (mine.reference_type, borrowed.reference_type) == ("OWNED", "BORROWED")
    assert mine.holders == [borrowed.worker_id]
    assert borrowed.owner_id == mine.worker_id == mine.owner_id
    assert mine.shared == 100_000
    (own,) = [row for row in state.list_objects() if row.object_size >= 200_000]
    assert (own.kind, own.worker_id) == ("put", borrowed.worker_id)


@needs_process
def test_where_a_value_lies_and_where_it_was_put_can_be_seen():
    klieg.shutdown()
    klieg.init(num_cpus=2, object_store_memory=1_000_000, record_call_sites=True)
    refs = [klieg.put(bytes(400_000)) for _ in range(4)]
    (first,) = state.get_objects(refs[0].hex())
    assert (first.shared, first.spilled) == (0, 400_000)
    assert "test_state.py" in first.call_site
    summary = state.summarize_objects()["cluster"]
    assert (summary["summary"][first.call_site]["total_objects"], summary["callsite_enabled"]) == (4, True)


def test_objects_are_counted_by_kind():
    refs = [klieg.put(number) for number in range(3)]
    summary = state.summarize_objects()["cluster"]
    assert summary["summary"]["put"]["task_state_counts"] == {"FINISHED": len(refs)}
    assert (summary["total_objects"], summary["callsite_enabled"]) == (3, False)


def test_actors_are_counted_by_class_and_state():
    counters = [Counter.remote() for _ in range(3)]
    klieg.get([counter.ping.remote() for counter in counters])
    klieg.kill(counters[0])
    summary = state.summarize_actors()["cluster"]
    assert summary["summary"] == {"Counter": {"class_name": "Counter", "state_counts": {"ALIVE": 2, "DEAD": 1}}}
    assert summary["total_actors"] == 3


def test_the_driver_is_listed_first_and_is_this_process():
    driver = state.list_workers()[0]
    assert (driver.worker_type, driver.pid, driver.is_alive) == ("DRIVER", os.getpid(), True)
    assert driver.worker_id == klieg.get_runtime_context().get_worker_id()
    assert state.get_worker(driver.worker_id).pid == os.getpid()


@needs_process
def test_workers_are_listed_with_what_they_do(gate, journal):
    counter = Counter.options(num_cpus=0.5).remote()
    busy = wait.remote(gate, journal)
    klieg.get(counter.ping.remote())
    assert journal.next() == "in"
    rows = {row.title: row for row in state.list_workers()[1:]}
    assert (rows["Counter"].state, rows["Counter"].actor_id) == ("ACTOR", counter._actor_id.hex())
    assert (rows["task"].state, rows["task"].resources) == ("LEASED", {"CPU": 1})
    assert rows["task"].memory > 1 << 20
    gate.open()
    klieg.get(busy)


def test_there_is_one_node_and_one_job():
    (node,), (job,) = state.list_nodes(), state.list_jobs()
    assert node.node_id == klieg.get_runtime_context().get_node_id()
    assert node.resources_total == klieg.cluster_resources()
    assert (job.job_id, job.driver_pid) == (klieg.get_runtime_context().get_job_id(), os.getpid())
    assert state.get_node(node.node_id) == node
    assert state.get_job(job.job_id) == job


def test_placement_groups_are_listed():
    group = placement_group([{"CPU": 1}], name="mine")
    assert group.wait(10)
    (row,) = state.list_placement_groups()
    assert (row.placement_group_id, row.name, row.state) == (group.id.hex(), "mine", "CREATED")
    assert state.get_placement_group(group.id.hex()) == row


@needs_process
def test_runtime_environments_are_listed():
    environment = {"env_vars": {"MINE": "1"}}
    counter = Counter.options(runtime_env=environment).remote()
    klieg.get(counter.ping.remote())
    (row,) = state.list_runtime_envs()
    assert row.workers == 1
    assert klieg.runtime_env.RuntimeEnv.load(row.runtime_env) == environment


@needs_process
def test_the_last_lines_of_a_worker_can_be_read(capfd):
    counter = Counter.remote()
    klieg.get(counter.say.remote("one", "two"))
    (actor,) = state.list_actors()
    (name,) = state.list_logs(glob_filter="Counter-*")["worker_out"]
    assert name == f"Counter-{actor.pid}"
    assert list(state.get_log(actor_id=actor.actor_id)) == ["one\n", "two\n"]
    assert list(state.get_log(filename=name, tail=1)) == ["two\n"]
    assert list(state.get_log(pid=actor.pid, tail=0)) == []
    with pytest.raises(ValueError, match="list_logs"):
        state.get_log(pid=1)
    with pytest.raises(ValueError, match="follow"):
        state.get_log(pid=actor.pid, follow=True)


def test_rows_are_filtered_and_limited():
    counters = [Counter.options(name=f"n{number}").remote() for number in range(5)]
    klieg.get([counter.ping.remote() for counter in counters])
    assert [row.name for row in state.list_actors(filters=[("name", "=", "N3")])] == ["n3"]
    assert len(state.list_actors(filters=[("name", "!=", "n3"), ("state", "=", "alive")])) == 4
    assert len(state.list_actors(limit=2)) == 2


@pytest.mark.parametrize("bad", [[("no_such_key", "=", 1)], [("state", "<", "ALIVE")]])
def test_a_filter_that_makes_no_sense_is_refused(bad):
    counter = Counter.remote()
    klieg.get(counter.ping.remote())
    with pytest.raises(ValueError, match="filter"):
        state.list_actors(filters=bad)


def test_a_row_is_a_mapping_with_attributes():
    (row,) = state.list_nodes()
    assert dict(row) == row.asdict()
    assert "node_id" in row
    assert "node_id" in dir(row)
    assert "NodeState(" in repr(row)
    with pytest.raises(AttributeError, match="node_id"):
        _ = row.nonsense


@needs_process
def test_a_process_that_does_not_answer_is_named_or_left_out(gate):
    import signal

    counter = Counter.remote()
    klieg.get(counter.ping.remote())
    (actor,) = state.list_actors()
    os.kill(actor.pid, signal.SIGSTOP)
    try:
        with pytest.raises(klieg.exceptions.GetTimeoutError, match=f"Counter.*{actor.pid}"):
            state.list_tasks(timeout=0.2)
        assert state.list_tasks(timeout=0.2, raise_on_missing_output=False) == []
        assert [row.pid for row in state.list_actors()] == [actor.pid]
    finally:
        os.kill(actor.pid, signal.SIGCONT)


def test_tasks_and_actors_can_ask_too(gate, journal):
    @klieg.remote(num_cpus=0)
    def ask():
        return [row.name for row in state.list_tasks()], len(state.list_actors())

    counter = Counter.remote()
    waiting = counter.wait.remote(gate, journal)
    assert journal.next() == "in"
    names, actors = klieg.get(ask.remote())
    assert sorted(names) == ["Counter.wait", ask._function.__qualname__]
    assert actors == 1
    gate.open()
    klieg.get(waiting)
