"""`klieg.dump()`: what runs where, what waits, who holds the places of a full limit, who waits for whom."""

import asyncio
import os
import re
import signal
import threading
import time

import pytest

import klieg


@klieg.remote
class Door:
    """Shut until it is opened."""

    def __init__(self):
        self.opened = asyncio.Event()

    async def wait(self):
        await self.opened.wait()

    async def outer(self):
        await self.inner()

    async def inner(self):
        async for _ in self.items():
            pass

    async def items(self):
        await self.opened.wait()
        yield 1

    async def group(self):
        await asyncio.gather(self.wait(), self.wait())

    async def leave_behind(self):
        self.task = asyncio.create_task(self.outer(), name="left behind")

    async def open(self):
        self.opened.set()

    async def pid(self):
        return os.getpid()


@klieg.remote
class Caller:
    def __init__(self, door):
        self.door = door

    def call(self):
        klieg.get(self.door.wait.remote())


@klieg.remote
class AsyncCaller:
    def __init__(self, door):
        self.door = door

    async def call(self):
        await self.door.wait.remote()


def section_of(title, text):
    """The lines under the line that begins with `== ` and holds the title."""
    sections = re.split(r"^== ", text, flags=re.MULTILINE)
    (found,) = [section for section in sections if title in section.partition("\n")[0]]
    return found


@pytest.fixture
def door():
    door = Door.remote()
    klieg.get(door.pid.remote())
    yield door
    klieg.get(door.open.remote())


def test_a_suspended_call_is_shown_with_its_whole_await_stack(door):
    ref = door.outer.remote()
    klieg.get(door.pid.remote())
    text = section_of("Actor(Door", klieg.dump())
    at = [text.index(f"in {name}\n") for name in ("outer", "inner", "items")]
    assert at == sorted(at)
    assert re.search(r"Door\.outer #\d+ in group default, for \d+\.\d s", text)
    klieg.get([door.open.remote(), ref])


def test_what_a_gather_waits_for_is_shown(door):
    ref = door.group.remote()
    text = wait_until_dumped(r"(?s)(waits for Task-\d+ \(Door\.wait\):\n[^\n]+ in wait\n.*){2}")
    assert "in the background" not in section_of("Actor(Door", text)
    klieg.get([door.open.remote(), ref])


def test_tasks_in_the_background_are_shown_and_who_started_them(door):
    klieg.get(door.leave_behind.remote())
    text = section_of("Actor(Door", klieg.dump())
    assert "in the background: left behind (Door.outer)" in text


@pytest.mark.not_on_ray("the driver knows its own actors, and no process that does not answer")
def test_calls_at_one_place_are_shown_together(door):
    refs = [door.wait.remote() for _ in range(500)]
    klieg.get(door.pid.remote())
    text = section_of("Actor(Door", klieg.dump())
    assert "and 497 more at the same place" in text
    assert text.count("in wait\n") == 2  # the method's, and that of the event
    klieg.get([door.open.remote(), *refs])


def test_a_full_group_is_shown_with_what_holds_it_and_what_waits(gate, journal):
    @klieg.remote(max_concurrency=2, concurrency_groups={"io": 1})
    class Pool:
        def work(self, gate):
            journal.note("in")
            gate.wait()

    pool = Pool.options(name="the pool").remote()
    refs = [pool.work.remote(gate) for _ in range(6)]
    journal.take(2)
    text = section_of("Actor(Pool", klieg.dump())
    assert "named 'the pool', threaded" in text
    assert re.search(r"group default: 2 of 2 running, 4 queued FULL; next: Pool\.work #\d+, .* and 1 more", text)
    assert "group io: 0 of 1 running, 0 queued" in text
    assert "in work\n" in text
    gate.open()
    klieg.get(refs)


@pytest.mark.parametrize("caller_class", [Caller, AsyncCaller], ids=["plain", "async"])
def test_who_waits_for_whom_is_shown(door, caller_class):
    caller = caller_class.remote(door)
    ref = caller.call.remote()
    klieg.get(door.pid.remote())
    name = caller_class._cls.__name__
    text = wait_until_dumped(rf"{name}\.call #\d+ -> Door\.wait of Actor\(Door, [0-9a-f]+\): runs in pid \d+")
    assert re.search(rf"{name}\.call of Actor\({name}, [0-9a-f]+\): runs in pid \d+", text)
    klieg.get([door.open.remote(), ref])


def wait_until_dumped(pattern):
    deadline = time.monotonic() + 10
    while not re.search(pattern, text := klieg.dump()):
        assert time.monotonic() < deadline, text
    return text


def test_a_call_that_waits_for_its_arguments_says_so(door):
    ref = door.wait.remote()

    @klieg.remote
    def use(x):
        return x

    late = use.remote(ref)
    assert re.search(r"use of a worker: waits for its arguments", klieg.dump())
    klieg.get([door.open.remote(), late])


