"""Shutdown hooks: `__ray_shutdown__`, sync and async, run once on every way out but `kill`."""

import asyncio
import os
import sys

import gates
import programs
import pytest

import klieg
from klieg.exceptions import ActorDiedError


@klieg.remote
class Plain:
    def __init__(self, journal):
        self.journal = journal

    def ping(self):
        return "pong"

    def leave(self):
        klieg.actor.exit_actor()

    def sys_exit(self):
        sys.exit(0)

    def __ray_shutdown__(self):
        self.journal.note("hook")


@klieg.remote
class Async(Plain._cls):
    async def wait(self):
        await asyncio.Event().wait()

    async def __ray_shutdown__(self):
        await asyncio.sleep(0)
        self.journal.note("hook")


@klieg.remote
class SyncHookOfAnAsyncActor(Plain._cls):
    async def wait(self):
        await asyncio.Event().wait()

    def __ray_shutdown__(self):
        asyncio.get_running_loop()
        self.journal.note("hook")


CLASSES = pytest.mark.parametrize(
    "make",
    [Plain.remote, Plain.options(max_concurrency=3).remote, Async.remote, SyncHookOfAnAsyncActor.remote],
    ids=["plain", "threaded", "async", "sync in async"],
)


def assert_dead(actor):
    gates.soon_raises(ActorDiedError, lambda: klieg.get(actor.ping.remote(), timeout=10))


@CLASSES
@pytest.mark.parametrize("way", ["leave", "sys_exit", "__ray_terminate__"])
def test_the_hook_runs_once_when_the_actor_leaves(make, way, journal):
    actor = make(journal)
    klieg.get(actor.ping.remote())
    ref = getattr(actor, way).remote()
    assert journal.next() == "hook"
    with pytest.raises(ActorDiedError):
        klieg.get(ref, timeout=10)
    assert_dead(actor)
    assert journal.unread() == []


@CLASSES
def test_the_hook_runs_when_the_last_handle_is_dropped(make, journal):
    actor = make(journal)
    klieg.get(actor.ping.remote())
    del actor
    assert journal.next() == "hook"


@CLASSES
def test_the_hook_runs_at_shutdown(make, journal):
    actor = make(journal)
    klieg.get(actor.ping.remote())
    klieg.shutdown()
    assert journal.unread() == ["hook"]


def test_the_hook_runs_at_shutdown_though_calls_of_an_async_actor_wait_for_ever(journal):
    actor = Async.remote(journal)
    ref = actor.wait.remote()
    klieg.get(actor.ping.remote())
    klieg.shutdown()
    assert journal.unread() == ["hook"]
    del ref


@CLASSES
def test_kill_skips_the_hook(make, journal):
    actor = make(journal)
    klieg.get(actor.ping.remote())
    klieg.kill(actor)
    assert_dead(actor)
    klieg.shutdown()
    assert journal.unread() == []


def test_a_hook_that_fails_changes_nothing_else(journal):
    @klieg.remote
    class Broken:
        def ping(self):
            return "pong"

        def __ray_shutdown__(self):
            journal.note("hook")
            raise ValueError("no")

    broken = Broken.remote()
    assert klieg.get(broken.ping.remote()) == "pong"
    broken.__ray_terminate__.remote()
    assert journal.next() == "hook"
    assert_dead(broken)


@pytest.mark.not_on_ray("Ray kills what is left when the runtime ends")
@pytest.mark.needs_process("inline, atexit is the test's own")
def test_the_hook_runs_before_atexit(journal):
    @klieg.remote
    class Actor:
        def __init__(self):
            import atexit

            atexit.register(journal.note, "atexit")

        def __ray_shutdown__(self):
            journal.note("hook")

    actor = Actor.remote()
    klieg.get(actor.__ray_ready__.remote())
    klieg.shutdown()
    assert journal.unread() == ["hook", "atexit"]


@pytest.mark.not_on_ray("how a driver starts and ends there is Ray's affair, and takes seconds")
def test_the_hook_runs_at_the_end_of_the_program(engine):
    program = f"""
    import klieg
    klieg.init(engine={engine!r})

    @klieg.remote
    class Actor:
        async def ping(self):
            return "pong"

        async def __ray_shutdown__(self):
            print("hook", flush=True)

    actor = Actor.remote()
    print(klieg.get(actor.ping.remote()), flush=True)
    """
    assert programs.run(program) == ("pong\nhook\n", "", 0)


@pytest.mark.needs_process("it is the process that would not end")
def test_a_hook_that_hangs_is_abandoned(engine):
    @klieg.remote
    class Stuck:
        async def ping(self):
            return os.getpid()

        async def __ray_shutdown__(self):
            await asyncio.Event().wait()

    stuck = Stuck.remote()
    pid = klieg.get(stuck.ping.remote())
    klieg.shutdown()
    assert gates.soon(lambda: not os.path.exists(f"/proc/{pid}"))
