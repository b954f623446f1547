"""A worker process: the runner of one actor, or of tasks, around the concurrency core.

    Peer ──► Runner.call ──► Host.deliver ──► executor ──► WireCall.succeed ──► Peer

Its main thread runs a plain actor's calls and all tasks, an async actor's loop, or waits while a pool works.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from klieg import engine as engines
from klieg import logs, measurements, propagation, session
from klieg.concurrency import recording
from klieg.concurrency.call import Call
from klieg.concurrency.generators import Stream
from klieg.concurrency.host import Host, has_hook, limits_of
from klieg.concurrency.loops import WatchedLoop
from klieg.concurrency.snapshot import snapshot_of
from klieg.concurrency.waits import waits_of
from klieg.concurrency.watchdog import Watchdog
from klieg.engines import failures, serialization
from klieg.engines.calls import cancelled_error, expired_error
from klieg.engines.functions import KEY_SIZE, Imports
from klieg.engines.local import wire
from klieg.engines.local.engine import LocalEngine
from klieg.engines.local.failpoints import ARMED, PLAN, failpoint
from klieg.engines.local.interrupts import InterruptTasks
from klieg.engines.local.loops import ActorSelector
from klieg.engines.local.output import show_warnings
from klieg.engines.local.peer import SPECS_KEPT, Peer
from klieg.engines.local.process import set_title
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.store.ledger import Account, Ledger
from klieg.engines.local.stuck import provide as provide_stacks
from klieg.engines.loops import new_loop
from klieg.engines.objects import ActorToken
from klieg.engines.returns import split_returns
from klieg.engines.surroundings import settle
from klieg.engines.unpicklable import explain_value
from klieg.exceptions import ObjectStoreFullError, TaskCancelledError
from klieg.outcome import Serialized
from klieg.placement import Placement
from klieg.runtime_env import RuntimeEnv
from klieg.settings import Settings
from klieg.task import ClassInfo, FunctionSpec, TaskSpec

FLUSH_EVERY: Final = 0.001
"""Seconds for which answers may be held back to be written together, while more calls are waiting."""

LOOK_EVERY: Final = 0.0005
"""Seconds between two looks at the sockets while one short call follows another."""

SHORT: Final = 50e-6
"""Seconds of a call behind which a look, at about one microsecond, would be noticed. To answer what such a call did,
another process takes longer (design measurements: 50-99 µs for two wake-ups across cores)."""

STUCK_AFTER: Final = 0.01
"""Seconds in one task after which those behind it are given back, to run elsewhere."""

EXIT_GRACE: Final = 1.0
"""Seconds that tasks left behind on an async actor's loop get to clean up when it exits."""

HOOK_GRACE: Final = 4.0
"""Seconds that a shutdown hook gets: less than the driver waits for it, so that a slow one is not cut off there."""

logger = logging.getLogger("klieg")


class WireCall(Call):
    """A call that came on a connection."""

    __slots__ = ("function", "off_loop", "payload", "peer", "runner", "values")

    def __init__(self, runner: Runner, peer: Peer, number: int, known: KnownSpec, payload: Serialized) -> None:
        super().__init__(number, peer.process, known.spec, known.target)
        self.runner = runner
        self.peer = peer
        self.function = known.function
        self.off_loop = known.off_loop
        self.payload: Serialized | None = payload
        self.values: list[tuple[int | str, Serialized]] | None = None

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.function is not None:
            self.target = self.runner.imports.load(self.function)
        payload, self.payload = self.payload, None
        values, self.values = self.values, None
        return serialization.loads_arguments(payload or b"", values)

    def succeed(self, value: Any) -> None:
        if ARMED:
            failpoint("worker.call_done")
        try:
            payloads = split_returns(value, self.spec, self.runner.engine.store.keep)
        except BaseException as error:
            self.fail(error)
            return
        if ARMED:
            _fail_at_the_answer(self.peer)
        self.peer.send_payloads(self.id, payloads, self.off_loop or self.runner.answer_now())
        if ARMED:
            self.peer.link.flush()
            failpoint("worker.result_sent")

    def fail(self, error: BaseException) -> None:
        self.peer.send_error(self.id, failures.dumps(error, self.spec.name), self.off_loop or self.runner.answer_now())

    def abandon(self, error: BaseException) -> None:
        """The caller learns of the exit from the head, once the process is gone and its name is free: soon, if nothing
        else runs here."""
        if self.runner.host.mailbox.running > 1:
            self.fail(error)

    def open_stream(self) -> Stream:
        block = None if self.runner.host.mode == "async" else self.runner.engine.reactor.block
        self.stream = Stream(self._emit, self.spec.backpressure, block)
        taken = self.runner.grants.pop((self.peer, self.id), 0)
        if taken < 0:
            self.stream.close()
        else:
            self.stream.grant(taken)
        return self.stream

    def _emit(self, index: int, item: Any) -> None:
        try:
            payload = serialization.dumps(item, self.runner.engine.store.keep)
        except ObjectStoreFullError:
            raise
        except Exception as error:
            raise explain_value(error, f"item {index} of {self.spec.name}()", item) from error
        self.peer.send_item(self.id, index, payload)


