"""The line of tasks in one process: what it asks the head for, and when. The head is a list of what it was asked."""

from __future__ import annotations

from typing import Any

from klieg.engines.calls import OutgoingCall
from klieg.engines.local.leases import TaskChannel
from klieg.ids import id_maker
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
