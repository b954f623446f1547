"""Placement groups on one machine: bundles that are reserved all together, and what runs in them."""

from __future__ import annotations

import logging

import gates
import pytest

import klieg
from klieg.exceptions import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
)
from klieg.util import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from klieg.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from klieg.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Within


@klieg.remote
def where():
    context = klieg.get_runtime_context()
    return context.get_placement_group_id(), context.should_capture_child_tasks_in_placement_group


@klieg.remote
class Plain:
    def where(self):
        group = get_current_placement_group()
        return group and group.id.hex()

    def child(self, **options):
        return klieg.get(where.options(num_cpus=0.5, **options).remote())

    def child_actor(self):
        return klieg.get(Plain.options(num_cpus=0.5).remote().where.remote())


def soon_free(cpus):
    """True once so many CPUs are free: a cluster's nodes tell it every tenth of a second."""
    return gates.soon(lambda: klieg.available_resources().get("CPU", 0) == cpus)


def test_bundles_are_reserved_and_given_back():
    group = placement_group([{"CPU": 1}, {"CPU": 2}])
    assert group.wait(10)
    assert klieg.get(group.ready()) == group
    assert soon_free(1)
    remove_placement_group(group)
    assert soon_free(4)


def test_a_group_knows_its_bundles():
    group = placement_group([{"CPU": 1}, {"CPU": 2}])
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 2}]
    assert group.bundle_count == 2
    assert not group.is_empty
    assert PlacementGroup.empty().is_empty


def test_a_group_waits_until_there_is_room_for_all_of_it():
    first = placement_group([{"CPU": 3}])
    second = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert not second.wait(0.1)
    assert soon_free(1)
    remove_placement_group(first)
    assert second.wait(10)


def test_a_group_can_be_awaited():
    import asyncio

    async def main():
        return await placement_group([{"CPU": 1}]).ready()

    assert asyncio.run(main()).bundle_specs == [{"CPU": 1}]


def test_tasks_and_actors_run_in_the_group_they_ask_for():
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}])
    assert klieg.get(where.options(scheduling_strategy=Within(group)).remote()) == (group.id.hex(), False)
    actor = Plain.options(num_cpus=0.5, scheduling_strategy=Within(group, 1)).remote()
    assert klieg.get(actor.where.remote()) == group.id.hex()
    assert klieg.get(where.remote()) == (None, False)
    assert get_current_placement_group() is None


def test_the_deprecated_options_name_a_group_too():
    group = placement_group([{"CPU": 1}])
    options = {"placement_group": group, "placement_group_bundle_index": 0}
    assert klieg.get(where.options(**options, placement_group_capture_child_tasks=True).remote()) == (
        group.id.hex(),
        True,
    )


def test_a_bundle_holds_no_more_than_it_has(gate, journal):
    @klieg.remote
    def wait(gate, journal):
        journal.note("in")
        gate.wait()

    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    inside = [wait.options(scheduling_strategy=Within(group)).remote(gate, journal) for _ in range(3)]
    assert journal.take(2) == ["in", "in"]
    assert klieg.wait(inside, timeout=0.1) == ([], inside)
    assert journal.unread() == []
    assert klieg.get(where.remote()) == (None, False)  # outside there is room
    gate.open()
    klieg.get(inside)


def test_what_runs_in_a_group_that_captures_takes_its_children_along():
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    actor = Plain.options(num_cpus=1, scheduling_strategy=Within(group, 0, True)).remote()
    assert klieg.get(actor.child.remote()) == (group.id.hex(), True)
    assert klieg.get(actor.child_actor.remote()) == group.id.hex()
    assert klieg.get(actor.child.remote(scheduling_strategy="DEFAULT")) == (None, False)


def test_what_runs_in_a_group_that_captures_nothing_leaves_its_children_outside():
    group = placement_group([{"CPU": 1}])
    actor = Plain.options(num_cpus=0.5, scheduling_strategy=Within(group)).remote()
    assert klieg.get(actor.child.remote()) == (None, False)


def test_a_demand_that_no_bundle_holds_is_refused_at_once():
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}])
    with pytest.raises(ValueError, match="bundles"):
        where.options(num_cpus=2, scheduling_strategy=Within(group))
    with pytest.raises(ValueError, match="bundles"):
        where.options(num_cpus=1, scheduling_strategy=Within(group, 1))


@pytest.mark.parametrize("index", [2, -2])
def test_a_bundle_that_does_not_exist_is_refused(index):
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    with pytest.raises(ValueError, match=f"index {index}"):
        Plain.options(num_cpus=1, scheduling_strategy=Within(group, index)).remote()


def test_what_runs_in_a_removed_group_ends(gate, journal):
    @klieg.remote
    def wait(gate, journal):
        journal.note("in")
        gate.wait()

    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    actor = Plain.options(num_cpus=1, scheduling_strategy=Within(group)).remote()
    running = wait.options(scheduling_strategy=Within(group)).remote(gate, journal)
    assert klieg.get(actor.where.remote()) == group.id.hex()
    assert journal.next() == "in"
    remove_placement_group(group)
    with pytest.raises(TaskPlacementGroupRemoved):
        klieg.get(running)
    with pytest.raises(ActorDiedError, match="placement group was removed"):
        klieg.get(actor.where.remote())


