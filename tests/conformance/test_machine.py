"""What the runtime says of the machine it runs on, and the environment variables that change what it does."""

from __future__ import annotations

import os

import pytest

import klieg
from klieg.exceptions import SystemError_


@pytest.fixture
def klieg_runtime(nothing_leaks):
    """These tests start their runtimes themselves."""
    yield
    klieg.shutdown()


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_there_is_one_node_and_it_has_the_runtimes_resources(engine):
    klieg.init(engine=engine, num_cpus=3, resources={"gold": 2})
    (node,) = klieg.nodes()
    assert node["Alive"]
    assert node["NodeID"] == klieg.get_runtime_context().get_node_id()
    assert node["Resources"] == klieg.cluster_resources()
    assert node["Resources"]["gold"] == 2


def test_without_a_runtime_there_are_no_nodes(engine):
    with pytest.raises(SystemError_, match="init"):
        klieg.nodes()
    assert not klieg.is_initialized()


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_labels_are_known_to_the_driver_to_workers_and_to_nodes(engine):
    klieg.init(engine=engine, num_cpus=1, labels={"zone": "a"})

    @klieg.remote
    def labels():
        return klieg.get_runtime_context().get_node_labels()

    assert klieg.get(labels.remote())["zone"] == "a"
    assert klieg.get_runtime_context().get_node_labels() == klieg.nodes()[0]["Labels"] == klieg.get(labels.remote())


def test_labels_are_strings(engine):
    with pytest.raises(TypeError, match="zone"):
        klieg.init(engine=engine, labels={"zone": 1})


@pytest.mark.parametrize("prefix", ["RAY", "KLIEG"])
def test_the_namespace_can_come_from_the_environment(engine, monkeypatch, prefix):
    monkeypatch.setenv(f"{prefix}_NAMESPACE", "theirs")
    klieg.init(engine=engine, num_cpus=1)
    assert klieg.get_runtime_context().namespace == "theirs"


def test_an_argument_of_init_wins_over_the_environment_and_kliegs_spelling_over_rays(engine, monkeypatch):
    monkeypatch.setenv("RAY_NAMESPACE", "theirs")
    monkeypatch.setenv("KLIEG_NAMESPACE", "ours")
    klieg.init(engine=engine, num_cpus=1)
    assert klieg.get_runtime_context().namespace == "ours"
    klieg.shutdown()
    klieg.init(engine=engine, num_cpus=1, namespace="mine")
    assert klieg.get_runtime_context().namespace == "mine"


@pytest.mark.needs_process("a task that ends its process")
def test_how_often_a_task_is_retried_can_come_from_the_environment(engine, monkeypatch, journal):
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "1")
    klieg.init(engine=engine, num_cpus=1)

    @klieg.remote
    def dies():
        journal.note("started")
        os._exit(1)

    with pytest.raises(klieg.exceptions.WorkerCrashedError):
        klieg.get(dies.remote())
    assert journal.unread() == ["started"] * 2


def test_a_number_of_retries_that_is_none_is_refused_with_the_variables_name(engine, monkeypatch):
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "many")
    klieg.init(engine=engine, num_cpus=1)
    with pytest.raises(ValueError, match="RAY_TASK_MAX_RETRIES"):
        klieg.remote(lambda: 1).remote()


@pytest.mark.not_on_ray("the cluster is there before the driver, and its resources are its own")
def test_all_cpus_of_the_machine_count_on_request(engine, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 77)
    monkeypatch.setenv("RAY_USE_MULTIPROCESSING_CPU_COUNT", "1")
    klieg.init(engine=engine)
    assert klieg.cluster_resources()["CPU"] == 77


@pytest.mark.not_on_ray("Ray brings the output to the driver, with its own prefix")
@pytest.mark.parametrize(
    ("variable", "argument", "printed"), [("0", None, ""), ("0", True, "heard\n"), ("1", False, "")]
)
@pytest.mark.needs_process("the output of a process")
def test_output_can_be_silenced_by_the_environment(engine, monkeypatch, capfd, variable, argument, printed):
    monkeypatch.setenv("RAY_LOG_TO_DRIVER", variable)
    klieg.init(engine=engine, num_cpus=1, log_to_driver=argument)
    klieg.get(klieg.remote(lambda: print("heard")).remote())
    klieg.shutdown()
    assert capfd.readouterr().out == printed


def test_what_init_returns_tells_versions(engine):
    with klieg.init(engine=engine, num_cpus=1) as context:
        assert context.ray_version == klieg.__version__
        assert context.ray_commit == klieg.__commit__
        assert context["node_id"] == context.address_info["node_id"] == klieg.get_runtime_context().get_node_id()
