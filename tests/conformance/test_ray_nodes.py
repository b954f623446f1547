"""What only a cluster can suffer: the death of a node, and where things run."""

import programs
import pytest

import klieg
from klieg.exceptions import ActorDiedError, ActorUnavailableError

CPUS = 1


@pytest.fixture
def node(engine, ray_cluster):
    """A third node, which has a resource of its own; it is gone when the test ends."""
    if engine != "ray":
        pytest.skip("there is one node only")
    node = ray_cluster.cluster.add_node(num_cpus=CPUS, resources={"third": 10}, node_ip_address="127.0.0.1")
    ray_cluster.cluster.wait_for_nodes()
    yield node
    if node in ray_cluster.cluster.worker_nodes:
        ray_cluster.cluster.remove_node(node)


@klieg.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

    def node(self):
        import ray

        return ray.get_runtime_context().get_node_id()

    def wait_at(self, gate):
        gate.wait()


def test_an_actor_runs_where_its_resource_is(node):
    there, anywhere = Counter.options(resources={"third": 1}).remote(), Counter.remote()
    assert klieg.get(there.node.remote()) == node.node_id
    assert klieg.get(anywhere.add.remote()) == 1


def test_an_actor_dies_with_its_node_and_others_do_not_notice(node, ray_cluster, gate):
    dying, living = Counter.options(resources={"third": 1}).remote(), Counter.remote()
    klieg.get([dying.add.remote(), living.add.remote()])
    waiting = dying.wait_at.remote(gate)
    ray_cluster.cluster.remove_node(node, allow_graceful=False)
    with pytest.raises((ActorDiedError, ActorUnavailableError)):
        klieg.get(waiting, timeout=60)
    with pytest.raises(ActorDiedError):
        klieg.get(dying.add.remote(), timeout=60)
    assert klieg.get(living.add.remote()) == 2


def test_an_actor_with_restarts_left_comes_back_on_another_node(node, ray_cluster):
    counter = Counter.options(resources={"third": 1}, max_restarts=1, max_task_retries=-1).remote()
    klieg.get([counter.add.remote() for _ in range(3)])
    ray_cluster.cluster.remove_node(node, allow_graceful=False)
    other = ray_cluster.cluster.add_node(num_cpus=CPUS, resources={"third": 10}, node_ip_address="127.0.0.1")
    try:
        assert klieg.get(counter.add.remote(), timeout=60) == 1
        assert klieg.get(counter.node.remote()) == other.node_id
    finally:
        ray_cluster.cluster.remove_node(other)


def test_a_program_joins_a_cluster_by_its_address_and_brings_klieg_along(engine, ray_cluster):
    if engine != "ray":
        pytest.skip("there is no cluster to join")
    program = f"""
    import os
    import klieg

    @klieg.remote
    def where():
        import cloudpickle
        return [os.path.dirname(module.__file__) for module in (klieg, cloudpickle)]

    with klieg.init({ray_cluster.address!r}, engine="ray", log_to_driver=False):
        here = [os.path.dirname(module.__file__) for module in (klieg, klieg.cloudpickle)]
        there = klieg.get(where.remote())
    print(all("py_modules" in path for path in there), set(here) & set(there), klieg.is_initialized())
    """
    output, errors, code = programs.run(program, patience=60)
    assert (output, code) == ("True set() False\n", 0), errors
