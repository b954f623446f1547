"""What a process of the runtime tells of itself when another one asks, through the head.

The questions come from `klieg.dump()`, the state tables, the timeline and the search for circles of waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from klieg import ids, measurements
from klieg.concurrency.snapshot import RUNNERS
from klieg.concurrency.stacks import thread_stacks
from klieg.concurrency.waits import Facts, late
from klieg.engines import task_table
from klieg.engines.inventory import MOST, known_here
from klieg.engines.local import output
from klieg.engines.outgoing import outgoing
from klieg.engines.recorded import recorded

if TYPE_CHECKING:
    from klieg.engines.local.engine import LocalEngine

WAITS_PATIENCE: Final = 2.0
"""Seconds that others get to say who waits for whom; what is not known counts as what may end."""

Reply = Callable[[Any], None]


class Answers:
    """What one process says to each of the questions."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.to: dict[str, Callable[[Any, Reply], None]] = {
            "snapshot": lambda _, reply: reply(self._snapshot()),
            "waits": lambda _, reply: reply(self._waits()),
            "calls": lambda details, reply: reply(self._calls(details)),
            "lines": lambda details, reply: reply(self._lines(details)),
            "objects": lambda details, reply: reply(self._known_objects(details)),
            "metrics": lambda _, reply: reply({"pid": engine.pid, "metrics": measurements.dump()}),
            "timeline": lambda details, reply: reply(self._timeline(details)),
            "room": lambda size, reply: engine.give_room(size, reply, ask_borrowers=True),
        }
        """For each question, what answers it; it is given the details and how to reply, now or later."""

    def _snapshot(self) -> dict[str, Any]:
        """What this process is doing."""
        return {
            "process": self._engine.process,
            "pid": self._engine.pid,
            "driver": self._engine.runner is None,
            "actors": self._engine.runner.snapshot() if self._engine.runner is not None else [],
            "threads": thread_stacks(without=RUNNERS),
            "outgoing": outgoing(self._engine.outgoing()),
            "waits": self._waits(),
        }

    def _waits(self) -> dict[str, Any]:
        """What this process knows of who waits for whom."""
        unsent = [entry for channel in self._engine.channels() for entry in channel.unsent()]
        return {
            "pid": self._engine.pid,
            "hosts": self._engine.runner.waits() if self._engine.runner is not None else [],
            "late": late(unsent),
        }

    def _calls(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """The calls that this process has made, and those that it runs."""
        most = details.get("most", task_table.MOST)
        hosts = [self._engine.runner.host] if self._engine.runner is not None else []
        return {
            **task_table.made_here(self._engine.process, self._engine.outgoing(), most),
            **task_table.running_here(self._engine.process, self._engine.pid, hosts, most),
        }

    def _known_objects(self, details: Mapping[str, Any]) -> dict[str, Any]:
        return known_here(self._engine.process, self._engine.pid, self._engine.objects(), details.get("most", MOST))

    def _lines(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """What this process has printed last."""
        return {
            "worker_id": ids.WorkerID.from_int(self._engine.process).hex(),
            "pid": self._engine.pid,
            "title": self._title(),
            "lines": output.recent(details.get("most", output.LINES_KEPT)),
        }

    def _timeline(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """What ran here since recording began; starts or stops it, if told to."""
        hosts = [self._engine.runner.host] if self._engine.runner is not None else []
        return {"pid": self._engine.pid, "title": self._title(), **recorded(hosts, details)}

    def _title(self) -> str:
        return self._engine.runner.host.name if self._engine.runner is not None else "driver"

    def ask_waits(self, then: Callable[[list[Facts]], None]) -> None:
        """Have a function called with what each process knows of who waits for whom, as far as it answers in time."""
        self._engine.head.request(
            "survey",
            lambda answer, _: then([self._waits(), *answer.get("replies", ())]),
            question="waits",
            timeout=WAITS_PATIENCE,
            explain=False,
        )

    def leave_record(self) -> None:
        """This worker ends: the head keeps what it has recorded."""
        self._engine.head.tell("record", record=self._timeline({}))
