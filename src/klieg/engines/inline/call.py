"""One call of the inline engine: it comes from this process, and its outcome stays here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from klieg.concurrency.call import Call
from klieg.concurrency.generators import Stream
from klieg.engines import failures, serialization
from klieg.engines.calls import OutgoingCall, StreamFuture
from klieg.engines.returns import split_returns
from klieg.engines.scheduler import Grant
from klieg.engines.unpicklable import explain_value
from klieg.outcome import Error, Value

if TYPE_CHECKING:
    from klieg.engines.inline.engine import InlineEngine


STOP_GRACE = 1.0
"""Seconds that calls under way get to end at shutdown before their threads are abandoned."""


class InlineCall(Call):
    """A call whose caller is in the same process."""

    __slots__ = ("_claims", "grant", "outgoing", "pending", "release", "spreads")

    def __init__(self, outgoing: OutgoingCall, engine: InlineEngine, target: Callable[..., Any] | None = None) -> None:
        super().__init__(outgoing.id, engine.process, outgoing.spec, target)
        self.outgoing = outgoing
        self.deadline = outgoing.deadline
        self.pending = engine.pending
        self._claims = [True]
        self.spreads = False
        """True once it was cancelled together with what it calls."""
        self.release: Callable[[], None] = nothing
        """Gives back the resources that a task holds, or no longer waits for them."""
        self.grant: Grant | None = None
        """The resources that a task holds."""

    @property
    def gpus(self) -> list[str]:
        return super().gpus if self.grant is None else self.grant.gpus

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return serialization.loads_arguments(self.outgoing.payload, self.outgoing.values())

    def succeed(self, value: Any) -> None:
        try:
            payloads = split_returns(value, self.spec)
        except BaseException as error:
            self.fail(error)
            return
        if not self.claim():
            return
        self.let_go()
        if len(payloads) == 1:
            self.outgoing.resolve(Value(payloads[0]))
        else:
            self.outgoing.resolve_each(payloads)

    def fail(self, error: BaseException) -> None:
        if not self.claim():
            return
        failure = failures.dumps(error, self.spec.name)
        self.let_go()
        if self.outgoing.takes_another_try(failure):
            self.outgoing.channel.send(self.outgoing)
        else:
            self.outgoing.resolve(Error(failure))

    def let_go(self) -> None:
        """Give back what the call holds, and forget how: that function refers to the call."""
        release, self.release = self.release, nothing
        release()

    def claim(self) -> bool:
        """True once: a call is ended by its executor, by `kill` or by `shutdown`, whoever comes first."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        self.pending.pop(self.id, None)
        return True

    def open_stream(self) -> Stream:
        future = self.outgoing.futures[0]
        assert isinstance(future, StreamFuture)
        self.stream = stream = Stream(self._emit, self.spec.backpressure)
        future.grant = lambda taken: stream.close() if taken < 0 else stream.grant(taken)
        stream.grant(future.taken)
        if future.closed:
            stream.close()
        return stream

    def _emit(self, index: int, item: Any) -> None:
        try:
            payload = serialization.dumps(item)
        except Exception as error:
            raise explain_value(error, f"item {index} of {self.spec.name}()", item) from error
        future = self.outgoing.futures[0]
        assert isinstance(future, StreamFuture)
        future.arrive(index, Value(payload))


def nothing(*_: object) -> None:
    return
