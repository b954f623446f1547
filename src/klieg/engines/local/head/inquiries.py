"""Questions about the runtime that the head answers from its own tables: to its processes, and to visitors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from klieg import ids
from klieg._version import __version__
from klieg.engines import tables
from klieg.engines.local.head.registry import ActorRecord, ActorState
from klieg.engines.tables import Row

if TYPE_CHECKING:
    from klieg.engines.local.door import Answer
    from klieg.engines.local.head.head import Head, Message, Worker

SURVEYS: Final = frozenset({"snapshot", "calls", "lines", "objects", "timeline"})
"""What a visitor may have every process asked."""

LONGEST_SURVEY: Final = 20.0
"""Seconds that processes get to answer a visitor's question."""

BY_VISITOR: Final = "The actor is dead because it was killed from outside by `klieg kill-actor`."


class Inquiries:
    def __init__(self, head: Head, hello: Message, driver_pid: int) -> None:
        self._head = head
        self._process = hello["process"]
        self._pid = driver_pid
        self._namespace = hello["runtime"]["namespace"]
        self._settings = hello["runtime"]["settings"]
        self._command = hello["command"]
        self._started = time.time()

    def table(self, of: str) -> list[Row]:
        """The rows of a table; ValueError for one that there is not."""
        makers: dict[str, Callable[[], list[Row]]] = {
            "actors": self._actors,
            "workers": self._workers,
            "nodes": lambda: [tables.node_row(self._head.scheduler.total(), self._settings["labels"], self._started)],
            "jobs": lambda: [tables.job_row(self._pid, self._command, self._started)],
            "placement_groups": lambda: [tables.placement_group_row(facts) for facts in self._head.groups.table()],
            "store": lambda: [self._head.ledger.usage()],
        }
        if of not in makers:
            raise ValueError(f"There is no table of {of!r}; there are {', '.join(sorted(makers))}.")
        return makers[of]()

    def visit(self, question: Message, answer: Answer) -> None:
        """Answer a visitor at the door; raises what is wrong with the question."""
        want = question.get("want")
        if want == "about":
            answer({"answer": self._about()})
        elif want == "table":
            answer({"answer": self.table(question["of"])})
        elif want == "status":
            answer({"answer": self._status()})
        elif want == "survey":
            self._survey(question, answer)
        elif want == "kill_actor":
            answer({"answer": self._kill(question)})
        else:
            raise ValueError(f"the runtime, klieg {__version__}, does not know {want!r}")

    def _survey(self, question: Message, answer: Answer) -> None:
        if question["question"] not in SURVEYS:
            raise ValueError(f"{question['question']!r} is no question to all processes")
        asked = {
            "question": question["question"],
            "timeout": min(float(question.get("timeout", LONGEST_SURVEY)), LONGEST_SURVEY),
            "details": question.get("details", {}),
        }
        self._head.survey_all(asked, lambda replies, silent: answer({"answer": {"replies": replies, "silent": silent}}))

    def note_recording(self, question: Message) -> None:
        """Workers that are started from now on are to record, or not to, like those that are asked."""
        details = question.get("details") or {}
        if question["question"] == "timeline" and (details.get("start") or details.get("stop")):
            self._settings["profiling"] = bool(details.get("start"))

    def _about(self) -> Row:
        return {
            "pid": self._pid,
            "head_pid": os.getpid(),
            "command": self._command,
            "started": self._started,
            "namespace": self._namespace,
            "session_name": self._settings["session_name"],
            "version": __version__,
        }

    def _status(self) -> Row:
        scheduler, workers = self._head.scheduler, self._workers()
        return {
            **self._about(),
            "total": scheduler.total(),
            "free": scheduler.free(),
            "waiting": scheduler.waiting(),
            "actors": tables.count(self._actors(), "state"),
            "workers": tables.count(workers[1:], "state"),
            "placement_groups": tables.count(self.table("placement_groups"), "state"),
            "memory": sum(row["memory"] for row in workers) + tables.memory_of(os.getpid()),
        }

    def _actors(self) -> list[Row]:
        return [self._actor_row(actor) for actor in self._head.registry.all()]

    def _actor_row(self, actor: ActorRecord) -> Row:
        worker = self._head.workers.get(actor.process)
        return tables.actor_row(
            actor.number,
            class_name=actor.request["title"],
            state=actor.state.value,
            name=actor.name or "",
            namespace=actor.request["namespace"],
            pid=worker.pid if worker is not None else 0,
            process=actor.process,
            is_detached=actor.request["detached"],
            placement=actor.placement,
            death=actor.death,
            restarts=actor.restarts,
            owner=actor.request["owner"],
        )

    def _workers(self) -> list[Row]:
        driver = tables.worker_row(self._process, kind="DRIVER", state="DRIVER", pid=self._pid, title="driver")
        return [driver, *map(_worker_row, list(self._head.workers.values()))]

    def _kill(self, question: Message) -> Row:
        actor = self._find(str(question["actor"]), question.get("namespace") or self._namespace)
        row = self._actor_row(actor)
        self._head.kill_actor(actor, BY_VISITOR, bool(question.get("no_restart", True)))
        return row

    def _find(self, name_or_id: str, namespace: str) -> ActorRecord:
        for actor in self._head.registry.all():
            is_it = actor.key == (namespace, name_or_id) or ids.ActorID.from_int(actor.number).hex() == name_or_id
            if is_it and actor.state is not ActorState.DEAD:
                return actor
        raise LookupError(f"no living actor has the id, or in namespace {namespace!r} the name, {name_or_id!r}")


def _worker_row(worker: Worker) -> Row:
    actor, grant = worker.actor, worker.grant
    return tables.worker_row(
        worker.process,
        kind="WORKER",
        state=_state_of(worker),
        pid=worker.pid,
        title=worker.title,
        actor=actor.number if actor is not None else None,
        resources=grant.demand if grant is not None else {},
        gpus=grant.gpus if grant is not None else (),
        lent=grant is not None and grant.lent,
        environment=worker.shape.environment,
    )


def _state_of(worker: Worker) -> str:
    """ACTOR, LEASED (somebody may send it tasks), IDLE, or LEAVING."""
    if worker.leaving:
        return "LEAVING"
    if worker.actor is not None:
        return "ACTOR"
    return "LEASED" if worker.lessee else "IDLE"
