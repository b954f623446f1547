"""Every example of the page on async and threaded actors, run and held to what the page says.

    python examples/page.py [--engine local|inline]

Each function below is one example. It prints what the page says it prints, and asserts what the
page claims. Where a claim is about order or overlap, the actor keeps a log and the log is asserted,
so that nothing rests on the clock.
"""

import argparse
import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable

import klieg

PATIENCE = 30.0
"""Seconds until an example that should long have ended is given up."""


# --- Async actors ---


@klieg.remote
class Sleeper:
    """An async actor: one `async def` method makes it one."""

    async def run_concurrent(self):
        print("started")
        await asyncio.sleep(1)
        print("finished")


async def get_and_await_an_async_actor():
    sleeper = Sleeper.remote()
    began = time.monotonic()
    klieg.get([sleeper.run_concurrent.remote() for _ in range(4)])
    assert time.monotonic() - began < 3, "four calls of one second each did not overlap"
    await sleeper.run_concurrent.remote()


# --- Refs as futures ---


@klieg.remote
def one():
    return 1


async def refs_in_place_of_get_and_wait():
    assert klieg.get(one.remote()) == 1
    assert len(klieg.wait([one.remote()])[0]) == 1

    assert await one.remote() == 1
    done, pending = await asyncio.wait([one.remote()])
    assert (len(done), len(pending)) == (1, 0)
    print("asyncio.wait([ref]):", [ref.result() for ref in done])


async def refs_with_the_rest_of_asyncio():
    assert await asyncio.gather(one.remote(), one.remote()) == [1, 1]
    assert await asyncio.wait_for(one.remote(), timeout=PATIENCE) == 1
    assert [await each for each in asyncio.as_completed([one.remote(), one.remote()])] == [1, 1]
    print("gather, wait_for and as_completed take refs too")


async def the_future_behind_a_ref():
    future: asyncio.Future = asyncio.wrap_future(one.remote().future())
    assert asyncio.isfuture(future)
    assert await future == 1
    print("asyncio.wrap_future(ref.future()):", future.result())


async def refs_as_concurrent_futures():
    futures = [one.remote().future() for _ in range(4)]
    for future in concurrent.futures.as_completed(futures, timeout=PATIENCE):
        assert future.done()
        print("completed:", future.result())


# --- The limit of an async actor ---


@klieg.remote
class Logged:
    """An async actor that remembers what started and ended, in which order and on which threads."""

    def __init__(self):
        self.log = []
        self.threads = set()
        self.changed = asyncio.Condition()

    async def run_task(self):
        self.started()
        await asyncio.sleep(1)
        self.ended()

    async def run_until_started(self, more, of):
        """End once so many more calls have started: never, if the limit lets none start."""
        self.started()
        total = min(self.log.count("started") + more, of)
        async with self.changed:
            self.changed.notify_all()
            await self.changed.wait_for(lambda: self.log.count("started") >= total)
        self.ended()

    def started(self):
        print("started")
        self.log.append("started")
        self.threads.add(threading.get_ident())

    def ended(self):
        print("ended")
        self.log.append("ended")

    def report(self):
        return self.log, len(self.threads)


def most_at_once(log):
    running = most = 0
    for event in log:
        running += 1 if event == "started" else -1
        most = max(most, running)
    return most


async def fifty_calls_start_before_any_ends():
    actor = Logged.remote()
    klieg.get([actor.run_task.remote() for _ in range(50)])
    log, threads = klieg.get(actor.report.remote())
    assert log == ["started"] * 50 + ["ended"] * 50
    assert threads == 1, "an async actor has one thread"


async def ten_at_a_time():
    actor = Logged.options(max_concurrency=10).remote()
    klieg.get([actor.run_task.remote() for _ in range(50)])
    log, _ = klieg.get(actor.report.remote())
    assert log[:11] == ["started"] * 10 + ["ended"]
    assert most_at_once(log) == 10


async def the_next_starts_as_one_ends():
    """Each call ends once nine more have started: a limit refilled ten by ten would stand still."""
    actor = Logged.options(max_concurrency=10).remote()
    refs = [actor.run_until_started.remote(more=9, of=50) for _ in range(50)]
    klieg.get(refs, timeout=PATIENCE)
    log, _ = klieg.get(actor.report.remote())
    assert most_at_once(log) == 10


