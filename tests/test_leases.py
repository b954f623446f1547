"""The line of tasks in one process: what it asks the head for, and when. The head is a list of what it was asked."""

from __future__ import annotations

from typing import Any

import pytest

from klieg.engines.calls import OutgoingCall
from klieg.engines.local.leases import TaskChannel
from klieg.ids import id_maker
from klieg.outcome import Error
from klieg.remote_function import RemoteFunction
from klieg.task import TaskSpec


class Head:
    """Keeps the questions, and lets the test answer them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.told: list[str] = []

    def request(self, verb: str, then: Any, fds: Any = None, **fields: Any) -> int:
        self.asked.append(then)
        return len(self.asked)

    def tell(self, verb: str, fds: Any = None, **fields: Any) -> None:
        self.told.append(verb)


class Engine:
    def __init__(self) -> None:
        self.head = Head()

    def peer_of(self, process: int, fds: list[int]) -> None:
        """Every worker that it has known is dead."""


def a_call() -> OutgoingCall:
    return OutgoingCall(TaskSpec("f"), b"", None, id_maker(1))


def test_a_task_that_counted_on_a_withdrawn_request_asks_again():
    engine = Engine()
    function = RemoteFunction(len, {})._spec.function
    assert function is not None
    channel = TaskChannel(engine, function, function.placement)
    first = a_call()
    channel.send(first)
    channel.cancel_held(first, RuntimeError("no longer wanted"))
    channel.give_back_idle()
    assert engine.head.told == ["withdraw"]
    channel.send(a_call())
    assert len(engine.head.asked) == 1  # it counts on the request that is under way
    engine.head.asked[0]({"withdrawn": True}, [])
    assert len(engine.head.asked) == 2


class Worker:
    process = 7

    def __init__(self) -> None:
        self.users: set[Any] = set()


@pytest.mark.parametrize("retries", [0, 1])
def test_every_task_that_a_dead_worker_had_may_have_run_and_counts_as_tried(retries):
    engine = Engine()
    function = RemoteFunction(len, {})._spec.function
    channel = TaskChannel(engine, function, function.placement)
    calls = [OutgoingCall(TaskSpec("f", max_retries=retries), b"", None, id_maker(1)) for _ in range(2)]
    channel.peer_lost(Worker(), calls)
    engine.head.asked[0]({"dead": "killed"}, [])
    assert [call.retries for call in calls] == [0, 0]
    assert [isinstance(call.futures[0].outcome, Error) for call in calls] == [not retries] * 2


def test_a_worker_that_died_before_it_was_granted_again_is_not_used_and_another_is_asked_for():
    engine = Engine()
    function = RemoteFunction(len, {})._spec.function
    channel = TaskChannel(engine, function, function.placement)
    channel.send(a_call())
    engine.head.asked[0]({"process": 7}, [])
    assert engine.head.told == ["end_worker"]
    assert len(engine.head.asked) == 2
