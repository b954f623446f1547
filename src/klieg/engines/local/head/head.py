"""The head: one single-threaded process that owns registry, placement and supervision, and forks the workers.

    driver ──(inherited socket)── head ──(inherited sockets)── workers
       └───────────── connections that the head has passed on ─────┘

It relays descriptors and facts, never values: it unpickles nothing and imports nothing of the user's. When the driver's
connection ends, however the driver died, it ends every worker and itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn

from klieg import measurements
from klieg.engines import rundir
from klieg.engines.local import output, wire
from klieg.engines.local.connection import Link, socket_pair
from klieg.engines.local.door import Door
from klieg.engines.local.failpoints import failpoint
from klieg.engines.local.head.inquiries import Inquiries
from klieg.engines.local.head.registry import ActorRecord, ActorState, Registry
from klieg.engines.local.head.survey import Survey
from klieg.engines.local.head.zygote import Exit, Watched, end_group, fork
from klieg.engines.local.process import descriptors_left, no_descriptors_left
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.store.ledger import Ledger
from klieg.engines.placement_groups import PlacementGroups
from klieg.engines.scheduler import Grant, Scheduler
from klieg.ids import new_process_number, process_of
from klieg.placement import Placement

DEATHS_KEPT: Final = 10_000
"""Processes whose cause of death is remembered, for those who ask late."""

DESCRIPTORS_KEPT: Final = 16
"""Descriptors the head does not use for workers: it must be able to take up what is sent to it."""

_REMEDIES: Final = {
    errno.EAGAIN: ": the limit on processes (RLIMIT_NPROC, or pids.max of the control group) is reached",
    errno.ENOMEM: ": the machine, or the control group, is out of memory",
}

DYING: Final = 0.25
"""Seconds between the end of a process's connections and its own: the kernel closes files after it has freed memory."""

UNDEAD: Final = (
    "one of its connections ended while it ran on, and it was ended. Has its code closed descriptors that are not its "
    "own (`os.closerange`), or used up its limit on open files (RLIMIT_NOFILE)?"
)

ROOM_PATIENCE: Final = 1.0
"""Seconds that processes get to make room in the store. One that is busy for longer is taken to have none."""

SPARES: Final = 1
"""Processes kept ready. One hides the fork from whoever starts actors one after another; each costs about a MiB."""

logger = logging.getLogger("klieg")

SHUT_DOWN: Final = "the runtime was shut down"

SETTLED: Final = 0.05
"""Seconds after its start before the head turns to what is not urgent: a program's first calls come first."""

RECORDS_KEPT: Final = 100
"""Ended workers whose part of the timeline is kept."""

SPECIAL_KEPT: Final = 8
"""Idle task workers that are kept though their environment is not the runtime's own."""

LEAVE_WITHIN: Final = 5.0
"""Seconds a worker gets to end by itself, its `atexit` hooks included, once it is not to be used again."""

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What makes one task worker fit to run another's tasks."""

    width: int = 1
    """Async tasks that run in it at a time."""
    threads: int = 1
    """What numeric libraries in it take for the number of CPUs: OMP_NUM_THREADS."""
    environment: str = ""
    """Its runtime environment, as text."""


@dataclasses.dataclass(slots=True, eq=False)
class Worker:
    """A process that the head has forked."""

    process: int
    pid: int
    title: str
    actor: ActorRecord | None
    shape: Shape
    line: int
    """Its line in the ledger of the object store."""
    grant: Grant | None = None
    """The resources held on its behalf now; None while it is idle."""
    lessee: int = 0
    """The process that may send it tasks."""
    wanted: bool = False
    """True once its lessee was told that somebody waits."""
    leaving: str = ""
    """Why it ends, if it has said so or has been told to."""
    init_failed: bool = False
    no_restart: bool = False
    met: set[int] = dataclasses.field(default_factory=set)
    """Processes that have a connection to it for tasks."""


@dataclasses.dataclass(slots=True, eq=False)
class Spare:
    """A process that was forked and has not been told yet what it is."""

    pid: int
    sock: socket.socket
    worker: Worker | None = None
    """What it became."""


@dataclasses.dataclass(slots=True, eq=False)
class Lease:
    """A request for a worker."""

    client: Client
    request: int
    placement: Placement
    shape: Shape


