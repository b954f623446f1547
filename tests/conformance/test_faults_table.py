"""What Ray does wrong when something fails, and what must happen here: which test shows each case.

Most cases belong to a subject and are tested there; those that belong to none are tested below.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

import klieg
from klieg.exceptions import ActorDiedError, TaskCancelledError, TaskError

SHOWN_BY = {
    "plain: sys.exit(3)": "exiting: sys exit ends the actor",
    "plain: raise KeyboardInterrupt": "exiting: a keyboard interrupt in a method is an error and the actor lives",
    "plain: a BaseException of the user's": "errors: a base exception of the user is an exception at home",
    "plain: os._exit(7)": "exiting: os exit ends the actor and the code is told",
    "plain: an exception with required arguments": "errors: every shape comes home by every way",
    "plain: an exception whose __reduce__ raises": "errors: every shape comes home by every way",
    "plain: StopIteration, by every way": "errors: the end of an iteration is a plain task error by every way",
    "plain: CancelledError": "errors: a cancelled error of the users is an error and no cancellation",
    "plain: returns a lock": "errors: a result that cannot be pickled is an error that names it",
    "plain: returns a list 50,000 deep": "errors: a result nested too deep is an error",
    "plain: RecursionError": "errors: endless recursion is an error",
    "plain: returns a generator": "errors: a returned generator is an error with a hint",
    "the constructor raises": "plain actors: an error in the constructor shows at the first call",
    "an argument without a pickle": "arguments and results: an argument that cannot be pickled raises at the call",
    "a crash and 5 queued, max_restarts=1": "restarts: calls in flight at a crash are unavailable",
    "the same with max_task_retries=1": "restarts: a poison call uses up the restarts",
    "plain: calls itself with a timeout": "nesting: a plain actor that waits for itself times out",
    "plain: calls itself without one": "nesting: a wait for oneself that can never end raises",
    "plain: cancel while it runs": "faults table: a sync call that is cancelled while it runs ends first",
    "plain: cancel in the queue": "cancellation: a queued sync call fails at once",
    "an actor's call cancelled by force": "cancellation: a method cannot be cancelled by force",
    "SIGKILL while it runs": "faults table: a death is told at once",
    "async: sys.exit": "exiting: sys exit ends the actor",
    "async: KeyboardInterrupt": "errors: exceptions beside exception come as plain task errors",
    "async: a BaseException of the user's": "faults table: a base exception in an async method is a task error",
    "async: CancelledError": "errors: a cancelled error of the users is an error and no cancellation",
    "async: StopIteration": "errors: stop iteration in an async method is what python makes of it",
    "async: os._exit with 10 in flight": "exiting: all calls inside an async actor fail when it dies",
    "async: a swallowed cancellation": "cancellation: a swallowed cancellation still gives the caller an error",
    "async: the same, and it goes on": "faults table: a swallowed cancellation fails the call when it ends",
    "async: the same, for long": "diagnosis: a cancelled call that goes on is reported",
    "async: the loop held": "diagnosis: a method that holds the loop is named with its stack",
    "SIGSTOP and SIGCONT": "exiting: a stopped process is not taken for dead",
    "max_pending_calls": "backpressure: one call too many raises at the call",
    "a task that kills its worker": "restarts: a task is run four times before it is given up",
    "a task cancelled in time.sleep": "cancellation: a task asleep is interrupted",
    "a task cancelled by force": "cancellation: force ends the worker and nothing is retried",
    "a chain of refs": "arguments and results: a chain of dependent calls is no recursion",
    "a result whose unpickling exits": "errors: a result that exits when it is loaded is an error",
    "an endless async generator dropped": "generators: a dropped stream closes its producer",
    "a fork after init": "scripts: a fork of the driver may not use the runtime",
}
"""Case, and "subject: sentence", which is the test's file and name."""

FASTEST_DEATH = 0.05
"""Seconds from SIGKILL to the caller's error that must be reached: nothing waits for a timer."""


def test_every_case_has_its_test():
    for shown_by in SHOWN_BY.values():
        subject, sentence = shown_by.split(": ")
        source = Path(__file__).with_name(f"test_{subject.replace(' ', '_')}.py").read_text(encoding="utf-8")
        assert f"def test_{sentence.replace(' ', '_')}(" in source, shown_by


@klieg.remote
class Sync:
    def work(self, journal, gate):
        journal.note(os.getpid())
        gate.wait()
        return "the value nobody gets"

    def ping(self):
        return "pong"


@klieg.remote
class Async:
    async def swallow(self, journal, gate):
        journal.note("in")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.to_thread(gate.wait)
            return "the value nobody gets"

    async def raise_own(self):
        class Own(BaseException):
            pass

        raise Own("the text")

    async def ping(self):
        return "pong"


def test_a_sync_call_that_is_cancelled_while_it_runs_ends_first(journal, gate):
    actor = Sync.remote()
    ref = actor.work.remote(journal, gate)
    journal.next()
    klieg.cancel(ref)
    assert klieg.wait([ref], timeout=0.05)[0] == []
    gate.open()
    with pytest.raises(TaskCancelledError):
        klieg.get(ref, timeout=10)
    assert klieg.get(actor.ping.remote()) == "pong"


def test_a_swallowed_cancellation_fails_the_call_when_it_ends(journal, gate):
    actor = Async.remote()
    ref = actor.swallow.remote(journal, gate)
    journal.next()
    klieg.cancel(ref)
    assert klieg.wait([ref], timeout=0.05)[0] == []
    gate.open()
    with pytest.raises(TaskCancelledError):
        klieg.get(ref, timeout=10)
    assert klieg.get(actor.ping.remote()) == "pong"


def test_a_base_exception_in_an_async_method_is_a_task_error():
    actor = Async.remote()
    with pytest.raises(TaskError, match="the text") as caught:
        klieg.get(actor.raise_own.remote(), timeout=10)
    assert type(caught.value.cause).__name__ == "Own"
    assert klieg.get(actor.ping.remote()) == "pong"


@pytest.mark.not_on_ray("Ray does not say how a process ended")
@pytest.mark.needs_process("the test's own process would die")
def test_a_death_is_told_at_once(journal, gate):
    durations = []
    for _ in range(10):
        ref = Sync.remote().work.remote(journal, gate)
        os.kill(int(journal.next()), signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            klieg.get(ref, timeout=10)
        durations.append(time.monotonic() - killed)
    assert min(durations) <= FASTEST_DEATH
