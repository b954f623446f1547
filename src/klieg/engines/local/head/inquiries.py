"""Questions about the runtime that the head answers from its own tables: to its processes, and to visitors."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from klieg import ids
from klieg._version import __version__
from klieg.engines.local.head import facts
from klieg.engines.local.head.registry import ActorRecord, ActorState

if TYPE_CHECKING:
    from klieg.engines.local.door import Answer
    from klieg.engines.local.head.head import Head, Message

BY_VISITOR = "The actor is dead because it was killed from outside by `klieg kill-actor`."


class Inquiries:
    def __init__(self, head: Head, hello: Message, driver_pid: int) -> None:
        self._head = head
        self._process = hello["process"]
        self._pid = driver_pid
        self._namespace = hello["runtime"]["namespace"]
        self._settings = hello["runtime"]["settings"]
        self._command = hello["command"]
        self._started = time.time()

    def rows(self, of: str) -> list[facts.Row]:
        """The rows of a table; ValueError for one that there is not."""
        tables: dict[str, Callable[[], list[facts.Row]]] = {
            "actors": self._actors,
            "workers": self._workers,
            "nodes": self._nodes,
            "jobs": self._jobs,
            "placement_groups": self._head.groups.table,
        }
        if of not in tables:
            raise ValueError(f"There is no table of {of!r}; there are {', '.join(sorted(tables))}.")
        return tables[of]()

    def visit(self, question: Message, answer: Answer) -> None:
        """Answer a visitor at the door; raises what is wrong with the question."""
        want = question.get("want")
        if want == "about":
            answer({"answer": self._about()})
        elif want == "table":
            answer({"answer": self.rows(question["of"])})
        elif want == "status":
            answer({"answer": self._status()})
        elif want == "kill_actor":
            answer({"answer": self._kill(question)})
        else:
            raise ValueError(f"the runtime, klieg {__version__}, does not know {want!r}")

    def _about(self) -> facts.Row:
        return {
            "pid": self._pid,
            "head_pid": os.getpid(),
            "command": self._command,
            "started": self._started,
            "namespace": self._namespace,
            "session_name": self._settings["session_name"],
            "version": __version__,
        }

    def _status(self) -> facts.Row:
        scheduler = self._head.scheduler
        return {
            **self._about(),
            "total": scheduler.total(),
            "free": scheduler.free(),
            "waiting": scheduler.waiting(),
            "actors": facts.count(self._actors(), "state"),
            "workers": facts.count(self._workers()[1:], "state"),
            "placement_groups": facts.count(self._head.groups.table(), "state"),
            "memory": sum(row["memory"] for row in self._workers()) + facts.memory_of(os.getpid()),
        }

    def _actors(self) -> list[facts.Row]:
        workers = self._head.workers
        return [facts.actor_row(actor, workers.get(actor.process)) for actor in self._head.registry.all()]

    def _workers(self) -> list[facts.Row]:
        workers = list(self._head.workers.values())
        return [facts.driver_row(self._process, self._pid), *map(facts.worker_row, workers)]

    def _nodes(self) -> list[facts.Row]:
        return [
            {
                "node_id": ids.NODE_ID.hex(),
                "node_ip": "127.0.0.1",
                "is_head_node": True,
                "state": "ALIVE",
                "node_name": socket.gethostname(),
                "resources_total": self._head.scheduler.total(),
                "labels": {**self._settings["labels"], "ray.io/node-id": ids.NODE_ID.hex()},
                "start_time_ms": round(self._started * 1000),
            }
        ]

    def _jobs(self) -> list[facts.Row]:
        return [
            {
                "job_id": ids.JOB_ID.hex(),
                "type": "DRIVER",
                "status": "RUNNING",
                "entrypoint": self._command,
                "driver_pid": self._pid,
                "start_time": round(self._started * 1000),
            }
        ]

    def _kill(self, question: Message) -> facts.Row:
        actor = self._find(str(question["actor"]), question.get("namespace") or self._namespace)
        self._head.kill_actor(actor, BY_VISITOR, bool(question.get("no_restart", True)))
        return facts.actor_row(actor, None)

    def _find(self, name_or_id: str, namespace: str) -> ActorRecord:
        for actor in self._head.registry.all():
            named = actor.key == (namespace, name_or_id)
            if actor.state is not ActorState.DEAD and (named or facts.actor_row(actor, None)["actor_id"] == name_or_id):
                return actor
        raise LookupError(
            f"there is no living actor with the id, or in namespace {namespace!r} the name, {name_or_id!r}"
        )
