"""An actor of the inline engine: the concurrency core on threads and loops of this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from klieg import session
from klieg.concurrency.call import CURRENT
from klieg.concurrency.host import Host, limits_of, mode_of
from klieg.concurrency.watchdog import Watchdog
from klieg.engines import failures
from klieg.engines.calls import Channel, OutgoingCall
from klieg.engines.inline.call import STOP_GRACE, InlineCall, nothing
from klieg.engines.loops import new_loop
from klieg.engines.objects import ActorToken, ObjectFuture
from klieg.engines.scheduler import Grant
from klieg.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
)
from klieg.ids import ActorID
from klieg.outcome import Error
from klieg.task import ActorSpec

if TYPE_CHECKING:
    from klieg.engines.inline.engine import InlineEngine


logger = logging.getLogger("klieg")

KILLED = "The actor is dead because it was killed by `klieg.kill`."


class InlineActor(Channel):
    """An actor in this process, and the channel to it."""

    @property
    def target(self) -> str:  # type: ignore[override]  # read-only here
        return f"Actor({self.spec.info.name}, {ActorID.from_int(self.id).hex()})"

    def __init__(self, engine: InlineEngine, number: int, spec: ActorSpec) -> None:
        options, info = spec.options, spec.info
        self.mode = mode_of(info.is_async, options.max_concurrency, info.groups)
        super().__init__(self.mode == "plain", options.max_pending_calls, options.on_full)
        self.engine = engine
        self.id = number
        self.spec = spec
        call = CURRENT.get()
        self.parent = call.host if call is not None and options.lifetime != "detached" else None
        """The host of the actor that created this one, and that it ends with."""
        self.limits = limits_of(info.is_async, options.max_concurrency, info.groups)
        self.restarts_left = options.max_restarts
        """-1: without end."""
        self.restarts = 0
        self.death: str | None = None
        self.init_failed = False
        self.grant: Grant | None = None
        """The resources that the actor holds, from one life to the next."""
        self._in_line = False
        """True once it has asked for them."""
        self._creation: OutgoingCall | None = None
        """What its constructor was called with, as long as it may be called again."""
        self._constructor: InlineCall | None = None
        session.capturing = session.capturing or options.placement.captures
        self.life = Life(self)
        self.host = self.life.host

    def construct(self, call: OutgoingCall) -> None:
        """Run the constructor once its arguments are there; calls that come before wait in the mailbox."""
        if self.restarts_left:
            self._creation = call
        inline = InlineCall(call, self.engine)
        inline.host = self.host
        self.engine.pending[call.id] = inline
        call.futures[0].add_callback(self._constructed)
        if call.when_ready(lambda _: self._begin(call, inline)):
            self._begin(call, inline)

    def _begin(self, call: OutgoingCall, inline: InlineCall) -> None:
        error = call.failed_dependency()
        if error is not None:
            error.unread = False
            inline.fail(failures.loads(error.payload))
            return
        with self.engine.lock:
            if inline.host is not self.host:
                return  # it was restarted before the arguments of this constructor were there
            self._constructor = inline
            is_ready, asks, self._in_line = self.grant is not None, not self._in_line, True
        if is_ready:
            self._run_constructor(inline)
        elif asks:
            self.engine.request(self.host.placement, self, caller=self.id)

    def start(self, grant: Grant) -> None:
        """The actor has its resources: its constructor may run, unless the actor is dead already."""
        with self.engine.lock:
            self.grant = grant
            is_dead = self.death is not None
            constructor = self._constructor
        if is_dead or constructor is None:
            self.engine.give_back(self)
        else:
            self._run_constructor(constructor)

    def _run_constructor(self, inline: InlineCall) -> None:
        assert self.grant is not None
        inline.host.gpus = self.grant.gpus
        inline.host.construct(lambda: self.spec.cls, inline)

    def _constructed(self, future: ObjectFuture) -> None:
        if isinstance(future.outcome, Error):
            future.outcome.unread = False
            self.init_failed = True
            error = failures.loads(future.outcome.payload)
            self.die(f"The actor {self.spec.info.name} died because its constructor failed:\n{error}")

    def send(self, call: OutgoingCall) -> None:
        host = self.host
        inline = InlineCall(call, self.engine, host.special(call.spec.method))
        inline.host = host
        self.engine.pending[call.id] = inline
        if self.death is not None:
            inline.fail(self.died())
        elif host is self.host:
            host.deliver(inline)
        else:  # it was restarted meanwhile
            self._carry_over(inline, KILLED)

    def died(self) -> ActorDiedError:
        return ActorDiedError(self.death or "", f"{self.id:032x}", self.init_failed)

    def die(self, reason: str) -> None:
        """End the actor now: what runs is abandoned, everything unfinished fails."""
        if self.death is None:
            self.death = reason
            self.engine.forget(self)
            for call in self._unfinished(self.host):
                call.fail(self.died())
            self.host.exit(reason)
            self.fail_held(self.died)
            self.life.stop()

    def restart(self, reason: str) -> bool:
        """End this life as `die` does and begin the next one, with a fresh state; False if there is none left."""
        with self.engine.lock:
            if self.death is not None or not self.restarts_left:
                return False
            self.restarts_left -= self.restarts_left > 0
            self.restarts += 1
            old, self.life = self.life, Life(self, restarted=True)
            self.host = self.life.host
        self.engine.end_children(old.host)
        for call in self._unfinished(old.host):
            self._carry_over(call, reason)
        old.host.exit(reason)
        old.stop()
        creation = self._creation
        assert creation is not None
        self.construct(self.engine.again(creation))
        return True

    def _unfinished(self, host: Host) -> list[InlineCall]:
        return [call for call in list(self.engine.pending.values()) if call.host is host]

    def _carry_over(self, inline: InlineCall, reason: str) -> None:
        """A call was in the hands of the life that has ended: make it again if its options say so."""
        call = inline.outgoing
        if not inline.claim() or call.channel is None:  # the constructor's: another one is called in its place
            return
        inline.let_go()
        if inline.cancelled is not None:
            call.fail(inline.cancelled)
        elif call.retries:
            call.retries -= call.retries > 0
            self.send(call)
        else:
            name = self.spec.info.name
            call.fail(ActorUnavailableError(f"The actor {name} is being restarted: {reason}", f"{self.id:032x}"))

    def left(self, reason: str) -> None:
        """It was told to leave and has nothing left to run."""
        if self.death is None:
            self.death = reason
            self.engine.forget(self)
            self.fail_held(self.died)

    def resize(self, limits: Mapping[str, int]) -> None:
        """Change limits, for the lives to come, too."""
        self.host.resize(limits)
        self.limits = {**self.limits, **limits}


class Life:
    """One life of an actor: its host, and the thread that runs its calls or its loop."""

    def __init__(self, actor: InlineActor, restarted: bool = False) -> None:
        engine, info = actor.engine, actor.spec.info
        self._actor = actor
        self.killed = False
        """True if it was ended by `kill`, which runs no hooks."""
        self._bell = threading.Semaphore(0)
        self.host = Host(
            info.name,
            actor.mode,
            actor.limits,
            wait=self._bell.acquire,
            look=nothing,
            wake=self._bell.release,
            start_thread=engine.start_thread,
            on_exit=self._on_exit,
            loop=new_loop() if actor.mode == "async" else None,
            own_loops=info.own_loops,
            new_loop=new_loop,
        )
        self._running_loop = self.host.loop
        self.host.token = ActorToken(actor.id, actor, None)
        self.host.info = info
        self.host.actor_name = actor.spec.options.name or ""
        self.host.placement = actor.spec.options.placement
        self.host.restarted = restarted
        Watchdog(self.host, engine.call_at, logger.warning, engine.settings.thresholds(), engine.ask_waits)
        engine.start_thread(self._run_loop if self.host.loop else self._run_main, f"klieg {info.name}")

    def _on_exit(self, reason: str) -> None:
        """The host was told to leave and has nothing left to run."""
        if self._actor.life is self:
            self._actor.left(reason)
        self.stop()

    def stop(self) -> None:
        self.host.main.stop()
        self.host.pool.stop()
        self.host.own_loops.stop()
        loop, self._running_loop = self._running_loop, None
        if loop is not None:  # once: a second stop would end the loop's own clearing up
            loop.stop()

    def _run_main(self) -> None:
        self.host.main.run()
        self._say_farewell()

    def _run_loop(self) -> None:
        assert self.host.loop is not None
        self.host.loop.run(STOP_GRACE, self._say_farewell)
        self.host.instance = None

    def _say_farewell(self) -> None:
        if not self.killed:
            self.host.say_farewell(STOP_GRACE)
        self.host.instance = None  # here, on the thread that has made it, and not when the collector comes by
