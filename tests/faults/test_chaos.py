"""Chaos: workers are killed at random moments while many calls are under way, and a ledger tells what has run.

T3 at most once, T4 at least once, T5 tasks with retries, T6 order. `KLIEG_SEED=n` tells a run again.
"""

import contextlib
import os
import random
import signal
import threading

import ledger
import processes
import pytest
from sizes import size

import klieg
from klieg.exceptions import ActorDiedError, ActorUnavailableError, WorkerCrashedError

pytestmark = pytest.mark.chaos

BURST = 100
"""Calls that are in flight before their results are read."""


class Killer:
    """Kills a random one of the pids it is told of, at random moments, until it has done so often enough."""

    def __init__(self, chance: random.Random, kills: int, mean_pause: float) -> None:
        self.killed = 0
        self.wanted = kills
        self._chance = chance
        self._pause = mean_pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def victims(self) -> list[int]:
        """Workers of this runtime that are there now; not those kept ready, which nobody would miss."""
        return [pid for pid in processes.children(self._head) if processes.name(pid) not in ("", self._idle)]

    def _run(self) -> None:
        while not self._over.wait(self._chance.expovariate(1 / self._pause)):
            with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
                os.kill(self._chance.choice(self.victims()), signal.SIGKILL)
                self.killed += 1

    @property
    def is_done(self) -> bool:
        return self.killed >= self.wanted

    def __enter__(self):
        self._head = processes.head()
        self._idle = processes.name(self._head)
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def killer(runtime, chance):
    def make(kills, mean_pause):
        return Killer(random.Random(chance.random()), kills, mean_pause)

    return make


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ledger")


def call_until(killer, total, burst_of):
    """Bursts of calls until there were so many, and so many kills; each burst is read before the next but one."""
    outcomes, submitted = ledger.Outcomes(), 0
    refs = {}
    while submitted < total or not killer.is_done:
        more = {number: burst_of(number) for number in range(submitted, submitted + BURST)}
        submitted += BURST
        outcomes.take(refs)
        refs = more
    outcomes.take(refs)
    assert len(outcomes.values) + len(outcomes.errors) == submitted
    return outcomes


class Crew:
    """Some actors of a kind; one that is found dead is replaced."""

    def __init__(self, kind, path, **options):
        self._make = lambda: ledger.actor_class(kind, **options).remote(path)
        self._actors = [self._make() for _ in range(2)]

    def call(self, number):
        at = number % len(self._actors)
        if number % BURST < len(self._actors):
            self._replace_if_dead(at)
        return self._actors[at].call.remote(number)

    def _replace_if_dead(self, at):
        try:
            klieg.get(self._actors[at].ping.remote(), timeout=30)
        except (ActorDiedError, ActorUnavailableError):
            self._actors[at] = self._make()


def test_t3_calls_run_at_most_once_and_every_one_is_resolved(killer, path, kind, capsys):
    crew = Crew(kind, path)
    with killer(kills=size(50, 5), mean_pause=0.3) as kills:
        outcomes = call_until(kills, size(17_000, 1_000), crew.call)
    account = ledger.Account.read(path)
    assert outcomes.wrong() == []
    assert {type(error) for error in outcomes.errors.values()} <= {ActorDiedError}
    assert [number for number, count in account.started.items() if count > 1] == []
    assert [number for number in outcomes.values if account.ended[number] != 1] == []
    tell(capsys, f"T3 {kind}: {len(outcomes.values)} values, {len(outcomes.errors)} errors, {kills.killed} kills")


def test_t4_with_retries_and_restarts_no_call_is_lost(killer, path, kind, capsys):
    crew = [ledger.actor_class(kind, max_restarts=-1, max_task_retries=-1).remote(path) for _ in range(4)]
    with killer(kills=size(34, 4), mean_pause=0.5) as kills:
        outcomes = call_until(kills, size(7_000, 600), lambda number: crew[number % 4].call.remote(number))
    account = ledger.Account.read(path)
    assert outcomes.errors == {}
    assert outcomes.wrong() == []
    assert [number for number in outcomes.values if not account.ended[number]] == []
    assert account.duplicates() <= kills.killed * 2 * BURST
    tell(capsys, f"T4 {kind}: {len(outcomes.values)} values, {account.duplicates()} run again, {kills.killed} kills")


def test_t5_tasks_are_tried_as_often_as_they_may_and_none_is_left(killer, path, capsys):
    task = klieg.remote(ledger.task).options(max_retries=3)
    with killer(kills=size(50, 6), mean_pause=0.15) as kills:
        outcomes = call_until(kills, size(5_000, 600), lambda number: task.remote(path, number))
    account = ledger.Account.read(path)
    assert outcomes.wrong() == []
    assert {type(error) for error in outcomes.errors.values()} <= {WorkerCrashedError}
    assert max(account.started.values()) <= 4
    assert [number for number in outcomes.values if not account.ended[number]] == []
    tell(capsys, f"T5: {len(outcomes.values)} values, {len(outcomes.errors)} errors, {kills.killed} kills")


@pytest.mark.parametrize("restarts", [0, -1])
def test_t6_calls_of_each_submitter_keep_their_order(killer, path, restarts, capsys):
    actor = ledger.actor_class("plain", max_restarts=restarts, max_task_retries=restarts).remote(path)
    most = 1_000_000
    submitters = [range(at * most, (at + 1) * most) for at in range(4)]
    outcomes = [ledger.Outcomes() for _ in submitters]

    def submit(numbers, outcomes, killer):
        for first in range(0, most, BURST):
            outcomes.take({number: actor.call.remote(number) for number in numbers[first : first + BURST]})
            if first + BURST >= size(5_000, 500) and killer.is_done:
                return

    with killer(kills=size(6, 1) if restarts else 0, mean_pause=1.5 if restarts else 1000) as kills:
        threads = [
            threading.Thread(target=submit, args=(*pair, kills)) for pair in zip(submitters, outcomes, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    account = ledger.Account.read(path)
    assert [told.errors for told in outcomes] == [{}] * 4
    inversions = account.inversions(submitters)
    assert inversions == 0
    calls = sum(len(told.values) for told in outcomes)
    again = account.duplicates()
    tell(
        capsys,
        f"T6 restarts={restarts}: {calls} calls, {kills.killed} kills, {again} run again, {inversions} inversions",
    )


def tell(capsys, line):
    with capsys.disabled():
        print(f"\n    {line}")
