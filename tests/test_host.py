"""The concurrency core by itself: no engine, no process; calls in, outcomes out."""

from __future__ import annotations

from klieg.concurrency.call import Call
from klieg.concurrency.host import Host
from klieg.task import TaskSpec


class Recorded(Call):
    """Runs a function and remembers what came of it."""

    def __init__(self, number, function):
        super().__init__(number, 0, TaskSpec("recorded"), function)
        self.outcomes = []

    def arguments(self):
        return (), {}

    def succeed(self, value):
        self.outcomes.append(value)

    def fail(self, error):
        self.outcomes.append(error)


def task_host(look):
    """A host of one thread that stops when it has nothing left to do."""
    host = Host(
        "tasks",
        "plain",
        {"default": 1},
        wait=lambda: host.main.stop(),
        look=lambda since: look(host),
        wake=lambda: None,
        start_thread=None,
        on_exit=lambda reason: None,
        runs_tasks=True,
    )
    host.open(None)
    return host


def test_a_call_that_comes_again_before_it_has_quite_ended_runs_again():
    """A retry keeps its number, and may be back before the first try has left the table of calls."""
    tries = [Recorded(7, lambda n=n: n) for n in range(4)]
    to_come = iter(tries)

    def send_the_next(host):
        following = next(to_come, None)
        if following is not None:
            host.deliver(following)

    host = task_host(send_the_next)
    send_the_next(host)
    host.main.run()
    assert [each.outcomes for each in tries] == [[0], [1], [2], [3]]
    assert host.stats() == {"default": {"queued": 0, "running": 0, "limit": 1}}
    assert host.calls == {}