@klieg.remote
class Quiet:
    """Counts how many of its calls run at once, and prints nothing."""

    def __init__(self, hold_until):
        self.hold_until = hold_until
        self.running = self.most = 0
        self.full = asyncio.Event()

    async def run(self):
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == self.hold_until:
            self.full.set()
        await self.full.wait()
        self.running -= 1

    def report(self):
        return self.most


async def a_thousand_at_a_time_without_a_limit():
    """No call ends before a thousand have started, and the last call must wait for a free place."""
    actor = Quiet.remote(hold_until=1000)
    refs = [actor.run.remote() for _ in range(1001)]
    klieg.get(refs, timeout=PATIENCE)
    assert klieg.get(actor.report.remote()) == 1000
    print("most at once without max_concurrency: 1000")


@klieg.remote
class Gate:
    def __init__(self):
        self.opened = asyncio.Event()

    async def pass_through(self):
        await self.opened.wait()

    async def open(self):
        self.opened.set()

    async def get_without_await(self, nested):
        klieg.get(nested[0], timeout=PATIENCE)


async def a_blocking_get_on_the_loop_is_not_allowed():
    """If it went through, the loop would stand still and the call it waits for could never end."""
    gate = Gate.remote()
    waiting = gate.pass_through.remote()
    refused = None
    try:
        await gate.get_without_await.remote([waiting])
    except klieg.exceptions.BlockingGetError as error:
        refused = error
    assert refused is not None, "a blocking get on an async actor's loop went through"
    assert "await" in str(refused), "the error does not name the cure"
    print("a blocking get in an async method is refused, and the error names await")

    await gate.open.remote()
    await asyncio.wait_for(waiting, timeout=PATIENCE)


# --- Threaded actors ---


@klieg.remote
class Threaded:
    """Without an `async def` method, `max_concurrency` counts threads."""

    def __init__(self):
        self.both_running = threading.Barrier(2)

    def task_1(self):
        print("I'm in one thread!")
        self.both_running.wait(timeout=PATIENCE)
        return threading.get_ident()

    def task_2(self):
        print("I'm in another thread!")
        self.both_running.wait(timeout=PATIENCE)
        return threading.get_ident()


async def two_methods_overlap_in_threads():
    actor = Threaded.options(max_concurrency=2).remote()
    first, second = klieg.get([actor.task_1.remote(), actor.task_2.remote()])
    assert first != second


# --- Tasks and async def ---


async def an_async_def_task_is_refused():
    async def fetch():
        return "fetched"

    refused = None
    try:
        klieg.remote(fetch)
    except ValueError as error:
        refused = error
    assert refused is not None, "an async def was accepted as a task"
    assert "asyncio.run" in str(refused), "the error does not name the wrapper"
    print("ValueError:", refused)


async def a_wrapper_runs_a_coroutine_in_a_task():
    async def fetch():
        await asyncio.sleep(0)
        return "fetched"

    @klieg.remote
    def wrapper():
        return asyncio.run(fetch())

    assert await wrapper.remote() == "fetched"
    print("the wrapper's result: fetched")


Example = Callable[[], Awaitable[None]]

EXAMPLES: list[Example] = [
    get_and_await_an_async_actor,
    refs_in_place_of_get_and_wait,
    refs_with_the_rest_of_asyncio,
    the_future_behind_a_ref,
    refs_as_concurrent_futures,
    fifty_calls_start_before_any_ends,
    ten_at_a_time,
    the_next_starts_as_one_ends,
    a_thousand_at_a_time_without_a_limit,
    a_blocking_get_on_the_loop_is_not_allowed,
    two_methods_overlap_in_threads,
    an_async_def_task_is_refused,
    a_wrapper_runs_a_coroutine_in_a_task,
]


async def run_all(examples: list[Example]) -> None:
    for example in examples:
        print(f"-- {example.__name__.replace('_', ' ')}", flush=True)
        await example()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every example of the page.")
    parser.add_argument("--engine", choices=["local", "inline"], default="local")
    engine = parser.parse_args().engine
    klieg.init(engine=engine)
    try:
        asyncio.run(run_all(EXAMPLES))
    finally:
        klieg.shutdown()
    print(f"every claim of the page holds on the {engine} engine ({len(EXAMPLES)} examples)")


if __name__ == "__main__":
    main()
