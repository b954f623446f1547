"""Who may run where there is not enough for all: decided by values alone, so no test needs a process or a sleep."""

from __future__ import annotations

from klieg.engines.scheduler import HOLD, PASSES, Grant, PlacementGroup, Scheduler


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def scheduler(clock: Clock | None = None, gpus: int = 0, **total: float) -> Scheduler[str]:
    names = [str(number) for number in range(gpus)]
    return Scheduler({**total, **({"GPU": gpus} if gpus else {})}, names, clock or Clock())


def items(granted: list[tuple[str, Grant | None]]) -> list[str]:
    return [item for item, _ in granted]


def test_what_is_free_is_granted_and_what_is_not_is_waited_for():
    plan = scheduler(CPU=1)
    first = plan.request({"CPU": 1}, "a")
    assert first is not None
    assert plan.request({"CPU": 1}, "b") is None
    assert items(plan.release(first)) == ["b"]


def test_fractions_add_up_exactly():
    plan = scheduler(CPU=1)
    grants = [plan.request({"CPU": 0.1}, str(number)) for number in range(10)]
    assert all(grants)
    assert plan.free()["CPU"] == 0
    assert plan.request({"CPU": 0.0001}, "eleventh") is None


def test_a_demand_that_does_not_fit_lets_smaller_ones_pass():
    plan = scheduler(CPU=2)
    held = plan.request({"CPU": 1}, "held")
    assert held is not None
    assert plan.request({"CPU": 2}, "big") is None
    assert plan.request({"CPU": 1}, "small") is not None
    assert items(plan.release(held)) == []


def test_lines_of_different_callers_take_turns():
    plan = scheduler(CPU=1)
    grant = plan.request({"CPU": 1}, "first", caller="x")
    for number in range(3):
        plan.request({"CPU": 1}, f"x{number}", caller="x")
    for number in range(3):
        plan.request({"CPU": 1}, f"y{number}", caller="y")
    order = []
    while grant is not None:
        granted = plan.release(grant)
        order += items(granted)
        grant = granted[0][1] if granted else None
    assert order == ["x0", "y0", "x1", "y1", "x2", "y2"]


def flood(plan: Scheduler[str], grants: list[Grant | None], rounds: int) -> list[str]:
    """Small tasks that come as fast as they go; whoever else was served meanwhile."""
    served = []
    for number in range(rounds):
        grant = grants.pop(0)
        assert grant is not None
        granted = plan.release(grant)
        served += items(granted)
        grants += [g for _, g in granted]
        grants.append(plan.request({"CPU": 1}, f"small{number}", caller="small", short=True))
        grants[:] = [g for g in grants if g is not None]
        if not grants:
            break
    return served


def test_a_big_demand_is_served_in_the_end_though_small_ones_keep_coming():
    plan = scheduler(CPU=4)
    grants = [plan.request({"CPU": 1}, f"held{n}", caller="small", short=True) for n in range(4)]
    assert plan.request({"CPU": 4}, "big", caller="big") is None
    assert "big" in flood(plan, grants, 3 * PASSES)


def test_a_big_demand_that_an_actor_stands_in_the_way_of_holds_nobody_back():
    plan = scheduler(CPU=4)
    assert plan.request({"CPU": 1}, "actor", caller="actor") is not None
    grants = [plan.request({"CPU": 1}, f"held{n}", caller="small", short=True) for n in range(3)]
    assert plan.request({"CPU": 4}, "big", caller="big") is None
    served = flood(plan, grants, 5 * PASSES)
    assert "big" not in served
    assert len(grants) == 3


def test_a_big_demand_holds_others_back_for_a_bounded_time():
    clock = Clock()
    plan = scheduler(clock, CPU=2)
    stays = plan.request({"CPU": 1}, "stays", caller="a", short=True)
    goes = plan.request({"CPU": 1}, "goes", caller="a", short=True)
    assert plan.request({"CPU": 2}, "big", caller="big") is None
    for number in range(PASSES):
        assert goes is not None
        plan.release(goes)
        goes = plan.request({"CPU": 1}, f"passes{number}", caller="a", short=True)
    assert stays is not None
    assert goes is not None
    plan.release(goes)
    assert plan.request({"CPU": 1}, "held back", caller="a", short=True) is None
    assert plan.next_look() == HOLD
    clock.now = HOLD
    assert items(plan.look()) == ["held back"]


def test_who_lends_its_cpus_keeps_the_rest_and_may_overdraw_when_it_comes_back():
    plan = scheduler(CPU=1, gold=1)
    grant = plan.request({"CPU": 1, "gold": 1}, "a")
    assert grant is not None
    assert plan.request({"CPU": 1}, "b") is None
    assert plan.request({"gold": 1}, "c") is None
    ((item, _),) = plan.lend(grant)
    assert item == "b"
    plan.reclaim(grant)
    assert plan.free()["CPU"] == 0
    assert items(plan.release(grant)) == ["c"]
    assert plan.free()["CPU"] == 0


