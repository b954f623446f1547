"""Who keeps a value alive: refs in arguments, results, containers, closures, actor state and other refs' values."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import itertools
import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

import gates
import numpy as np
import pytest
import stored

import klieg
from klieg import engine
from klieg.exceptions import ActorDiedError, ObjectLostError, OwnerDiedError

MIB = 1 << 20


class Keepers:
    """An actor that keeps what it is given, under names."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, value: Any) -> None:
        self.kept[name] = value

    def drop(self, name: str) -> None:
        del self.kept[name]
        gc.collect()

    def give(self, name: str) -> Any:
        return self.kept[name]

    def value(self, name: str) -> Any:
        """What the kept ref stands for."""
        return klieg.get(self.kept[name])

    def sum(self, name: str) -> int:
        return int(klieg.get(self.kept[name]).sum())

    def sum_of_first(self, name: str) -> int:
        return int(klieg.get(self.kept[name][0]).sum())

    def put(self, value: Any) -> list[klieg.ObjectRef]:
        return [klieg.put(value)]

    def pass_on(self, name: str, other: Any, other_name: str) -> None:
        klieg.get(other.keep.remote(other_name, [self.kept[name]]))

    def pid(self) -> int:
        return os.getpid()


Keeper = klieg.remote(Keepers)


def ones(size: int = MIB) -> np.ndarray:
    return np.ones(size, dtype=np.uint8)


def used() -> int:
    return engine.current().store_usage()["used"]


def known(number: str) -> bool:
    """Whether this process still knows the object."""
    return number in [entry["id"] for entry in engine.current().objects()]


def die(keeper: Any) -> None:
    """Kill the actor's process; returns when that is known here."""
    os.kill(klieg.get(keeper.pid.remote()), signal.SIGKILL)
    gates.soon_raises(ActorDiedError, lambda: klieg.get(keeper.pid.remote()))


def test_dropping_the_last_ref_frees_the_value_at_once(runtime: Any) -> None:
    ref = klieg.put(ones())
    before = used()
    del ref
    klieg.put(ones())
    assert used() == before  # the second value lies where the first one was


def test_all_memory_goes_back_to_the_machine_once_nothing_is_put_any_more(runtime: Any) -> None:
    for _ in range(20):
        klieg.put(ones())
    assert used() == MIB
    assert gates.soon(lambda: used() == 0)


def test_five_thousand_values_of_one_mib_leave_the_store_empty(runtime: Any) -> None:
    value = ones()
    for _ in range(5000):
        klieg.put(value)
    assert used() == MIB
    assert gates.soon(stored.nothing)


def test_many_values_at_a_time_come_and_go_and_leave_the_store_empty(runtime: Any) -> None:
    value = ones()
    for _ in range(20):
        refs = [klieg.put(value) for _ in range(100)]
        assert klieg.get(refs[7]).sum() == MIB
        del refs
    assert used() == 100 * MIB
    assert gates.soon(stored.nothing)


def test_a_ref_in_an_actors_state_keeps_the_value_when_the_driver_drops_it(runtime: Any) -> None:
    keeper, ref = Keeper.remote(), klieg.put(ones())
    klieg.get(keeper.keep.remote("x", [ref]))
    number = ref.hex()
    del ref
    assert known(number)
    assert klieg.get(klieg.get(keeper.give.remote("x"))[0]).sum() == MIB
    klieg.get(keeper.drop.remote("x"))
    assert gates.soon(lambda: not known(number))
    assert gates.soon(stored.nothing)


def test_a_ref_in_a_container_in_a_container_is_counted(runtime: Any) -> None:
    keeper, ref = Keeper.remote(), klieg.put(ones())
    klieg.get(keeper.keep.remote("x", {"a": ({"b": [ref]},)}))
    number = ref.hex()
    del ref
    gc.collect()
    assert known(number)
    klieg.get(keeper.drop.remote("x"))
    assert gates.soon(lambda: not known(number))


def test_a_ref_inside_the_value_of_another_ref_lives_as_long_as_that_one(runtime: Any) -> None:
    outer = klieg.put([klieg.put(ones())])
    inner = klieg.get(outer)[0].hex()
    gc.collect()
    assert known(inner)
    assert klieg.get(klieg.get(outer)[0]).sum() == MIB
    del outer
    gc.collect()
    assert not known(inner)