class ConstructorCall(WireCall):
    """The first call of an actor. If it fails, the process ends, and the head learns why."""

    __slots__ = ("cls",)

    def succeed(self, value: Any) -> None:
        """Nobody waits for it: the calls that come after it will tell."""
        failpoint("worker.after_init")

    def fail(self, error: BaseException) -> None:
        text = failures.format_traceback(error, self.spec.name)
        reason = f"The actor {self.runner.host.name} is dead because its constructor failed:\n{text}"
        self.runner.leave(reason, code=1, init_failed=True)


class KnownSpec:
    """A spec that a caller has described: what all its calls have in common."""

    __slots__ = ("function", "off_loop", "spec", "target")

    def __init__(self, fields: dict[str, Any], host: Host) -> None:
        self.function = bytes.fromhex(fields["function"]) if "function" in fields else None
        self.target = None if self.function else host.special(fields["method"])
        self.spec = TaskSpec(
            name=fields["name"],
            method=fields["method"],
            num_returns=fields["num_returns"],
            group=fields["group"],
            function=_described(fields) if self.function else None,
            run_in=fields["run_in"],
            backpressure=fields["backpressure"],
        )
        self.off_loop = host.mode == "async" and host.runs_off_loop(self.spec)


def _described(fields: dict[str, Any]) -> FunctionSpec:
    placement = Placement.load(fields["placement"])
    session.capturing = session.capturing or placement.captures
    return FunctionSpec(_absent, fields["name"], placement)


def _absent() -> None:
    """Stands for a function in the description of a task; the function itself is loaded when it is called."""