def test_what_waits_in_a_removed_group_fails_and_nothing_new_gets_in(gate, journal):
    group = placement_group([{"CPU": 4}])
    later = placement_group([{"CPU": 1}])
    waiting = where.options(scheduling_strategy=Within(later)).remote()
    remove_placement_group(later)
    remove_placement_group(later)
    with pytest.raises(TaskPlacementGroupRemoved):
        klieg.get(waiting)
    with pytest.raises(TaskPlacementGroupRemoved):
        klieg.get(where.options(scheduling_strategy=Within(later)).remote())
    with pytest.raises(ActorPlacementGroupRemoved):
        Plain.options(num_cpus=1, scheduling_strategy=Within(later)).remote()
    with pytest.raises(TaskPlacementGroupRemoved):
        klieg.get(later.ready())
    assert group.wait(10)


@pytest.mark.not_on_ray("an autoscaler may still bring the resource: Ray waits for it, and says so in its log")
@pytest.mark.parametrize(
    ("bundles", "strategy", "reason"),
    [
        ([{"CPU": 1}, {"CPU": 1}], "STRICT_SPREAD", "machine"),
        ([{"CPU": 3}, {"CPU": 3}], "PACK", "CPU: 6"),
        ([{"silver": 1}], "PACK", "silver"),
    ],
)
def test_a_group_that_can_never_be_placed_says_so(caplog, bundles, strategy, reason):
    with caplog.at_level(logging.WARNING, logger="klieg"):
        group = placement_group(bundles, strategy=strategy)
    assert "can never be placed" in caplog.text
    assert not group.wait(1000)
    with pytest.raises(TaskUnschedulableError, match=reason):
        klieg.get(group.ready())
    with pytest.raises(TaskUnschedulableError, match=reason):
        klieg.get(where.options(num_cpus=0, scheduling_strategy=Within(group)).remote())
    assert placement_group_table(group)["stats"]["scheduling_state"] == "INFEASIBLE"


def test_one_bundle_may_be_spread_strictly():
    assert placement_group([{"CPU": 1}], strategy="STRICT_SPREAD").wait(10)


def test_the_table_tells_of_every_group():
    one, two = placement_group([{"CPU": 1}], name="one"), placement_group([{"CPU": 4}], strategy="SPREAD")
    row = placement_group_table(one)
    assert (row["name"], row["bundles"], row["strategy"], row["state"]) == ("one", {0: {"CPU": 1}}, "PACK", "CREATED")
    assert placement_group_table()[two.id.hex()]["state"] == "PENDING"
    remove_placement_group(one)
    assert placement_group_table(one)["state"] == "REMOVED"
    assert two.wait(10)
    assert placement_group_table(two)["bundles_to_node_id"] == {0: klieg.get_runtime_context().get_node_id()}
    assert placement_group_table(PlacementGroup.empty()) == {}


def test_a_group_is_found_by_its_name():
    group = placement_group([{"CPU": 1}], name="mine")
    assert get_placement_group("mine") == group
    assert get_placement_group("mine").bundle_specs == [{"CPU": 1}]
    with pytest.raises(klieg.exceptions.RaySystemError, match="mine"):
        placement_group([{"CPU": 1}], name="mine")
    remove_placement_group(group)
    for name in ("mine", ""):
        with pytest.raises(ValueError, match=name or "non-empty"):
            get_placement_group(name)


def test_a_group_may_be_passed_on_and_used_there():
    @klieg.remote(num_cpus=0)
    def use(group):
        return klieg.get(where.options(scheduling_strategy=Within(group)).remote())

    group = placement_group([{"CPU": 1}])
    assert klieg.get(use.remote(group)) == (group.id.hex(), False)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([],), ValueError),
        (([{}],), ValueError),
        (([{"CPU": 0}],), ValueError),
        (([{"CPU": -1}],), ValueError),
        (([{"CPU": "a"}],), ValueError),
        ((5,), ValueError),
        (([5],), ValueError),
        (([{"CPU": 1}], "SIDEWAYS"), ValueError),
        (([{"CPU": 1}], "PACK", 5), TypeError),
        (([{"CPU": 1}], "PACK", "", "for ever"), ValueError),
    ],
)
def test_what_makes_no_group_is_refused(arguments, error):
    with pytest.raises(error):
        placement_group(*arguments)
    with pytest.raises(TypeError, match="int"):
        remove_placement_group(5)


@pytest.mark.not_on_ray("a placement group of Ray's outlives the actor that made it")
@pytest.mark.needs_process("an owner that dies by itself")
@pytest.mark.parametrize(("lifetime", "state"), [(None, "REMOVED"), ("detached", "CREATED")])
def test_a_group_ends_with_the_actor_that_made_it_unless_it_is_detached(lifetime, state):
    @klieg.remote
    class Maker:
        def make(self):
            group = placement_group([{"CPU": 1}], lifetime=lifetime)
            assert group.wait(10)
            return group

    maker = Maker.remote()
    group = klieg.get(maker.make.remote())
    klieg.kill(maker)
    with pytest.raises(ActorDiedError):
        klieg.get(maker.make.remote())
    assert gates.soon(lambda: placement_group_table(group)["state"] == state)  # once the head has seen the death


def test_affinities_to_nodes_are_accepted():
    strategy = NodeAffinitySchedulingStrategy(klieg.get_runtime_context().get_node_id(), soft=False)
    assert klieg.get(where.options(scheduling_strategy=strategy).remote()) == (None, False)
