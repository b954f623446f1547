"""This process's line to the head: what it asks of the control plane, and what the control plane tells it."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable
from typing import Any

from klieg.engines.local import wire
from klieg.engines.local.connection import Link
from klieg.engines.local.reactor import Reactor

Answer = dict[str, Any]


class HeadClient:
    """Sends requests to the head and hands its messages to `on_message`."""

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_message: Callable[[Answer, list[int]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: dict[int, Callable[[Answer, list[int]], None]] = {}
        self._requests = itertools.count(1).__next__
        self.link = Link(reactor, sock, self._on_frames, self._closed)

    def tell(self, verb: str, fds: list[int] | None = None, **fields: Any) -> None:
        """Send a message that needs no answer. The descriptors go with it and are closed here."""
        self._send({"verb": verb, **fields}, fds or [])

    def request(
        self, verb: str, then: Callable[[Answer, list[int]], None], fds: list[int] | None = None, **fields: Any
    ) -> int:
        """Send a message; `then(answer, descriptors)` is called, by whoever leads, when the answer is there."""
        number = self._requests()
        self._waiting[number] = then
        self._send({"verb": verb, "request": number, **fields}, fds or [])
        if self.link.closed:
            self._fail_waiting("the head is gone")
        return number

    def ask(self, verb: str, fds: list[int] | None = None, **fields: Any) -> Answer:
        """Send a message and wait for the answer."""
        answers: list[Answer] = []
        self.request(verb, lambda answer, fds: answers.append(answer), fds, **fields)
        self._reactor.block(lambda: bool(answers))
        return answers[0]

    def close(self) -> None:
        self.link.close()

    def _send(self, message: dict[str, Any], fds: list[int]) -> None:
        if fds:
            message["fds"] = len(fds)
            self.link.send_with_fds(wire.control_frame(message), fds)
        else:
            self.link.send(wire.control_frame(message), now=True)

    def _on_frames(self, frames: list[wire.Frame]) -> None:
        for _, _, body in frames:
            message: Answer = json.loads(body)
            fds = [self.link.fds.popleft() for _ in range(message.get("fds", 0))]
            then = self._waiting.pop(message.get("answers", 0), None)
            (then or self._on_message)(message, fds)

    def _closed(self, why: str) -> None:
        self._on_lost(why)
        self._fail_waiting(why)

    def _fail_waiting(self, why: str) -> None:
        while self._waiting:
            try:
                _, then = self._waiting.popitem()
            except KeyError:
                return
            then({"lost": why}, [])
