"""What two processes say to each other on one connection: calls one way, outcomes the other, refs both ways."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from klieg.engines import failures
from klieg.engines.calls import OutgoingCall, StreamFuture
from klieg.engines.functions import Exported
from klieg.engines.local import wire
from klieg.engines.local.connection import Link
from klieg.engines.local.store.segment import Segment
from klieg.engines.objects import ObjectFuture
from klieg.exceptions import ObjectLostError
from klieg.ids import COUNTER_MASK
from klieg.outcome import Error, Outcome, Serialized, Value
from klieg.task import TaskSpec

if TYPE_CHECKING:
    import socket

    from klieg.concurrency.host import Host
    from klieg.engines.local.engine import LocalEngine


SPECS_KEPT: Final = 4096
"""Specs a caller remembers to have described. The peer keeps twice as many, so that none in use is forgotten there."""


class Pending(Protocol):
    """What waits for an outcome from the peer: a call, a fetch, a question."""

    def resolve(self, outcome: Outcome) -> None: ...
    def fail(self, error: BaseException) -> None: ...


class Runner(Protocol):
    """What carries out calls in a worker; the driver has none."""

    host: Host
    holds_resources: bool
    """True if the current call holds resources that it could give to others while it waits."""

    def spec(self, peer: Peer, number: int, body: bytes) -> None: ...
    def function(self, body: bytes) -> None: ...
    def construct(self, peer: Peer, number: int, body: bytes) -> None: ...
    def call(self, peer: Peer, number: int, body: bytes) -> None: ...
    def call_full(self, peer: Peer, number: int, body: bytes) -> None: ...
    def cancel(self, peer: Peer, number: int, body: bytes) -> None: ...
    def grant(self, peer: Peer, number: int, taken: int) -> None: ...
    def caller_lost(self, peer: Peer) -> None: ...
    def give_back_queue(self) -> None: ...
    def exit(self, reason: str) -> None: ...
    def end_soon(self, reason: str) -> None: ...
    def snapshot(self) -> list[dict[str, Any]]: ...
    def waits(self) -> list[dict[str, Any]]: ...
    def stats(self) -> dict[str, dict[str, int]]: ...
    def resize(self, limits: dict[str, int]) -> None: ...


class Peer:
    """Another process, and the connection to it."""

    def __init__(
        self,
        engine: LocalEngine,
        process: int,
        sock: socket.socket,
    ) -> None:
        self.engine = engine
        self.process = process
        self.pending: dict[int, Pending] = {}
        """What waits for an outcome, by number. Taking an entry out is the right to resolve it."""
        self.specs: dict[int, Any] = {}
        """Specs the peer has described, by its numbers."""
        self.users: set[Any] = set()
        """Channels that send on this connection, to be told when it is lost."""
        self._spec_numbers: dict[TaskSpec, int] = {}
        self._spec_count = 0
        self._describing = threading.Lock()
        self._functions: set[bytes] = set()
        self._segments: dict[int, Segment] = {}
        """Shared memory that the peer has introduced on this connection."""
        self._introduced: set[int] = set()
        """Shared memory whose descriptor the peer has been sent."""
        self._introducing = threading.Lock()
        self.link = Link(engine.reactor, sock, self._on_frames, self._on_close)
        self.link.can_miss_fds = True

    # Sending

    def send_call(self, call: OutgoingCall) -> None:
        """Send a call whose arguments are there; its outcome will come to `call.resolve`."""
        number = call.id & COUNTER_MASK
        pending = self.pending
        pending[number] = call
        call.peer = self
        spec = self._spec_numbers.get(call.spec)
        if spec is None:
            spec = self._describe(call.spec)
        payload = call.payload
        if type(payload) is bytes and call.dependencies is None and call.deadline is None:
            self.link.send(wire.call_frame(number, spec, payload), len(pending) == 1)
        else:
            self._send_full(wire.CALL_FULL, number, call, spec=spec)
        if self.link.closed:
            self.fail_pending(number)

    def send_constructor(self, number: int, call: OutgoingCall, cls: Exported, restarted: bool) -> None:
        self._send_full(wire.INIT, number, call, cls=cls, restarted=restarted)

    def _send_full(
        self, kind: int, number: int, call: OutgoingCall, cls: Exported | None = None, **fields: Any
    ) -> None:
        description = wire.Description(deadline=call.deadline, **fields)
        if cls is not None:
            description.fields["cls"] = description.blob(cls.data)
            description.fields["paths"] = sys.path
        description.fields["args"] = description.payload(call.payload)
        values = call.values() or []
        description.fields["values"] = [[place, description.payload(value)] for place, value in values]
        self._send_description(description, kind, number)

    def _describe(self, spec: TaskSpec) -> int:
        """Send the spec, and the function it names, before the first call of it."""
        with self._describing:
            if spec not in self._spec_numbers:
                self._send_spec(spec)
            return self._spec_numbers[spec]

    def _send_spec(self, spec: TaskSpec) -> None:
        if len(self._spec_numbers) >= SPECS_KEPT:
            self._spec_numbers.clear()
        fields: dict[str, Any] = {
            "name": spec.name,
            "method": spec.method,
            "num_returns": spec.num_returns,
            "group": spec.group,
            "run_in": spec.run_in,
            "backpressure": spec.backpressure,
        }
        if spec.function is not None:
            exported = self.engine.exports.function(spec.function)
            fields["function"] = exported.key.hex()
            fields["placement"] = spec.function.placement.dump()
            if exported.key not in self._functions:
                self._functions.add(exported.key)
                paths = json.dumps(sys.path).encode()
                body = exported.key + wire.SPEC_NUMBER.pack(len(paths)) + paths + exported.data
                self.link.send(wire.frame(wire.FUNCTION, 0, body))
        self._spec_count += 1
        self.link.send(wire.frame(wire.SPEC, self._spec_count, json.dumps(fields).encode()))
        self._spec_numbers[spec] = self._spec_count

    def send_payloads(self, number: int, payloads: list[Serialized], now: bool) -> None:
        """Answer a call with its value or values."""
        if len(payloads) == 1 and type(payloads[0]) is bytes:
            self.link.send(wire.frame(wire.VALUE, number, payloads[0]), now)
            return
        description = wire.Description()
        description.fields["values"] = [description.payload(p) for p in payloads]
        self._send_description(description, wire.VALUE_FULL, number)

    def send_error(self, number: int, payload: bytes, now: bool) -> None:
        self.link.send(wire.frame(wire.ERROR, number, payload), now)

    def send_item(self, number: int, index: int, payload: Serialized) -> None:
        if type(payload) is bytes:
            self.link.send(wire.item_frame(number, index, payload))
            return
        description = wire.Description(index=index)
        description.fields["values"] = [description.payload(payload)]
        self._send_description(description, wire.ITEM_FULL, number)

    def _send_description(self, description: wire.Description, kind: int, number: int) -> None:
        for named in [*description.named, *description.blocks]:
            self.engine.lend(named, self.process)
        segments = {block.segment.id: block.segment for block in description.blocks}
        if segments.keys() <= self._introduced:
            self.link.send(description.frame(kind, number), now=True)
        else:
            self._introduce(description, kind, number, segments)
        if self.link.closed:  # what was lent too late to be given back by the end of the connection
            self.engine.loans.forget_process(self.process)

    def _introduce(self, description: wire.Description, kind: int, number: int, segments: dict[int, Segment]) -> None:
        """Send the frame with the descriptors of the segments that are new to the peer, before any later frame."""
        with self._introducing:
            new = [segment for segment in segments.values() if segment.id not in self._introduced]
            frame = description.frame(kind, number, [(segment.id, segment.inode) for segment in new])
            self.link.send_with_fds(frame, [segment.fd for segment in new], owner=new)
            self._introduced.update(segment.id for segment in new)

    def retract(self, segment: int) -> None:
        """Tell the peer that no further frame will name the segment, unless it is introduced again."""
        with self._introducing:
            if segment in self._introduced:
                self._introduced.discard(segment)
                self.send(wire.RETRACT, 0, str(segment).encode(), now=False)

    def send(self, kind: int, number: int, body: bytes = b"", now: bool = True) -> None:
        self.link.send(wire.frame(kind, number, body), now)

    def ask(self, kind: int, body: bytes, pending: Pending) -> None:
        """Send a question; the answer comes to `pending`."""
        number = self.engine.next_number()
        self.pending[number] = pending
        self.send(kind, number, body)
        if self.link.closed:
            self.fail_pending(number)

    # Receiving

    def _on_frames(self, frames: list[wire.Frame]) -> None:
        pending = self.pending
        for kind, number, body in frames:
            if kind == wire.VALUE:
                waiting = pending.pop(number, None)
                if waiting is not None:
                    waiting.resolve(Value(body))
            else:
                handle = _HANDLERS.get(kind)
                if handle is None:
                    raise wire.WireError(f"a frame of the unknown kind {kind}")
                handle(self, number, body)

    def _value_full(self, number: int, body: bytes) -> None:
        reader = self.reader(body)
        payloads = [self.read_payload(reader, d) for d in reader.fields["values"]]
        waiting = self.pending.pop(number, None)
        if waiting is None:
            return
        if isinstance(waiting, OutgoingCall):
            self.engine.store.owns(payloads)
        if len(payloads) == 1:
            waiting.resolve(Value(payloads[0]))
        else:
            assert isinstance(waiting, OutgoingCall)
            waiting.resolve_each(payloads)

    def _error(self, number: int, body: bytes) -> None:
        waiting = self.pending.pop(number, None)
        if waiting is not None and not (isinstance(waiting, OutgoingCall) and self.engine.retry(waiting, body)):
            waiting.resolve(Error(body))

    def _item(self, number: int, body: bytes) -> None:
        (index,) = wire.INDEX.unpack_from(body)
        self._arrive(number, index, body[wire.INDEX.size :])

    def _item_full(self, number: int, body: bytes) -> None:
        reader = self.reader(body)
        (description,) = reader.fields["values"]
        payload = self.read_payload(reader, description)
        self.engine.store.owns([payload])
        self._arrive(number, reader.fields["index"], payload)

    def _arrive(self, number: int, index: int, payload: Serialized) -> None:
        call = self.pending.get(number)
        if isinstance(call, OutgoingCall):
            stream = call.futures[0]
            assert isinstance(stream, StreamFuture)
            stream.arrive(index, Value(payload))

    def _returned(self, number: int, body: bytes) -> None:
        call = self.pending.pop(number, None)
        if isinstance(call, OutgoingCall):
            call.channel.returned(call, self)

    def _spec(self, number: int, body: bytes) -> None:
        self._runner().spec(self, number, body)

    def _function(self, number: int, body: bytes) -> None:
        self._runner().function(body)

    def _init(self, number: int, body: bytes) -> None:
        self._runner().construct(self, number, body)

    def _call(self, number: int, body: bytes) -> None:
        self._runner().call(self, number, body)

    def _call_full(self, number: int, body: bytes) -> None:
        self._runner().call_full(self, number, body)

    def _cancel(self, number: int, body: bytes) -> None:
        self._runner().cancel(self, number, body)

    def _grant(self, number: int, body: bytes) -> None:
        self._runner().grant(self, number, wire.SIGNED.unpack(body)[0])

    def _exit(self, number: int, body: bytes) -> None:
        self._runner().exit(body.decode())

    def _stats(self, number: int, body: bytes) -> None:
        self.send_payloads(number, [pickle.dumps(self._runner().stats())], now=True)

    def _resize(self, number: int, body: bytes) -> None:
        try:
            self._runner().resize(json.loads(body))
        except ValueError as error:
            self.send_error(number, failures.dumps(error, "resize"), now=True)
        else:
            self.send_payloads(number, [failures.NOTHING], now=True)

    def _runner(self) -> Runner:
        runner = self.engine.runner
        if runner is None:
            raise wire.WireError("a call came to a process that runs none")
        return runner

    def _fetch(self, number: int, body: bytes) -> None:
        """A borrower wants the value: send it as soon as it is there."""
        future = self.engine.find_named(int(body))
        if not isinstance(future, ObjectFuture):
            self.send_error(number, failures.dumps(ObjectLostError(f"The value of {int(body):x} is gone."), ""), True)
            return
        future.want()
        future.add_callback(lambda done: self._send_outcome(number, done))

    def _send_outcome(self, number: int, future: ObjectFuture) -> None:
        outcome = future.outcome
        if isinstance(outcome, Error):
            outcome.unread = False
            assert isinstance(outcome.payload, bytes)
            self.send_error(number, outcome.payload, now=True)
        elif outcome is not None:
            self.send_payloads(number, [outcome.payload], now=True)

    def _make_room(self, number: int, body: bytes) -> None:
        """The peer needs room, and we hold memory of its own."""

        def answer(released: int) -> None:
            self.send_payloads(number, [pickle.dumps(released)], now=True)

        self.engine.give_room(int(body), answer, ask_borrowers=False)

    def _lent(self, number: int, body: bytes) -> None:
        """The peer has passed a ref of ours on to another process."""
        what, process = json.loads(body)
        self.engine.loans.change(what, process, 1)
        self.engine.watch_process(process)

    def _cancel_lent(self, number: int, body: bytes) -> None:
        """A borrower of a ref of ours wants its call to end."""
        what, force, recursive = json.loads(body)
        future = self.engine.find_named(what)
        if isinstance(future, ObjectFuture):
            self.engine.cancel(future, force, recursive)

    def _release(self, number: int, body: bytes) -> None:
        for what, count in json.loads(body):
            self.engine.loans.change(what, self.process, -count)

    def read_payload(self, reader: wire.Reader, description: Any) -> Serialized:
        return reader.payload(description, self._open_stored, self.engine.borrow)

    def _open_stored(self, described: dict[str, Any]) -> Any:
        return self.engine.open_buffer(described, self._segments)

    def reader(self, body: bytes) -> wire.Reader:
        """The reader of a full frame, whose descriptors have been taken in."""
        reader = wire.Reader(body)
        for number, inode in reader.fields.get("segments", ()):
            fds = self.link.fds
            try:
                if os.fstat(fds[0]).st_ino == inode:
                    self._segments[number] = self.engine.foreign.meet(number, fds.popleft())
                    continue
            except (IndexError, OSError):  # no room in the table of open files, or in the address space
                pass
            self.send(wire.MISSED, 0, str(number).encode())
        return reader

    def _retracted(self, number: int, body: bytes) -> None:
        self._segments.pop(int(body), None)

    def _missed(self, number: int, body: bytes) -> None:
        """The peer could not take the descriptor in: the next frame that names the segment brings it again."""
        with self._introducing:
            self._introduced.discard(int(body))

    # The end

    def fail_pending(self, number: int) -> None:
        """The connection was closed before this could be sent."""
        waiting = self.pending.pop(number, None)
        if waiting is not None:
            self.engine.undelivered(self, waiting)

    def take_pending(self) -> list[Pending]:
        taken = []
        while self.pending:
            try:
                taken.append(self.pending.popitem()[1])
            except KeyError:
                break
        taken.reverse()
        return taken

    def _on_close(self, why: str) -> None:
        self._segments.clear()
        self.engine.peer_lost(self)


_HANDLERS: Final[dict[int, Callable[[Peer, int, bytes], None]]] = {
    wire.CALL: Peer._call,
    wire.CALL_FULL: Peer._call_full,
    wire.INIT: Peer._init,
    wire.SPEC: Peer._spec,
    wire.FUNCTION: Peer._function,
    wire.VALUE_FULL: Peer._value_full,
    wire.ERROR: Peer._error,
    wire.ITEM: Peer._item,
    wire.ITEM_FULL: Peer._item_full,
    wire.RETURNED: Peer._returned,
    wire.GRANT: Peer._grant,
    wire.CANCEL: Peer._cancel,
    wire.EXIT: Peer._exit,
    wire.STATS: Peer._stats,
    wire.RESIZE: Peer._resize,
    wire.FETCH: Peer._fetch,
    wire.LEND: Peer._lent,
    wire.CANCEL_LENT: Peer._cancel_lent,
    wire.RELEASE: Peer._release,
    wire.RETRACT: Peer._retracted,
    wire.MISSED: Peer._missed,
    wire.MAKE_ROOM: Peer._make_room,
}
