"""A question to several processes at once: their answers, and what can be said of those that give none in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from klieg.engines.local.stuck import Request, state_of

if TYPE_CHECKING:
    from klieg.engines.local.head.head import Client, Worker
    from klieg.engines.local.reactor import Reactor

STACKS_AFTER: Final = 0.1
"""Seconds that a process gets to write its stacks: a handler in C needs microseconds, once it is given a CPU."""

Answer = Callable[[list[Any], list[dict[str, Any]]], None]


class Survey:
    """One question, from asking it until it is answered. `answer(replies, silent)` is called once."""

    def __init__(self, reactor: Reactor, timeout: float, answer: Answer, *, explain: bool = True) -> None:
        """`explain`: have those that say nothing looked at from outside."""
        self._reactor = reactor
        self._explain = explain
        self._answer = answer
        self._waiting: dict[int, Worker | None] = {}
        """Processes that have not replied: what the head knows of them, None for the driver."""
        self._replies: list[Any] = []
        self._deadline = time.monotonic() + timeout
        self._over = False

    def ask(self, client: Client, worker: Worker | None, ticket: int, question: str, details: Any) -> None:
        self._waiting[client.process] = worker
        client.tell("asked", ticket=ticket, question=question, details=details)

    def begin(self) -> None:
        """Everybody has been asked."""
        if not self._waiting:
            self._finish([])
        else:
            self._reactor.call_at(self._deadline, self._time_is_up)

    def take(self, process: int, reply: Any) -> None:
        if self._waiting.pop(process, process) is not process:
            self._replies.append(reply)
            self._look()

    def lost(self, process: int) -> None:
        """That process has died: there is nothing to be had from it."""
        self._waiting.pop(process, None)
        self._look()

    def _look(self) -> None:
        if not self._waiting:
            self._finish([])

    def _time_is_up(self) -> None:
        """Some have said nothing: look at them from outside."""
        if self._over:
            return
        self._over = True
        silent = [worker for worker in self._waiting.values() if worker is not None and self._explain]
        requests = [(worker, Request(worker.pid)) for worker in silent]
        self._reactor.call_at(time.monotonic() + STACKS_AFTER, lambda: self._finish_with(requests))

    def _finish_with(self, requests: list[tuple[Worker, Request]]) -> None:
        self._over = False
        self._finish(
            [
                {"pid": worker.pid, "title": worker.title, "state": state_of(worker.pid), "stacks": request.read()}
                for worker, request in requests
            ]
        )

    def _finish(self, silent: list[dict[str, Any]]) -> None:
        if not self._over:
            self._over = True
            self._answer(self._replies, silent)