class Runner:
    """Turns messages into calls of the host, and the host's wishes into messages."""

    def __init__(self, engine: LocalEngine, config: dict[str, Any]) -> None:
        self.engine = engine
        self.config = config
        self.imports = Imports()
        self.grants: dict[tuple[Peer, int], int] = {}
        """What consumers of generators have said before the generator ran."""
        self._left = False
        self._leaving: tuple[str, int] | None = None
        self._written = 0.0
        self._looked = 0.0
        self._watched: tuple[Call | None, float] = (None, 0.0)
        self.host = self._make_host()
        self.holds_resources = config["holds_resources"]
        self._interrupts = InterruptTasks(self)
        thresholds = session.settings.thresholds()
        Watchdog(self.host, engine.reactor.call_at, logger.warning, thresholds, engine.answers.ask_waits)
        engine.reactor.ticks.append(self._tick)
        engine.reactor.restless = self._restless

    def _make_host(self) -> Host:
        config = self.config
        facts = config["actor"]
        loop, own_loops = None, frozenset[str]()
        if facts is None:
            mode, limits, name = "plain", {"default": 1}, "task"
            if config["width"] > 1:
                mode, limits = "async", {"default": config["width"]}
        else:
            info: ClassInfo = serialization.loads(bytes.fromhex(facts["info"]))
            mode, name = facts["mode"], info.name
            limits = limits_of(info.is_async, facts["max_concurrency"], info.groups) | facts.get("resized", {})
            own_loops = info.own_loops
        if mode == "async":
            selector = ActorSelector(self.engine.reactor)
            loop = WatchedLoop(selector)
            asyncio.set_event_loop(loop)
        host = Host(
            name,
            mode,  # type: ignore[arg-type]  # from the description
            limits,
            wait=self._wait,
            look=self._look,
            wake=self.engine.reactor.nudge,
            start_thread=_start_thread,
            on_exit=self.leave,
            loop=loop,
            own_loops=own_loops,
            new_loop=new_loop,
            interrupt=self._interrupt,
            runs_tasks=facts is None,
        )
        host.gpus = config["gpus"]
        if host.loop is not None:
            selector.poll = functools.partial(host.loop.run_after, self.engine.reactor.poll)
        if facts is None:
            host.open(None)
        else:
            host.info = info
            host.actor_name = facts["name"]
            host.placement = Placement.load(facts["placement"])
            session.capturing = host.placement.captures
            host.token = ActorToken(facts["actor"], self.engine._channel(facts["actor"], info), None)
        return host

    # The main thread

    def run(self) -> NoReturn:
        """Run until told to leave, then end the process."""
        if self.host.loop is not None:
            self._run_loop()
        else:
            self.host.main.run()
        self._exit()

    def _run_loop(self) -> None:
        executor = self.host.loop
        assert executor is not None
        executor.adopt_thread()
        self.engine.reactor.adopt(executor.loop)
        executor.run_until_stopped()
        self.host.own_loops.stop()
        with contextlib.suppress(BaseException):
            executor.loop.run_until_complete(executor.finish_background(EXIT_GRACE))
            executor.loop.run_until_complete(executor.loop.shutdown_asyncgens())
        self.host.own_loops.join()

    def _wait(self) -> None:
        """Called by the main executor when it has nothing to do: look for messages until it has."""
        main = self.host.main
        self.engine.reactor.flush()
        self.engine.reactor.block(lambda: bool(main.ready) or main.stopped)

    def _look(self, since: float) -> None:
        """Called by the main executor behind a call that began at `since`: a cancellation that was sent before the
        call ended is seen before the next one starts, unless both are so short that looking would cost more."""
        now = time.monotonic()
        if now - since > SHORT or now - self._looked > LOOK_EVERY:
            self._looked = now
            self.engine.reactor.poll()

    def answer_now(self) -> bool:
        """True if an answer should be written at once: nothing more is waiting to run, or the last one was long ago."""
        if self.host.mode == "async":
            return False  # the loop writes at the end of its step
        now = time.monotonic()
        if now - self._written < FLUSH_EVERY and self.host.mailbox.default_waiting:
            return False
        self._written = now
        return True

    # Messages

    def spec(self, peer: Peer, number: int, body: bytes) -> None:
        if len(peer.specs) > 2 * SPECS_KEPT:
            del peer.specs[next(iter(peer.specs))]
        peer.specs[number] = KnownSpec(json.loads(body), self.host)

    def function(self, body: bytes) -> None:
        (length,) = wire.SPEC_NUMBER.unpack_from(body, KEY_SIZE)
        start = KEY_SIZE + 4
        _add_paths(json.loads(body[start : start + length]))
        self.imports.add(body[:KEY_SIZE], body[start + length :])

    def construct(self, peer: Peer, number: int, body: bytes) -> None:
        reader = peer.reader(body)
        fields = reader.fields
        cls = bytes(reader.blob(fields["cls"]))
        _add_paths(fields["paths"])
        spec = KnownSpec(
            {
                "name": f"{self.host.name}.__init__", "method": "__init__", "num_returns": 1, "group": "default",
                "run_in": "loop", "backpressure": -1,
            },
            self.host,
        )  # fmt: skip
        call = ConstructorCall(self, peer, number, spec, peer.read_payload(reader, fields["args"]))
        call.values = [(place, peer.read_payload(reader, value)) for place, value in fields["values"]]
        self.host.restarted = fields["restarted"]
        if fields["restarted"]:
            failpoint("worker.restarting")
        self.host.construct(lambda: _load_class(cls), call)

    def call(self, peer: Peer, number: int, body: bytes) -> None:
        if ARMED:
            failpoint("worker.call_received")
        known = peer.specs[wire.SPEC_NUMBER.unpack_from(body)[0]]
        self.host.deliver(WireCall(self, peer, number, known, body[4:]))

    def call_full(self, peer: Peer, number: int, body: bytes) -> None:
        if ARMED:
            failpoint("worker.call_received")
        reader = peer.reader(body)
        fields = reader.fields
        call = WireCall(self, peer, number, peer.specs[fields["spec"]], peer.read_payload(reader, fields["args"]))
        call.values = [(place, peer.read_payload(reader, value)) for place, value in fields["values"]]
        call.deadline = fields["deadline"]
        self.host.deliver(call)

    def cancel(self, peer: Peer, number: int, body: bytes) -> None:
        why, recursive = wire.CANCEL_BODY.unpack(body)
        call = self.host.calls.get((peer.process, number))
        if call is None:
            return
        error = expired_error(call.spec) if why == wire.EXPIRED else cancelled_error(call.spec)
        self.host.cancel(peer.process, number, error)
        if recursive:
            self.engine.cancel_children(call)

    def grant(self, peer: Peer, number: int, taken: int) -> None:
        call = self.host.calls.get((peer.process, number))
        if call is None:
            return
        if call.stream is None:
            self.grants[peer, number] = taken
        elif taken < 0:
            call.stream.close()
        else:
            call.stream.grant(taken)

    def caller_lost(self, peer: Peer) -> None:
        """Nobody will read the answers to what this caller has asked: what has not started, need not."""
        for call in [c for c in list(self.host.calls.values()) if isinstance(c, WireCall) and c.peer is peer]:
            self.host.cancel(peer.process, call.id, TaskCancelledError("The process that made the call died."))

    def exit(self, reason: str) -> None:
        self.host.exit(reason)

    def end_soon(self, reason: str) -> None:
        self.host.end_soon(reason)

    def snapshot(self) -> list[dict[str, Any]]:
        return [snapshot_of(self.host)]

    def waits(self) -> list[dict[str, Any]]:
        return [waits_of(self.host)]

    def stats(self) -> dict[str, dict[str, int]]:
        return self.host.stats()

    def resize(self, limits: dict[str, int]) -> None:
        self.host.resize(limits)
        self.engine.head.tell("resized", limits=limits)

    def give_back_queue(self) -> None:
        """Let others run the tasks that wait here behind one that takes long."""
        if not self.host.runs_tasks:
            return
        for call in self.host.give_back():
            assert isinstance(call, WireCall)
            call.peer.send(wire.RETURNED, call.id)

    # Trouble and the end

    def _tick(self) -> None:
        """Called by the monitor thread every few milliseconds while there is something to do."""
        current, now = self.host.main.current, time.monotonic()
        if current is not self._watched[0]:
            self._watched = (current, now)
        elif current is not None and now - self._watched[1] > STUCK_AFTER:
            self.give_back_queue()

    def _restless(self) -> bool:
        return self.host.runs_tasks and self.host.mailbox.waiting > 0

    def _interrupt(self, call: Call) -> None:
        if self.host.runs_tasks:
            self._interrupts.interrupt(call)

    def leave(self, reason: str, code: int | None = None, init_failed: bool = False) -> None:
        """End this process once the main thread is free."""
        if self._leaving is None:
            self._leaving = (reason, code if code is not None else 0)
            self.engine.head.tell("leaving", reason=reason, init_failed=init_failed)
            if self.host.loop is not None:
                self.host.loop.stop()
            self.host.main.stop()

    def _exit(self) -> NoReturn:
        assert self._leaving is not None
        _, code = self._leaving
        failpoint("worker.before_exit")
        if recording.recorder is not None:
            self.engine.answers.leave_record()
        if not measurements.is_empty():
            self.engine.head.tell("measured", metrics=measurements.dump_counts())
        self.engine.reactor.flush()
        self._say_farewell(code)
        instance, self.host.instance = self.host.instance, None
        del instance
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        _flush_output()
        self._drain_answers()
        os._exit(code)

    def _say_farewell(self, code: int) -> None:
        """Run the actor's shutdown hook; one that does not come back is abandoned, and the process with it."""
        if has_hook(type(self.host.instance)):
            self.engine.reactor.call_at(time.monotonic() + HOOK_GRACE + EXIT_GRACE, lambda: os._exit(code))
            self.host.say_farewell(HOOK_GRACE)

    def _drain_answers(self) -> None:
        """Answers that the sockets have not taken yet must not be lost with the process."""
        deadline = time.monotonic() + EXIT_GRACE
        links = [peer.link for peer in list(self.engine._peers.values())] + [self.engine.head.link]
        self.engine.reactor.block(lambda: not any(link.unwritten for link in links if not link.closed), deadline)


