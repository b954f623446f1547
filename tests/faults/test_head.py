"""C: the head dies, at each of its phases, or hangs; a thread of klieg's own dies. All is told, nothing is stranded."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import gates
import leaks
import processes
import pytest
import victims
from sizes import some

import klieg
from klieg import engine
from klieg.engines.local import peer, wire
from klieg.engines.local.failpoints import HEAD_VERBS
from klieg.exceptions import HeadDiedError, KliegError


@klieg.remote
class Waiter:
    async def wait(self):
        await asyncio.Event().wait()

    async def ping(self):
        return os.getpid()


def assert_a_new_runtime_works():
    klieg.shutdown()
    klieg.init(num_cpus=2)
    assert klieg.get(klieg.remote(victims.echo).remote(5), timeout=20) == 5


def test_the_death_of_an_idle_head_is_told_at_the_next_use(runtime):
    worker = klieg.get(Waiter.remote().ping.remote())
    os.kill(processes.head(), signal.SIGKILL)
    gates.soon_raises(HeadDiedError, lambda: klieg.get(klieg.remote(victims.ping).remote(), timeout=20))
    processes.wait_until_ended(worker)
    assert_a_new_runtime_works()


def test_the_death_of_the_head_fails_a_thousand_calls_within_a_second(runtime, kind, gate):
    actor = victims.actor_class(kind).remote()
    refs = [actor.wait_at.remote(gate) for _ in range(1000)]
    started = time.monotonic()
    os.kill(processes.head(), signal.SIGKILL)
    errors = [gates.soon_raises(KliegError, lambda ref=ref: klieg.get(ref, timeout=20)) for ref in refs]
    assert {type(error) for error in errors} == {HeadDiedError}
    assert time.monotonic() - started < 1
    assert_a_new_runtime_works()


PHASES = [f"head.{when}_{verb}" for verb in HEAD_VERBS[1:8] for when in ("before", "after")]


def do_everything():
    """Pass through every verb of the head."""
    actor = victims.actor_class("plain", name="named", max_restarts=1).remote()
    klieg.get(actor.ping.remote(), timeout=20)
    klieg.get(klieg.get_actor("named").ping.remote(), timeout=20)
    engine.current().named_actors()
    holder = victims.actor_class("async").remote()
    klieg.get(holder.keep.remote([actor]), timeout=20)
    klieg.get([klieg.remote(victims.ping).remote() for _ in range(4)], timeout=20)
    klieg.wait([actor.die.remote("kill")], timeout=20)
    klieg.kill(actor)
    klieg.get(klieg.put(1))


def ping_a_new_actor():
    klieg.get(victims.actor_class("plain").remote().ping.remote(), timeout=20)


@pytest.mark.parametrize(
    "point",
    some(["head.before_fork", "head.after_fork", "head.before_why", *PHASES]),
)
def test_a_head_that_dies_in_any_phase_is_told(failing, point):
    failing.init(f"{point}=kill", num_cpus=2)
    steps = iter([do_everything])
    gates.soon_raises(HeadDiedError, lambda: next(steps, ping_a_new_actor)())
    assert failing.hits(point) == 1


def test_a_head_that_dies_as_init_says_hello_fails_the_first_use(failing):
    failing.init("head.before_hello=kill")
    gates.soon_raises(HeadDiedError, lambda: klieg.get(klieg.remote(victims.ping).remote(), timeout=20))


def test_while_the_head_hangs_calls_on_direct_connections_go_on(runtime, kind):
    actor = victims.actor_class(kind).remote()
    klieg.get(actor.ping.remote())
    os.kill(processes.head(), signal.SIGSTOP)
    processes.wait_until_stopped(processes.head())
    try:
        assert klieg.get([actor.echo.remote(i) for i in range(100)], timeout=20) == list(range(100))
        with pytest.raises(klieg.exceptions.GetTimeoutError):
            klieg.get(victims.actor_class(kind).remote().ping.remote(), timeout=0.2)
    finally:
        os.kill(processes.head(), signal.SIGCONT)
    assert klieg.get(actor.echo.remote(1), timeout=20) == 1


def test_shutdown_ends_a_head_that_hangs(monkeypatch):
    monkeypatch.setattr("klieg.engines.local.driver.STOP_TIMEOUT", 0.3)
    klieg.init(num_cpus=1)
    klieg.get(klieg.remote(victims.ping).remote())
    os.kill(processes.head(), signal.SIGSTOP)
    klieg.shutdown()
    assert leaks.runtime_processes() == [] or gates.soon(lambda: leaks.runtime_processes() == [])


def broken(*args):
    raise ZeroDivisionError("a bug in klieg")


@pytest.mark.parametrize("frame", ["VALUE_FULL", "ERROR", "ITEM"])
def test_a_bug_in_the_reader_fails_the_calls_of_that_connection(runtime, monkeypatch, gate, frame):
    actor = victims.actor_class("threaded").remote()
    pending = actor.wait_at.remote(gate)
    monkeypatch.setitem(peer._HANDLERS, getattr(wire, frame), broken)
    actor.echo.remote([klieg.put(1)])
    actor.fail.remote(ValueError("x"))
    items = actor.stream.options(num_returns="streaming").remote(3)
    with pytest.raises(KliegError, match="a bug in klieg"):
        klieg.get(pending, timeout=20)
    del items
    assert klieg.get(klieg.remote(victims.echo).remote(5), timeout=20) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("where", ["ticks", "chores", "timer"])
def test_a_bug_in_the_monitor_thread_fails_whatever_is_pending(runtime, gate, where):
    actor = victims.actor_class("plain").remote()
    klieg.get(actor.ping.remote())
    ref = actor.wait_at.remote(gate)
    reactor = engine.current().reactor
    if where == "timer":
        reactor.call_at(time.monotonic(), broken)
    else:
        getattr(reactor, where).append(broken)
        reactor.call_at(time.monotonic(), reactor.ring)  # from the monitor: that is sure to be awake then
    with pytest.raises(KliegError, match="a bug in klieg"):
        klieg.get(ref, timeout=20)
    assert_a_new_runtime_works()


def test_a_full_wake_up_descriptor_wakes_all_the_same(runtime, gate):
    actor = victims.actor_class("threaded").remote()
    ref = actor.wait_at.remote(gate)
    reactor = engine.current().reactor
    thread = threading.Thread(target=klieg.wait, args=([ref],))
    thread.start()
    with contextlib.suppress(BlockingIOError):
        while True:
            os.eventfd_write(reactor._bell, 1 << 63)
    reactor.ring()
    gate.open()
    thread.join(20)
    assert not thread.is_alive()


def test_a_message_of_the_heads_own_that_nobody_knows_ends_the_sender_only(runtime, kind):
    actor, neighbour = victims.actor_class(kind).remote(), victims.actor_class("plain").remote()
    klieg.get([actor.ping.remote(), neighbour.ping.remote()])

    def babble(self):
        engine.current().head.tell("no such verb")

    actor.__ray_call__.remote(babble)
    with pytest.raises(KliegError):
        for _ in range(100):
            klieg.get(actor.ping.remote(), timeout=20)
            threading.Event().wait(0.02)
    assert klieg.get(neighbour.add.remote(), timeout=20) == 1