class Client:
    """A process's line to the head."""

    def __init__(self, head: Head, process: int, sock: socket.socket) -> None:
        self.head = head
        self.process = process
        self.link = Link(head.reactor, sock, self._on_frames, self._on_close)

    def tell(self, verb: str, fds: list[int] | None = None, **fields: Any) -> None:
        self._send({"verb": verb, **fields}, fds or [])

    def answer(self, request: int, fds: list[int] | None = None, **fields: Any) -> None:
        self._send({"answers": request, **fields}, fds or [])

    def _send(self, message: Message, fds: list[int]) -> None:
        if fds:
            message["fds"] = len(fds)
            self.link.send_with_fds(wire.control_frame(message), fds)
        else:
            self.link.send(wire.control_frame(message), now=True)

    def _on_frames(self, frames: list[wire.Frame]) -> None:
        for _, _, body in frames:
            message: Message = json.loads(body)
            socks = [socket.socket(fileno=self.link.fds.popleft()) for _ in range(message.get("fds", 0))]
            self.head.handle(self, message, socks)

    def _on_close(self, why: str) -> None:
        self.head.client_lost(self)


class Head:
    def __init__(self, driver: socket.socket, ledger: Ledger) -> None:
        self.reactor = Reactor(monitored=False)
        self.ledger = ledger
        self.done = False
        self._runtime: Message = {}
        """What every worker is told of the runtime."""
        self.registry = Registry()
        self.scheduler: Scheduler[ActorRecord | Lease] = Scheduler({}, [], time.monotonic)
        self.groups = PlacementGroups(self, self.scheduler)
        self._inquiries: Inquiries
        self._clients: dict[int, Client] = {}
        self.workers: dict[int, Worker] = {}
        self._spares: list[Spare] = []
        self._idle: dict[Shape, list[Worker]] = {}
        """Task workers without a lease, by shape; the last one used is the warmest."""
        self._leases: dict[tuple[int, int], Lease] = {}
        """Requests in the line, by client and number."""
        self._next_look: float | None = None
        self._door: Door | None = None
        self._records: deque[Message] = deque(maxlen=RECORDS_KEPT)
        """What workers that have ended had recorded for the timeline."""
        self._measured: list[Message] = []
        """What they had counted, added up."""
        self._deaths: dict[int, str] = {}
        self._mourners: dict[int, list[Callable[[], None]]] = {}
        """What to do when a process dies."""
        self._early: dict[int, list[tuple[Client, Message, socket.socket]]] = {}
        """Connections to actors whose creation has not come through yet."""
        self._surveys: dict[int, Survey] = {}
        """Questions that are under way, by ticket."""
        self._tickets = itertools.count(1).__next__
        self._driver = Client(self, 0, driver)

    def run(self) -> NoReturn:
        self._driver.tell("warm")
        while not self.done:
            self._wait_for_work(self.reactor.next_timer())
            self.reactor.run_timers()
        self._end_workers()
        if self._door is not None:
            self._door.close()
        os._exit(0)

    def _open_door(self, places: list[str]) -> None:
        """Let this user's commands in, and tidy up behind runtimes that were killed. The runtime works without, too."""
        try:
            self._door = Door(self.reactor, places, self._inquiries.visit)
        except OSError as error:
            logger.debug("No command can look into this runtime: %s", error)
        rundir.remove_dead()

    def _wait_for_work(self, timer: float | None) -> None:
        """Dispatch what comes, until the first timer is due or another one is to come before it."""
        self.reactor.block(lambda: self.done or self.reactor.next_timer() != timer, timer)

    def handle(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """One message from a process; dispatched on its verb."""
        handler: Callable[[Client, Message, list[socket.socket]], None] = getattr(self, f"_on_{message['verb']}")
        failpoint(f"head.before_{message['verb']}")
        handler(client, message, socks)
        failpoint(f"head.after_{message['verb']}")

    # Life of the runtime

    def _on_hello(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        self._runtime = message["runtime"]
        self.scheduler = Scheduler(message["resources"], message["gpus"], time.monotonic)
        self.groups = PlacementGroups(self, self.scheduler)
        self._inquiries = Inquiries(self, message, os.getppid())
        self.reactor.call_at(time.monotonic() + SETTLED, lambda: self._open_door(message["doors"]))
        self._environment: str = message["environment"]
        client.process = message["process"]
        self._clients[client.process] = client
        self.reactor.call_at(time.monotonic(), self._refill)

    def client_lost(self, client: Client) -> None:
        self._clients.pop(client.process, None)
        broken = client.link.broken
        if client is self._driver:
            if broken:
                logger.error("klieg's head could not go on: %s", broken)
            self.done = True
            return
        worker = self.workers.get(client.process)
        if worker is not None:  # dead already, or as good as: nobody can reach it any more
            self._end(worker, f"its connection to the head broke: {broken}" if broken else "")

    def _end_workers(self) -> None:
        pids = [*(worker.pid for worker in self.workers.values()), *(spare.pid for spare in self._spares)]
        for pid in pids:
            end_group(pid)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    # Actors

    def _on_reserve(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        placement = Placement.load(message["placement"])
        impossible = self.scheduler.why_never(placement.demand, placement.place)
        if impossible:
            gone = self.groups.is_gone(placement.place)
            client.answer(message["request"], impossible=impossible, group_removed=gone)
        elif message["name"] and not self.registry.reserve((message["namespace"], message["name"]), message["actor"]):
            client.answer(message["request"], taken=True)
        else:
            client.answer(message["request"])

    def _on_create(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        actor = ActorRecord(message["actor"], message, message["max_restarts"])
        self.registry.add(actor)
        if message["hooked"]:
            self._driver.tell("hooked")
        actor.waiting.append((message["owner"], socks[0], None))
        actor.process = message["process"]
        self._ask_to_place(actor)
        for waiting in self._early.pop(actor.number, []):
            self._connect_actor(*waiting)

    def _ask_to_place(self, actor: ActorRecord) -> None:
        placement = actor.placement
        grant = self.scheduler.request(placement.demand, actor, placement.place, caller=actor.number)
        if grant is None:
            self.somebody_waits()
        else:
            self._place(actor, grant)

    def _place(self, actor: ActorRecord, grant: Grant) -> None:
        """Give the actor, whose resources are taken, a process, and that process the connections that wait for it."""
        waiting, actor.waiting = actor.waiting, []
        callers = [(process, sock) for process, sock, _ in waiting]
        worker = self._employ(actor.process, actor.request["title"], actor, _shape_of(actor.placement), grant, callers)
        if isinstance(worker, str):
            self.settle(self.scheduler.release(grant))
            self._bury(actor, worker)
            return
        actor.become(ActorState.ALIVE)
        for _, sock, then in waiting:
            sock.close()
            if then is not None:
                then()

    def _connect_actor(self, client: Client, message: Message, sock: socket.socket) -> None:
        actor = self.registry.get(message["actor"])
        if actor is None:
            self._connect_early(client, message, sock)
        elif actor.state is ActorState.DEAD:
            sock.close()
            client.answer(message["request"], dead=actor.death, init_failed=actor.init_failed)
        elif actor.state is ActorState.ALIVE:
            self._introduce(actor.process, client.process, sock)
            client.answer(message["request"], process=actor.process)
        else:
            actor.waiting.append(
                (client.process, sock, lambda: client.answer(message["request"], process=actor.process))
            )

    def _connect_early(self, client: Client, message: Message, sock: socket.socket) -> None:
        """The handle was faster than the news of the actor's creation, unless its creator is dead."""
        if process_of(message["actor"]) in self._clients:
            self._early.setdefault(message["actor"], []).append((client, message, sock))
        else:
            sock.close()
            client.answer(message["request"], dead="The actor is not known in this runtime; its creator died.")

    def _on_connect(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        if "actor" in message:
            self._connect_actor(client, message, socks[0])
        else:
            self._introduce(message["process"], client.process, socks[0])

    def _introduce(self, process: int, caller: int, sock: socket.socket) -> None:
        """Hand one end of a connection to `process`; if it is gone, the caller sees the end of file."""
        target = self._clients.get(process)
        if target is None:
            sock.close()
        else:
            target.tell("peer", [sock.detach()], process=caller)

    def _on_kill(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        actor = self.registry.get(message["actor"])
        if actor is not None and actor.state is not ActorState.DEAD:
            self.kill_actor(actor, message["reason"], message.get("no_restart", True))
        if "request" in message:
            client.answer(message["request"])

    def kill_actor(self, actor: ActorRecord, reason: str, no_restart: bool) -> None:
        worker = self.workers.get(actor.process) if actor.state is ActorState.ALIVE else None
        if worker is not None:
            worker.leaving = worker.leaving or reason
            worker.no_restart = worker.no_restart or no_restart
            if no_restart:
                self._bury(actor, reason)
            end_group(worker.pid)
        elif no_restart:
            self.scheduler.withdraw(actor)
            self._bury(actor, reason)

    def _bury(self, actor: ActorRecord, reason: str) -> None:
        self.registry.bury(actor, reason)
        waiting, actor.waiting = actor.waiting, []
        for _, sock, then in waiting:
            sock.close()
            if then is not None:
                then()

    def _on_leaving(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        worker = self.workers.get(client.process)
        if worker is not None:
            worker.leaving = worker.leaving or message["reason"]
            worker.init_failed = message["init_failed"]
            worker.no_restart = True

    def _on_resized(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """An actor's limits were changed: the next process of it starts with these."""
        worker = self.workers.get(client.process)
        if worker is not None and worker.actor is not None:
            worker.actor.request["facts"].setdefault("resized", {}).update(message["limits"])

    def _on_farewell(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """The driver is about to end: let the actors that have a shutdown hook leave by it, and say when they have."""
        leaving = {w.process for w in self.workers.values() if w.actor is not None and w.actor.request["hooked"]}

        def answer() -> None:
            client.answer(message["request"])

        def gone(process: int) -> None:
            leaving.discard(process)
            if not leaving:
                answer()

        for process in list(leaving):
            self._mourners.setdefault(process, []).append(functools.partial(gone, process))
            worker = self._clients.get(process)
            if worker is not None:
                worker.tell("farewell", reason="The actor is dead because `klieg.shutdown()` was called.")
        if leaving:
            self.reactor.call_at(time.monotonic() + message["timeout"], answer)
        else:
            answer()

    def _on_find(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        actor = self.registry.find((message["namespace"], message["name"]))
        if actor is None:
            client.answer(message["request"])
        else:
            client.answer(message["request"], actor=actor.number, info=actor.request["info"])

    def _on_names(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        client.answer(message["request"], names=self.registry.names())

    # Tasks

    def _on_lease(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        placement = Placement.load(message["placement"])
        lease = Lease(client, message["request"], placement, _shape_of(placement, message["width"]))
        impossible = self.scheduler.why_never(placement.demand, placement.place)
        if impossible:
            client.answer(lease.request, impossible=impossible, group_removed=self.groups.is_gone(placement.place))
            return
        grant = self.scheduler.request(placement.demand, lease, placement.place, client.process, short=True)
        if grant is not None:
            self._grant(lease, grant)
        else:
            self._leases[client.process, lease.request] = lease
            self.somebody_waits()

    def _grant(self, lease: Lease, grant: Grant) -> None:
        """Give the lessee, whose resources are taken, a worker."""
        self._leases.pop((lease.client.process, lease.request), None)
        lessee = lease.client.process
        idle = [] if grant.gpus else self._idle.setdefault(lease.shape, [])
        if idle and lessee in idle[-1].met:
            worker: Worker | str = idle.pop()
            fds = []
        else:
            try:
                ours, theirs = socket_pair()
            except OSError as error:
                self._refuse(lease, grant, str(error))
                return
            worker = self._worker_for(lease, grant, idle, theirs)
            fds = [ours.detach()]
        if isinstance(worker, str):
            os.close(fds[0])
            self._refuse(lease, grant, worker)
            return
        worker.lessee, worker.grant, worker.wanted = lessee, grant, False
        worker.met.add(lessee)
        lease.client.answer(lease.request, fds, process=worker.process)

    def _worker_for(self, lease: Lease, grant: Grant, idle: list[Worker], theirs: socket.socket) -> Worker | str:
        """A worker that the lessee has not met, idle or new, with its end of their connection."""
        lessee = lease.client.process
        if idle:
            self._introduce(idle[-1].process, lessee, theirs)
            return idle.pop()
        worker = self._employ(new_process_number(), "task", None, lease.shape, grant, [(lessee, theirs)])
        theirs.close()
        return worker

    def _refuse(self, lease: Lease, grant: Grant, why: str) -> None:
        self.settle(self.scheduler.release(grant))
        lease.client.answer(lease.request, impossible=why)

    def settle(self, granted: list[tuple[Any, Grant | None]]) -> None:
        """Serve those who have what they waited for; look again when the scheduler wants to."""
        for item, grant in granted:
            if grant is None:
                self.groups.placed(item)
            elif isinstance(item, Lease):
                self._grant(item, grant)
            else:
                self._place(item, grant)
        moment = self.scheduler.next_look()
        if moment is not None and moment != self._next_look:
            self._next_look = moment
            self.reactor.call_at(moment, lambda: self.settle(self.scheduler.look()))

    def fail_waiting(self, item: ActorRecord | Lease, reason: str) -> None:
        """What the item waits for will never come."""
        if isinstance(item, Lease):
            self._leases.pop((item.client.process, item.request), None)
            item.client.answer(item.request, impossible=reason, group_removed=True)
        else:
            self._bury(item, f"The actor is dead because {reason}")

    def end_all_in(self, group: int, reason: str) -> None:
        """End what runs in a placement group."""
        for worker in list(self.workers.values()):
            if worker.grant is None or worker.grant.place is None or worker.grant.place[0] != group:
                continue
            if worker.actor is not None:
                self.kill_actor(worker.actor, f"The actor is dead because {reason}", no_restart=True)
            else:
                self._end(worker, reason)

    def _on_give_back(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        worker = self.workers.get(message["process"])
        if worker is None or worker.lessee != client.process:
            return
        worker.lessee = 0
        if message["worn"] or (worker.grant is not None and worker.grant.gpus):
            self._retire(worker, "it has run as many calls as it may")  # which keeps its resources until it is gone
            return
        self._idle.setdefault(worker.shape, []).append(worker)
        self._release(worker)
        self._thin_out(worker.shape)

    def _thin_out(self, shape: Shape) -> None:
        """Keep few idle workers with environments of their own: each other one is of no use to most calls."""
        special = [w for s, workers in self._idle.items() if s.environment != self._environment for w in workers]
        if shape.environment != self._environment and len(special) > SPECIAL_KEPT:
            oldest = special[0]
            self._idle[oldest.shape].remove(oldest)
            self._retire(oldest, "its environment was not needed any more")

    def _retire(self, worker: Worker, reason: str) -> None:
        """Have the worker end by itself; it is not to be used again."""
        worker.leaving = reason
        client = self._clients.get(worker.process)
        if client is not None:
            client.tell("leave", reason=worker.leaving)
        self.reactor.call_at(time.monotonic() + LEAVE_WITHIN, lambda: self._end_if_there(worker))

    def _end_if_there(self, worker: Worker) -> None:
        if self.workers.get(worker.process) is worker:
            end_group(worker.pid)

    def _on_withdraw(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        lease = self._leases.pop((client.process, message["lease"]), None)
        if lease is not None:
            self.scheduler.withdraw(lease)
            client.answer(lease.request, withdrawn=True)

    def somebody_waits(self) -> None:
        """Whoever holds workers is to give them back: idle ones now, others after a while."""
        held = [worker for worker in self.workers.values() if worker.lessee and not worker.wanted]
        for process in {worker.lessee for worker in held}:
            lessee = self._clients.get(process)
            if lessee is not None:
                lessee.tell("wanted")
        for worker in held:
            worker.wanted = True

    def _release(self, worker: Worker) -> None:
        """The worker no longer needs its resources."""
        grant, worker.grant = worker.grant, None
        if grant is not None:
            self.settle(self.scheduler.release(grant))

    def _on_blocked(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        worker = self.workers.get(client.process)
        if worker is not None and worker.grant is not None:
            self.settle(self.scheduler.lend(worker.grant))

    def _on_unblocked(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        worker = self.workers.get(client.process)
        if worker is not None and worker.grant is not None:
            self.scheduler.reclaim(worker.grant)

    def _on_end_worker(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        worker = self.workers.get(message["process"])
        if worker is not None:
            self._end(worker, message.get("reason", ""))

    def _end(self, worker: Worker, reason: str) -> None:
        """Kill a worker; `reason` is what is then said of its death, if it has not said why it leaves."""
        worker.leaving = worker.leaving or reason
        end_group(worker.pid)

    def _on_table(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        client.answer(message["request"], rows=self._inquiries.table(message["of"]))

    def _on_resources(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        client.answer(message["request"], total=self.scheduler.total(), free=self.scheduler.free())

    # Questions

    def _on_survey(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        wanted = message.get("processes")
        asked = [c for c in self._clients.values() if c is not client and (wanted is None or c.process in wanted)]
        self.survey(
            asked,
            message,
            lambda replies, silent: client.answer(message["request"], replies=replies, silent=silent),
        )

    def survey_all(self, message: Message, then: Callable[[list[Any], list[Message]], None]) -> None:
        """Ask every process, the driver too, and call `then(replies, silent)` once."""
        self.survey(list(self._clients.values()), message, then)

    def survey(self, clients: list[Client], message: Message, then: Callable[[list[Any], list[Message]], None]) -> None:
        """Ask these processes; done when they have all answered, or when the time is up."""
        ticket = self._tickets()

        def answer(replies: list[Any], silent: list[Message]) -> None:
            del self._surveys[ticket]
            then([*replies, *self._left_behind(message["question"])], silent)

        self._inquiries.note_recording(message)
        explain = message.get("explain", True)
        survey = self._surveys[ticket] = Survey(self.reactor, message["timeout"], answer, explain=explain)
        for client in clients:
            worker = self.workers.get(client.process)
            survey.ask(client, worker, ticket, message["question"], message.get("details"))
        survey.begin()

    def _on_reply(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        survey = self._surveys.get(message["ticket"])
        if survey is not None:
            survey.take(client.process, message["reply"])

    def _on_record(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """A worker ends, and leaves what it has recorded for the timeline."""
        self._records.append(message["record"])

    def _on_log(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """A log record of a worker, for the driver's handlers."""
        self._driver.tell("log", record=message["record"])

    def _on_measured(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """A worker ends, and leaves what it has counted."""
        self._measured = measurements.added_up([*self._measured, *message["metrics"]])

    def _left_behind(self, question: str) -> list[Message]:
        """What workers that have ended would have answered."""
        if question == "metrics":
            return [{"pid": 0, "metrics": self._measured}]
        return list(self._records) if question == "timeline" else []

    # Birth and death

    def _on_group(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        request, group, want = message["request"], message.get("group", 0), message["want"]
        if want == "create":
            client.answer(request, **self.groups.create(group, message, client.process))
            self.somebody_waits()
        elif want == "ready":
            self.groups.when_ready(group, lambda answer: client.answer(request, **answer))
        elif want == "remove":
            self.groups.remove(group)
            client.answer(request)
        else:
            client.answer(request, groups=self.groups.table())

    def _employ(
        self,
        process: int,
        title: str,
        actor: ActorRecord | None,
        shape: Shape,
        grant: Grant,
        callers: list[tuple[int, socket.socket]],
    ) -> Worker | str:
        """A new worker, told what it is and who will call it; or why there is none."""
        try:
            spare = self._spares.pop() if self._spares else self._start_spare()
        except OSError as error:
            return f"no worker process could be started: {error.strerror}{_REMEDIES.get(error.errno or 0, '')}"
        worker = spare.worker = self.workers[process] = Worker(
            process, spare.pid, title, actor, shape, self.ledger.open_line(process), grant
        )
        client = self._clients[process] = Client(self, process, spare.sock)
        client.tell(
            "assign",
            runtime=self._runtime,
            process=process,
            title=title,
            width=shape.width,
            threads=shape.threads,
            gpus=grant.gpus,
            environment=shape.environment,
            actor=actor.request["facts"] if actor is not None else None,
            holds_resources=bool(grant.need),
            line=worker.line,
        )
        for caller, sock in callers:
            self._introduce(process, caller, sock)
        self.reactor.call_at(time.monotonic(), self._refill)
        return worker

    def _start_spare(self) -> Spare:
        if descriptors_left() < DESCRIPTORS_KEPT:
            raise OSError(errno.EMFILE, no_descriptors_left("a worker was asked of a head"))
        ours, theirs = socket_pair()
        try:
            pid = fork(theirs, self.ledger)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        spare = Spare(pid, ours)
        Watched(self.reactor, pid, lambda exit: self._process_died(spare, exit))
        return spare

    def _refill(self) -> None:
        """Have processes ready before they are asked for: to fork one costs more than all else of an actor's start."""
        with contextlib.suppress(OSError):  # the machine refuses: whoever needs one is told
            while len(self._spares) < SPARES and not self.done:
                self._spares.append(self._start_spare())

    def _process_died(self, spare: Spare, exit: Exit) -> None:
        if spare.worker is not None:
            self._worker_died(spare.worker, exit)
        elif spare in self._spares:
            self._spares.remove(spare)
            spare.sock.close()

    def _worker_died(self, worker: Worker, exit: Exit) -> None:
        del self.workers[worker.process]
        self.ledger.close_line(worker.line)
        client = self._clients.pop(worker.process, None)
        if client is not None:
            client.link.close()
        if worker in self._idle.get(worker.shape, []):
            self._idle[worker.shape].remove(worker)
        self._remember_death(worker.process, worker.leaving or str(exit))
        for lease in [lease for lease in self._leases.values() if lease.client.process == worker.process]:
            del self._leases[worker.process, lease.request]
            self.scheduler.withdraw(lease)
        if worker.actor is not None:
            self._actor_lost(worker.actor, worker, exit)
        self._release(worker)
        self._orphans(worker.process)
        for survey in list(self._surveys.values()):
            survey.lost(worker.process)
        for tell in self._mourners.pop(worker.process, []):
            tell()

    def _remember_death(self, process: int, why: str) -> None:
        self._deaths[process] = why
        if len(self._deaths) > DEATHS_KEPT:
            del self._deaths[next(iter(self._deaths))]

    def _orphans(self, process: int) -> None:
        """What ends with the process that made it: actors it created, tasks it has sent."""
        for actor in self.registry.owned_by(process):
            self.kill_actor(actor, "The actor is dead because its owner, the process that created it, died.", True)
        for worker in self.workers.values():
            if worker.lessee == process:
                end_group(worker.pid)
        self.groups.forget_owner(process)
        for number in [n for n in self._early if process_of(n) == process]:
            for client, message, sock in self._early.pop(number):
                self._connect_early(client, message, sock)

    def _actor_lost(self, actor: ActorRecord, worker: Worker, exit: Exit) -> None:
        """Its process has died: for good, or to be started again."""
        if actor.state is ActorState.DEAD:
            return
        why = worker.leaving or str(exit)
        if worker.no_restart or not actor.restarts_left:
            actor.init_failed = worker.init_failed
            self._bury(actor, why if worker.leaving else f"The actor died: {why}.")
            return
        actor.restarts_left -= actor.restarts_left > 0
        actor.restarts += 1
        actor.become(ActorState.RESTARTING)
        actor.process = new_process_number()
        now = time.monotonic()
        self.reactor.call_at(now + actor.pace.pause(now), lambda: self._restart(actor))

    def _restart(self, actor: ActorRecord) -> None:
        if actor.state is ActorState.RESTARTING:
            self._ask_to_place(actor)

    def _on_why(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """How did that process die? Answered once it has."""
        process = message["process"]
        worker = self.workers.get(process)
        if worker is not None:
            self._mourners.setdefault(process, []).append(lambda: self._on_why(client, message, socks))
            self.reactor.call_at(time.monotonic() + DYING, lambda: self._end_undead(worker))
            return
        why = self._deaths.get(process, "its process is gone")
        actor = self.registry.get(message.get("actor", 0))
        if actor is None:
            client.answer(message["request"], dead=why)
        elif actor.state is ActorState.DEAD:
            client.answer(message["request"], dead=actor.death, init_failed=actor.init_failed)
        else:
            client.answer(message["request"], restarting=why)

    def _end_undead(self, worker: Worker) -> None:
        """Connections end only by death. Whoever closes one and lives on can no longer be reached by the other side."""
        if self.workers.get(worker.process) is worker:
            self._end(worker, UNDEAD)

    def _on_watch(self, client: Client, message: Message, socks: list[socket.socket]) -> None:
        """Tell the client when that process is dead."""

        def tell() -> None:
            client.answer(message["request"])

        if message["process"] in self._clients:
            self._mourners.setdefault(message["process"], []).append(tell)
        else:
            tell()


def _shape_of(placement: Placement, width: int = 1) -> Shape:
    return Shape(width, max(1, int(placement.demand.get("CPU", 1))), placement.environment)


def main(fd: int, ledger: int) -> NoReturn:
    """What the driver starts: `fd` is its end of the line to the driver, `ledger` the store's ledger."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    # Workers are forked from here: whatever they all need is imported once, now.
    import klieg.engines.local.worker  # noqa: F401

    output.install()
    page = Ledger(ledger)
    os.close(ledger)
    Head(socket.socket(fileno=fd), page).run()
