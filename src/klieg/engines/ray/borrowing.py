"""Refs that another process owns, and what other processes are given of ours.

A finished value travels with its ref. For one that is still to come, the borrower gets a Ray ref of its record: the
Ray task's own if a task makes it, else one that the owner promises and keeps when the value is there. So Ray counts
who holds what, and tells a borrower when the owner died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from klieg.engines import failures
from klieg.engines.objects import ObjectFuture
from klieg.engines.ray.messages import CANCELLED, Record
from klieg.engines.ray.tasks import open_record
from klieg.engines.ray.trouble import lost_value, task_trouble
from klieg.outcome import Error

if TYPE_CHECKING:
    from klieg.engines.ray.engine import RayEngine


class BorrowedFuture(ObjectFuture):
    """A ref of another process's value, by the Ray ref of its record. Fetched when somebody asks for it."""

    __slots__ = ("_engine", "_wanted", "contents", "index", "records", "sent_to")

    def __init__(
        self,
        engine: RayEngine,
        number: int,
        records: Any,
        index: int,
        contents: Any,
        sent_to: tuple[Any, int, int] | None,
    ) -> None:
        super().__init__(number)
        self._engine = engine
        self._wanted = False
        self.records = records
        self.index = index
        self.contents = contents
        """The Ray ref of what is large; None for a promise, whose record names it."""
        self.sent_to = sent_to
        """For a call to an actor: its Ray handle, the caller and the number of the call."""

    def want(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._engine.expect(self.records, self._came)

    def cancel(self, force: bool, recursive: bool) -> None:
        """Ask whoever has the call to end it."""
        if self.sent_to is None:
            ray.cancel(self.records, force=force, recursive=False)
        else:
            handle, caller, number = self.sent_to
            handle.cancel.remote(caller, number, CANCELLED, recursive)

    def _came(self, answer: Any) -> None:
        if isinstance(answer, ray.exceptions.RayActorError | ray.exceptions.ObjectLostError):
            self.resolve(Error(failures.dumps(lost_value(answer), "")))
        elif isinstance(answer, Exception):
            self.resolve(Error(failures.dumps(task_trouble(answer, "task"), "")))
        else:
            record = answer[0 if len(answer) == 1 else self.index]  # a failed task has one record for all its refs
            self.resolve(open_record(self._engine, record, self.contents))


class Promises:
    """A Ray actor that keeps the promises of a process which Ray cannot call: the driver's, a task's.

    It belongs to that process: Ray ends it when the process dies, and whoever waits here learns of it.
    """

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._waiting: dict[int, asyncio.Future[Record]] = {}

    async def wait(self, number: int) -> list[Record]:
        if number not in self._records:
            self._waiting[number] = asyncio.get_running_loop().create_future()
            return [await self._waiting[number]]
        return [self._records.pop(number)]

    async def keep(self, number: int, record: Record) -> None:
        waiter = self._waiting.pop(number, None)
        if waiter is None:
            self._records[number] = record
        else:
            waiter.set_result(record)


def promise_by_actor(engine: RayEngine) -> Callable[[ObjectFuture], Any]:
    """How a process that is no actor promises: through a Ray actor of its own, made for the first promise."""
    actor = ray.remote(Promises).options(num_cpus=0, max_concurrency=PROMISES, max_restarts=0).remote()

    def promise(future: ObjectFuture) -> Any:
        ref = actor.wait.remote(future.id)
        future.add_callback(lambda done: engine.do_soon(lambda: actor.keep.remote(done.id, engine.record_of(done))))
        return ref

    return promise


PROMISES = 100_000
"""Promises that one process may have open at a time."""