def test_refs_nested_many_deep_are_all_reachable_and_all_freed(runtime: Any) -> None:
    ref = klieg.put(ones())
    for _ in range(50):
        ref = klieg.put([ref])
    reached: Any = ref
    for _ in range(50):
        (reached,) = klieg.get(reached)
    assert klieg.get(reached).sum() == MIB
    del ref, reached
    assert gates.soon(lambda: not engine.current().objects())


def test_a_ref_only_in_a_result_keeps_its_value_in_the_actor_that_made_it(runtime: Any) -> None:
    keeper = Keeper.remote()
    result = keeper.put.remote(ones())
    assert klieg.get(klieg.get(result)[0]).sum() == MIB
    (inner,) = klieg.get(result)
    del result
    assert klieg.get(inner).sum() == MIB
    del inner
    assert gates.soon(stored.nothing)


def test_a_ref_captured_by_a_function_is_readable_where_the_function_runs(runtime: Any) -> None:
    ref = klieg.put(ones())

    @klieg.remote
    def total() -> int:
        return int(klieg.get(ref).sum())

    assert klieg.get(total.remote()) == MIB


def test_a_borrower_may_pass_a_ref_on_and_drop_it(runtime: Any) -> None:
    first, second, ref = Keeper.remote(), Keeper.remote(), klieg.put(ones())
    klieg.get(first.keep.remote("x", [ref]))
    number = ref.hex()
    del ref
    klieg.get(first.pass_on.remote("x", second, "y"))
    klieg.get(first.drop.remote("x"))
    assert known(number)
    assert klieg.get(klieg.get(second.give.remote("y"))[0][0]).sum() == MIB
    klieg.get(second.drop.remote("y"))
    assert gates.soon(lambda: not known(number))
    assert gates.soon(stored.nothing)


def test_what_a_borrower_held_is_free_when_the_borrower_dies(runtime: Any) -> None:
    keeper, ref = Keeper.remote(), klieg.put(ones())
    klieg.get(keeper.keep.remote("x", [ref]))
    klieg.get(keeper.keep.remote("y", ref))
    number = ref.hex()
    del ref
    assert known(number)
    die(keeper)
    assert gates.soon(lambda: not known(number))
    assert gates.soon(stored.nothing)


def test_what_a_borrower_got_from_another_borrower_is_free_when_it_dies(runtime: Any) -> None:
    first, second, ref = Keeper.remote(), Keeper.remote(), klieg.put(ones())
    klieg.get(first.keep.remote("x", [ref]))
    klieg.get(first.pass_on.remote("x", second, "y"))
    number = ref.hex()
    del ref
    die(first)
    assert known(number)
    die(second)
    assert gates.soon(lambda: not known(number))


def test_a_ref_whose_owner_died_says_so(runtime: Any) -> None:
    owner, other = Keeper.remote(), Keeper.remote()
    (ref,) = klieg.get(owner.put.remote(ones()))
    klieg.get(other.keep.remote("x", [ref]))
    die(owner)
    with pytest.raises(OwnerDiedError, match="owned the value died"):
        klieg.get(ref)
    with pytest.raises(OwnerDiedError):
        klieg.get(klieg.get(other.give.remote("x"))[0])
    with pytest.raises(OwnerDiedError):
        klieg.get(klieg.get(other.give.remote("x")))


@pytest.mark.parametrize("way", ["get", "await", "future", "an argument", "wait"])
def test_the_death_of_an_owner_is_told_whichever_way_one_waits(runtime: Any, way: str) -> None:
    owner, other = Keeper.remote(), Keeper.remote()
    (ref,) = klieg.get(owner.put.remote(ones()))
    die(owner)

    async def wait_for(ref: klieg.ObjectRef) -> Any:
        return await ref

    if way == "wait":
        assert klieg.wait([ref], timeout=10) == ([ref], [])
        assert isinstance(ref.exception(), OwnerDiedError)
        return
    wait = {
        "get": klieg.get,
        "await": lambda ref: asyncio.run(wait_for(ref)),
        "future": lambda ref: ref.future().result(10),
        "an argument": lambda ref: klieg.get(other.keep.remote("x", ref)),
    }[way]
    with pytest.raises(OwnerDiedError, match="owned the value died"):
        wait(ref)