def _load_class(pickled: bytes) -> type:
    failpoint("worker.class_loading")
    cls: type = serialization.loads(pickled)
    return cls


def _fail_at_the_answer(peer: Peer) -> None:
    """Before, or in the middle of, the frame that answers a call, if the plan says so."""
    failpoint("worker.result_pickled")
    action = PLAN.due("worker.in_result_frame")
    if action is not None:
        peer.link.break_off(wire.frame(wire.VALUE, 0, bytes(100)))
        PLAN.act("worker.in_result_frame", action)


def _add_paths(paths: list[str]) -> None:
    """Modules that the sender could import can be imported here, too, whenever it has changed its `sys.path`."""
    sys.path.extend(path for path in paths if path not in sys.path)


def _start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def main(head_socket: socket.socket, ledger: Ledger) -> NoReturn:
    """What a forked process does for the rest of its life: it waits to be told what it is, and is that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    provide_stacks()
    reactor = Reactor()
    config = _receive_assignment(head_socket)
    failpoint("worker.before_hello")
    with reactor.held():  # the messages behind the assignment are for the runner
        set_title(config["title"])
        runtime = config["runtime"]
        sys.path[:] = runtime["sys_path"]
        session.settings = settings = Settings.load(runtime["settings"])
        propagation.use(settings.propagate, settings.traces)
        account = Account(ledger, config["line"])
        engine = LocalEngine(config["process"], runtime["namespace"], head_socket, reactor, account, settings)
        engine.on_head_lost = _end_now
        engine.on_failure = _fail_now
        engines.use(engine)
        for name in session.settings.worker_imports:
            importlib.import_module(name)
        show_warnings(config["title"])
        if settings.logging is not None:
            logs.start_sending(settings.logging, lambda record: engine.head.tell("log", record=record))
        runner = Runner(engine, config)
        engine.runner = runner
        session.worker_host = runner.host
        _surround(runner)
        if session.settings.profiling:
            recording.start()
    runner.run()


def _receive_assignment(head_socket: socket.socket) -> dict[str, Any]:
    """The first message of the head, and not a byte of the next: that may carry descriptors."""
    length, _, _ = wire.HEADER.unpack(_receive_exactly(head_socket, wire.HEADER.size))
    config: dict[str, Any] = json.loads(_receive_exactly(head_socket, length - wire.BEHIND_LENGTH))
    return config


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        os._exit(0)  # the runtime has ended before this process was needed
    return data


def _surround(runner: Runner) -> None:
    """Make the environment that the worker is to have. No library that looks at it has been imported yet."""
    config = runner.config
    session.environment = RuntimeEnv.load(config["environment"])
    try:
        settle(session.environment)
    except OSError as error:
        runner.leave(f"its runtime environment could not be set up: {error}", code=1)
    os.environ.setdefault("OMP_NUM_THREADS", str(config["threads"]))
    if config["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(config["gpus"])


def _fail_now(text: str) -> NoReturn:
    """klieg's own code has failed here: say so, and let the head tell everybody that the process is gone."""
    sys.stderr.write(f"klieg itself has failed in this worker:\n{text}\n")
    _end_now()


def _end_now() -> NoReturn:
    """The runtime is gone: nothing here is of use to anybody."""
    _flush_output()
    os._exit(1)
