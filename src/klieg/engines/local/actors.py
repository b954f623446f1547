"""The caller's channel to one actor: connects through the head, sends, and sorts things out when the process dies.

    unconnected ──connect──► connected ──end of file──► unconnected (the head says: restarting, or dead) ──► dead

Only the creator can start the actor's code: it keeps the class and the arguments, and sends them to every new process
of the actor. The head holds neither.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from klieg.engines import failures
from klieg.engines.calls import Channel, OutgoingCall, cancelled_error
from klieg.engines.functions import Exported
from klieg.engines.local import wire
from klieg.engines.local.connection import socket_pair
from klieg.engines.local.peer import Peer, Pending
from klieg.exceptions import ActorDiedError, ActorUnavailableError

if TYPE_CHECKING:
    from klieg.engines.local.engine import LocalEngine


class ActorChannel(Channel):
    """The calls of this process to one actor of the local engine."""

    def __init__(self, engine: LocalEngine, number: int, name: str, strict: bool) -> None:
        super().__init__(strict)
        self.engine = engine
        self.number = number
        self.name = name
        self.peer: Peer | None = None
        self.death: BaseException | None = None
        self._backlog: deque[OutgoingCall] = deque()
        """Calls that wait for a connection, in order."""
        self._line: Peer | None = None
        """The connection to its process, whether calls may be sent on it yet or not."""
        self._questions: list[tuple[int, bytes, Pending]] = []
        """What is to be asked on the next connection."""
        self._connecting = False
        self._constructor: tuple[OutgoingCall, Exported] | None = None
        """For the creator: how to start the actor's code in a new process."""

    # Calls

    @property
    def target(self) -> str:  # type: ignore[override]  # read-only here
        return f"Actor({self.name}, {self._hex()})"

    def unsent(self) -> list[tuple[OutgoingCall, str]]:
        with self._lock:
            waiting = [(call, "waits for the actor to start, or to come back") for call in self._backlog]
        return [*super().unsent(), *waiting]

    def send(self, call: OutgoingCall) -> None:
        peer = self.peer
        if peer is not None and not self._backlog:
            peer.send_call(call)
        else:
            self._send_later(call)

    def _send_later(self, call: OutgoingCall) -> None:
        with self._lock:
            if self.death is None:
                self._backlog.append(call)
                if self.peer is not None:
                    self._drain()
                elif not self._connecting:
                    self._connect()
                return
        call.fail(self.death)

    def _drain(self) -> None:
        """Send the backlog; a call leaves it only after it was sent, so that nobody can overtake it."""
        while self._backlog and self.peer is not None:
            call = self._backlog[0]
            self.peer.send_call(call)
            if self._backlog and self._backlog[0] is call:  # else the connection was lost, and all of it was settled
                self._backlog.popleft()

    def cancel_held(self, call: OutgoingCall, error: BaseException) -> bool:
        if super().cancel_held(call, error):
            return True
        with self._lock:
            if call not in self._backlog or call.peer is not None:
                return False
            self._backlog.remove(call)
        call.fail(error)
        return True

    def ask(self, kind: int, body: bytes, pending: Pending) -> None:
        """Ask the actor's process something that is no call; the answer comes to `pending`."""
        with self._lock:
            line = self._line
            if self.death is None and line is None:
                self._questions.append((kind, body, pending))
                if not self._connecting:
                    self._connect()
                return
        if self.death is not None:
            pending.fail(self.death)
        elif line is not None:
            line.ask(kind, body, pending)

    # The connection

    def create(self, call: OutgoingCall, cls: Exported, process: int, request: dict[str, Any]) -> None:
        """Ask the head for a process, and send it the constructor as soon as its arguments are there."""
        self._constructor = (call, cls)
        ours, theirs = socket_pair()
        self.peer = None
        self._connecting = True  # calls wait in the backlog until the constructor has been sent
        self._line = peer = self.engine.add_peer(process, ours)
        peer.users.add(self)
        self.engine.head.tell("create", [theirs.detach()], actor=self.number, process=process, **request)
        if call.when_ready(lambda ready: self._construct(peer, False)):
            self._construct(peer, False)

    def _construct(self, peer: Peer, restarted: bool) -> None:
        assert self._constructor is not None
        call, cls = self._constructor
        failed = call.failed_dependency()
        if failed is not None:
            failed.unread = False
            self._die(_init_failed(self, failures.loads(failed.payload)))
            self.engine.head.tell("kill", actor=self.number, reason=str(self.death))
            return
        peer.send_constructor(self.engine.next_number(), call, cls, restarted)
        self._connected(peer)

    def _connected(self, peer: Peer) -> None:
        with self._lock:
            self._connecting = False
            self.peer = peer
            self._drain()

    def _connect(self) -> None:
        """Ask the head for a connection; a dead or restarting actor is its answer, too."""
        self._connecting = True
        try:
            ours, theirs = socket_pair()
        except OSError as error:
            self._refuse_backlog(error)
            return
        self.engine.head.request(
            "connect", lambda answer, _: self._answered(answer, ours), [theirs.detach()], actor=self.number
        )

    def _refuse_backlog(self, error: OSError) -> None:
        """There is no connection for those who wait for one now; the next call tries again."""
        refused = list(self._backlog)
        self._backlog.clear()
        self._connecting = False
        for call in refused:
            call.fail(error)

    def _answered(self, answer: dict[str, Any], ours: Any) -> None:
        if "process" in answer:
            peer = self.engine.add_peer(answer["process"], ours)
            peer.users.add(self)
            with self._lock:
                self._line = peer
                questions, self._questions = self._questions, []
            for question in questions:
                peer.ask(*question)
            if self._constructor is not None:
                self._construct(peer, restarted=True)
            else:
                self._connected(peer)
            return
        ours.close()
        self._die(self._death_of(answer))

    def _death_of(self, answer: dict[str, Any]) -> BaseException:
        if "lost" in answer:
            return self.engine.gone()
        return ActorDiedError(answer["dead"], f"{self.number & (1 << 128) - 1:032x}", answer.get("init_failed", False))

    def peer_lost(self, peer: Peer, unfinished: list[OutgoingCall]) -> None:
        """The actor's process has died: find out why, then settle what was under way."""
        with self._lock:
            if self.peer is peer:
                self.peer = None
            if self._line is peer:
                self._line = None
        if self.death is not None:
            self._settle(unfinished, self.death, None)
            return
        self.engine.head.request(
            "why", lambda answer, _: self._explained(answer, unfinished), actor=self.number, process=peer.process
        )

    def _explained(self, answer: dict[str, Any], unfinished: list[OutgoingCall]) -> None:
        if "restarting" in answer:
            error = ActorUnavailableError(
                f"The actor {self.name} is being restarted: {answer['restarting']}", self._hex()
            )
            self._settle(unfinished, error, answer)
            with self._lock:
                # Told late, perhaps, of a process whose successor we have met already: it must not be made twice.
                reconnect = (
                    self._line is None
                    and not self._connecting
                    and (self._constructor is not None or bool(self._backlog or self._questions))
                )
                if reconnect:
                    self._connect()
            return
        death = self._death_of(answer)
        self._die(death)
        self._settle(unfinished, death, None)

    def _settle(self, calls: list[OutgoingCall], error: BaseException, restarting: dict[str, Any] | None) -> None:
        """What was under way when the process died: again, for calls that may be retried; else it failed."""
        again = []
        for call in calls:
            if restarting is not None and call.retries:
                call.retries -= call.retries > 0
                call.peer = None
                again.append(call)
            elif restarting is not None and call.cancelled:
                call.fail(cancelled_error(call.spec))
            else:
                call.fail(error)
        if again:
            with self._lock:
                self._backlog.extendleft(reversed(again))

    def _die(self, death: BaseException) -> None:
        with self._lock:
            if self.death is None:
                self.death = death
            backlog = list(self._backlog)
            self._backlog.clear()
            self._connecting = False
            questions, self._questions = self._questions, []
        for call in backlog:
            call.fail(death)
        for _, _, pending in questions:
            pending.fail(death)
        self.fail_held(lambda: death)
        self._constructor = None

    def kill(self, no_restart: bool, reason: str) -> None:
        """Dead at once from here, whatever the process still does."""
        if no_restart:
            self._die(ActorDiedError(reason, self._hex()))
            peer = self.peer
            if peer is not None:
                for call in peer.take_pending():
                    call.fail(self.death or ActorDiedError())
        self.engine.head.ask("kill", actor=self.number, reason=reason, no_restart=no_restart)

    def leave(self, reason: str) -> None:
        """Nobody names the actor any more: it goes when it has done what it was asked."""
        if self.peer is not None:
            self.peer.send(wire.EXIT, 0, reason.encode())
        elif self.death is None:
            self.engine.head.tell("kill", actor=self.number, reason=reason)
        self._constructor = None

    def _hex(self) -> str:
        return f"{self.number & (1 << 128) - 1:032x}"


def _init_failed(channel: ActorChannel, error: Exception) -> ActorDiedError:
    return ActorDiedError(
        f"The actor {channel.name} died because its constructor failed:\n{error}",
        channel._hex(),
        actor_init_failed=True,
    )