def test_what_was_lent_is_given_back_once():
    plan = scheduler(CPU=1)
    grant = plan.request({"CPU": 1}, "a")
    assert grant is not None
    plan.lend(grant)
    plan.release(grant)
    assert plan.free()["CPU"] == 1


def test_fractions_of_gpus_share_one_and_leave_whole_ones_whole():
    plan = scheduler(gpus=2)
    first, second = plan.request({"GPU": 0.5}, "a"), plan.request({"GPU": 0.5}, "b")
    assert first is not None
    assert second is not None
    assert first.gpus == second.gpus
    whole = plan.request({"GPU": 1}, "c")
    assert whole is not None
    assert set(whole.gpus).isdisjoint(first.gpus)


def test_whole_gpus_wait_for_whole_ones():
    plan = scheduler(gpus=2)
    halves = [plan.request({"GPU": 0.6}, name) for name in "ab"]
    assert halves[0] is not None
    assert plan.request({"GPU": 1}, "c") is None
    ((item, grant),) = plan.release(halves[0])
    assert item == "c"
    assert grant is not None
    assert grant.gpus == halves[0].gpus


def test_a_demand_that_can_never_be_met_is_told_apart():
    plan = scheduler(CPU=2, gpus=1)
    assert plan.why_never({"CPU": 2, "GPU": 0.5}) == ""
    assert "CPU: 3" in plan.why_never({"CPU": 3})
    assert "gold" in plan.why_never({"gold": 0.1})


def test_a_group_is_reserved_all_together_or_waits():
    plan = scheduler(CPU=3)
    held = plan.request({"CPU": 2}, "held")
    group = PlacementGroup(7, "", [{"CPU": 1}, {"CPU": 1}], "PACK")
    assert held is not None
    assert not plan.reserve(group)
    assert plan.free()["CPU"] == 1
    ((item, grant),) = plan.release(held)
    assert (item, grant) == (group, None)
    assert plan.free()["CPU"] == 1


def test_what_runs_in_a_group_takes_from_its_bundles():
    plan = scheduler(CPU=3)
    plan.reserve(PlacementGroup(7, "", [{"CPU": 1}, {"CPU": 1}], "PACK"))
    one = plan.request({"CPU": 1}, "a", (7, 1))
    assert one is not None
    assert one.place == (7, 1)
    assert plan.request({"CPU": 1}, "b", (7, 1)) is None
    other = plan.request({"CPU": 1}, "c", (7, -1))
    assert other is not None
    assert other.place == (7, 0)
    assert items(plan.release(one)) == ["b"]
    assert plan.free()["CPU"] == 1


def test_a_removed_group_gives_back_what_is_free_now_and_the_rest_when_it_is():
    plan = scheduler(CPU=2, gpus=1)
    group = PlacementGroup(7, "", [{"CPU": 1, "GPU": 1}, {"CPU": 1}], "PACK")
    plan.reserve(group)
    inside = plan.request({"CPU": 1, "GPU": 1}, "inside", (7, 0))
    assert inside is not None
    assert plan.request({"CPU": 1}, "waits inside", (7, 0)) is None
    assert plan.request({"CPU": 1}, "waits outside") is None
    lost, granted = plan.remove(group)
    assert lost == ["waits inside"]
    assert items(granted) == ["waits outside"]
    assert plan.free() == {"CPU": 0, "GPU": 0}
    plan.release(inside)
    assert plan.free() == {"CPU": 1, "GPU": 1}
    assert plan.request({"GPU": 1}, "again") is not None


def test_a_removed_group_that_waited_leaves_the_line():
    plan = scheduler(CPU=1)
    held = plan.request({"CPU": 1}, "held")
    group = PlacementGroup(7, "", [{"CPU": 1}], "PACK")
    assert held is not None
    plan.reserve(group)
    plan.remove(group)
    assert plan.release(held) == []
    assert plan.free()["CPU"] == 1


def test_why_a_group_can_never_be_placed():
    plan = scheduler(CPU=2, gpus=1)
    spread = PlacementGroup(1, "", [{"CPU": 1}, {"CPU": 1}], "STRICT_SPREAD")
    assert "machine" in plan.why_never_group(spread)
    assert plan.why_never_group(PlacementGroup(2, "", [{"CPU": 1}], "STRICT_SPREAD")) == ""
    assert "CPU: 3" in plan.why_never_group(PlacementGroup(3, "", [{"CPU": 2}, {"CPU": 1}], "PACK"))
    assert "GPU" in plan.why_never_group(PlacementGroup(4, "", [{"GPU": 0.6}, {"GPU": 0.6}], "PACK"))


def test_who_withdraws_is_not_served():
    plan = scheduler(CPU=1)
    held = plan.request({"CPU": 1}, "held")
    assert held is not None
    plan.request({"CPU": 1}, "a")
    assert plan.withdraw("a")
    assert not plan.withdraw("a")
    assert plan.release(held) == []