def test_whoever_waits_for_a_value_when_its_owner_dies_is_told(runtime: Any, gate: gates.Gate) -> None:
    @klieg.remote
    class Owner(Keepers):
        def start(self) -> list[Any]:
            @klieg.remote
            def wait() -> None:
                gate.wait()

            return [wait.remote()]

    owner = Owner.remote()
    (ref,) = klieg.get(owner.start.remote())
    future = ref.future()
    die(owner)
    assert isinstance(future.exception(10), OwnerDiedError)


def test_a_borrower_that_dies_while_it_waits_for_a_value_leaves_nothing(runtime: Any, gate: gates.Gate) -> None:
    @klieg.remote
    def make() -> np.ndarray:
        gate.wait()
        return ones()

    borrower, pending = Keeper.remote(), make.remote()
    klieg.get(borrower.keep.remote("x", [pending]))
    pid = klieg.get(borrower.pid.remote())
    waiting = borrower.sum_of_first.remote("x")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorDiedError):
        klieg.get(waiting)
    gate.open()
    assert klieg.get(pending).sum() == MIB
    del pending
    assert gates.soon(stored.nothing)


def test_a_chain_of_borrowers_that_die_one_after_another_frees_the_value_with_the_last(runtime: Any) -> None:
    keepers, ref = [Keeper.remote() for _ in range(4)], klieg.put(ones())
    klieg.get(keepers[0].keep.remote("x", [ref]))
    for one, other in itertools.pairwise(keepers):
        klieg.get(one.pass_on.remote("x", other, "x"))
    number = ref.hex()
    del ref
    for keeper in keepers:
        assert known(number)
        die(keeper)
    assert gates.soon(lambda: not known(number))
    assert gates.soon(stored.nothing)


@dataclasses.dataclass
class Parcel:
    """An object of the user's that holds refs and handles wherever it likes."""

    refs: dict[str, tuple[Any, ...]]
    handle: Any = None


def test_refs_and_handles_in_an_object_of_the_users_are_counted(runtime: Any) -> None:
    keeper, ref = Keeper.remote(), klieg.put(ones())
    parcel = Parcel({"deep": (1, [ref])}, keeper)
    klieg.get(keeper.keep.remote("x", parcel))
    number = ref.hex()
    del ref, parcel
    gc.collect()
    assert known(number)
    back = klieg.get(keeper.give.remote("x"))
    assert klieg.get(back.refs["deep"][1][0]).sum() == MIB
    assert klieg.get(back.handle.pid.remote()) == klieg.get(keeper.pid.remote())
    klieg.get(keeper.drop.remote("x"))
    del back
    assert gates.soon(lambda: not known(number))


def test_two_actors_that_hold_each_others_values_are_no_leak_when_they_end(runtime: Any) -> None:
    left, right = Keeper.remote(), Keeper.remote()
    for one, other in ((left, right), (right, left)):
        (ref,) = klieg.get(one.put.remote(ones()))
        klieg.get(other.keep.remote("x", [ref]))
        assert klieg.get(other.sum_of_first.remote("x")) == MIB
        del ref
    die(left)
    die(right)
    assert gates.soon(stored.nothing)


def test_a_value_that_was_fetched_before_its_owner_died_stays_readable(runtime: Any) -> None:
    owner = Keeper.remote()
    (ref,) = klieg.get(owner.put.remote(ones()))
    first = klieg.get(ref)
    die(owner)
    assert klieg.get(ref).sum() == first.sum() == MIB


def test_a_task_that_waits_for_a_ref_whose_owner_dies_fails(runtime: Any, gate: gates.Gate) -> None:
    @klieg.remote
    class Owner:
        def start(self) -> list[Any]:
            @klieg.remote
            def wait() -> None:
                gate.wait()

            return [wait.remote()]

        def pid(self) -> int:
            return os.getpid()

    owner, keeper = Owner.remote(), Keeper.remote()
    (ref,) = klieg.get(owner.start.remote())
    waiting = keeper.keep.remote("x", ref)
    die(owner)
    with pytest.raises(OwnerDiedError):
        klieg.get(waiting)