@pytest.mark.not_on_ray("the driver knows its own actors, and no process that does not answer")
def test_tasks_and_those_that_wait_for_resources_are_shown(gate, journal):
    @klieg.remote(num_cpus=3)
    def hold(gate):
        journal.note("in")
        gate.wait()

    refs = [hold.remote(gate) for _ in range(2)]
    journal.next()
    text = klieg.dump()
    assert re.search(r"hold #\d+ in group default", section_of("worker of tasks", text))
    assert "in hold\n" in text
    assert re.search(r"hold of a worker: waits for (a worker|resources)", text)
    gate.open()
    klieg.get(refs)


def test_async_tasks_are_shown_with_their_await_stacks(door):
    @klieg.remote(max_concurrency=3)
    async def visit(door):
        await door.wait.remote()

    refs = [visit.remote(door) for _ in range(3)]
    text = wait_until_dumped(r"visit #\d+, [^\n]*visit #\d+ in group default")
    assert "await door.wait.remote()" in text
    klieg.get([door.open.remote(), *refs])


def test_threads_of_the_users_own_are_shown():
    opened = threading.Event()

    def a_function_of_mine():
        opened.wait()

    thread = threading.Thread(target=a_function_of_mine, name="mine")
    thread.start()
    text = klieg.dump()
    opened.set()
    thread.join()
    assert "thread mine:" in text
    assert "in a_function_of_mine\n" in text


@pytest.mark.not_on_ray("the driver knows its own actors, and no process that does not answer")
def test_a_constructor_that_has_not_returned_is_told(gate, journal):
    @klieg.remote
    class Slow:
        def __init__(self, gate):
            journal.note("in")
            gate.wait()

        async def ping(self):
            pass

    slow = Slow.remote(gate)
    journal.next()
    assert "its constructor has not returned" in section_of("Actor(Slow", klieg.dump())
    gate.open()
    klieg.get(slow.ping.remote())


def test_a_held_loop_is_shown_where_it_is_held(gate, journal):
    @klieg.remote
    class Held:
        async def hold(self, gate):
            journal.note("in")
            gate.wait()

    held = Held.remote()
    ref = held.hold.remote(gate)
    journal.next()
    section_of("Actor(Held", wait_until_dumped(r"in hold\n +gate\.wait\(\)"))
    gate.open()
    klieg.get(ref)


@pytest.mark.not_on_ray("the driver knows its own actors, and no process that does not answer")
def test_a_task_may_ask_for_the_dump(door):
    ref = door.wait.remote()
    klieg.get(door.pid.remote())
    text = klieg.get(klieg.remote(klieg.dump).remote())
    assert "Door.wait #" in section_of("Actor(Door", text)
    assert section_of("driver", text)
    klieg.get([door.open.remote(), ref])


def test_without_a_runtime_there_is_nothing_to_dump():
    klieg.shutdown()
    with pytest.raises(klieg.exceptions.KliegError, match="init"):
        klieg.dump()


@pytest.mark.not_on_ray("the driver knows its own actors, and no process that does not answer")
@pytest.mark.needs_process("inline there are no other processes")
def test_a_stopped_process_is_named_within_the_bound(door):
    other = Door.remote()
    pid = klieg.get(door.pid.remote())
    klieg.get(other.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        text = klieg.dump(timeout=0.3)
        assert time.monotonic() - begin < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"== Door, pid {pid}: does not answer; it is stopped (SIGSTOP)" in text
    assert section_of("Actor(Door", text)  # the other one
    assert klieg.get(door.pid.remote()) == pid


@pytest.mark.not_on_ray("the driver knows its own actors, and no process that does not answer")
@pytest.mark.needs_process("inline it would be the test's own GIL")
def test_a_process_whose_gil_is_held_shows_its_stacks_all_the_same(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    @klieg.remote
    class Holder:
        def hold(self, path):
            import ctypes

            opened = ctypes.PyDLL(None).open  # a PyDLL does not let go of the GIL; this one waits for a reader
            return opened(path.encode(), os.O_WRONLY)

        def ping(self):
            return True

    holder = Holder.remote()
    klieg.get(holder.ping.remote())
    ref = holder.hold.remote(str(fifo))
    text = wait_until_dumped_silent("Holder")
    assert "holds the GIL" in text
    assert "in hold" in text
    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
    assert klieg.get(ref) > 2


def wait_until_dumped_silent(title):
    deadline = time.monotonic() + 10
    while f"== {title}, pid" not in (text := klieg.dump(timeout=0.5)):
        assert time.monotonic() < deadline, text
    return section_of(f"{title}, pid", text)