def test_refs_in_a_cycle_are_freed_by_the_garbage_collector(runtime: Any) -> None:
    cycle: dict[str, Any] = {"ref": klieg.put(ones())}
    cycle["self"] = cycle
    number = cycle["ref"].hex()
    del cycle
    gc.collect()
    assert not known(number)
    assert gates.soon(stored.nothing)


def test_an_actor_that_holds_a_ref_to_its_own_result_is_no_leak_when_it_ends(runtime: Any) -> None:
    keeper = Keeper.remote()
    made = keeper.put.remote(ones())
    klieg.get(keeper.keep.remote("own", [made]))
    klieg.get(keeper.keep.remote("inner", klieg.get(made)))
    del made
    die(keeper)
    assert gates.soon(stored.nothing)


def test_a_value_that_comes_home_to_its_owner_is_the_same_memory(runtime: Any) -> None:
    keeper, ref = Keeper.remote(), klieg.put(ones())
    klieg.get(keeper.keep.remote("x", [ref]))
    (back,) = klieg.get(keeper.give.remote("x"))
    assert back == ref
    assert klieg.get(back).ctypes.data == klieg.get(ref).ctypes.data


def test_a_ref_pickled_by_hand_stays_readable_though_it_was_dropped(runtime: Any) -> None:
    ref = klieg.put(ones())
    pickled = pickle.dumps(ref)
    del ref
    gc.collect()
    assert klieg.get(pickle.loads(pickled)).sum() == MIB


def test_a_ref_pickled_by_hand_can_be_read_by_another_process(runtime: Any) -> None:
    @klieg.remote
    def read(pickled: bytes) -> int:
        return int(klieg.get(pickle.loads(pickled)).sum())

    ref = klieg.put(ones())
    pickled = pickle.dumps(ref)
    del ref
    assert klieg.get(read.remote(pickled)) == MIB


def test_a_ref_of_an_earlier_runtime_raises_instead_of_hanging(start: Callable[..., Any]) -> None:
    start()
    (borrowed,) = klieg.get(Keeper.remote().put.remote(1))
    pickled = pickle.dumps(klieg.put(2))
    klieg.shutdown()
    start()
    with pytest.raises((ObjectLostError, klieg.exceptions.RuntimeShutdownError)):
        klieg.get(borrowed)
    with pytest.raises(ObjectLostError):
        klieg.get(pickle.loads(pickled))


def test_ten_thousand_refs_are_read_by_one_get_and_freed(runtime: Any) -> None:
    refs = [klieg.put(number) for number in range(10_000)]
    assert klieg.get(refs) == list(range(10_000))
    keeper = Keeper.remote()
    klieg.get(keeper.keep.remote("all", [refs]))
    assert klieg.get(klieg.get(keeper.give.remote("all"))[0][-1]) == 9999
    klieg.get(keeper.drop.remote("all"))
    del refs
    assert gates.soon(lambda: not engine.current().objects())


def test_duplicate_refs_in_one_get_give_each_a_value(runtime: Any) -> None:
    ref = klieg.put(ones())
    values = klieg.get([ref, ref, ref])
    assert [int(value.sum()) for value in values] == [MIB] * 3


def test_a_call_whose_worker_dies_gives_its_arguments_back(runtime: Any) -> None:
    @klieg.remote(max_retries=0)
    def crash(value: np.ndarray, refs: list[Any]) -> None:
        os._exit(1)

    for _ in range(3):
        with pytest.raises(klieg.exceptions.WorkerCrashedError):
            klieg.get(crash.remote(ones(), [klieg.put(ones())]))
    assert gates.soon(stored.nothing)


def test_calls_that_are_sent_as_the_actor_dies_give_their_arguments_back(runtime: Any) -> None:
    keeper = Keeper.remote()
    os.kill(klieg.get(keeper.pid.remote()), signal.SIGKILL)
    refs = [keeper.keep.remote("x", ones()) for _ in range(20)]
    klieg.wait(refs, num_returns=20)
    assert all(isinstance(ref.exception(), ActorDiedError) for ref in refs)
    del refs
    assert gates.soon(stored.nothing)


def test_a_put_in_an_actor_is_freed_when_the_driver_drops_its_ref(runtime: Any) -> None:
    keeper = Keeper.remote()
    refs = [klieg.get(keeper.put.remote(ones()))[0] for _ in range(10)]
    assert used() >= 10 * MIB
    del refs
    assert gates.soon(stored.nothing)
