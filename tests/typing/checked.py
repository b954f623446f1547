"""Read by type checkers, never run: what they must infer, and (`# error`) where they must object."""

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import klieg
from klieg import ActorHandle, ObjectRef, ObjectRefGenerator, TypedActor

# Functions


@klieg.remote
def half(number: int, *, digits: int = 2) -> float:
    return round(number / 2, digits)


@klieg.remote(num_cpus=2)
def shout(text: str) -> str:
    return text.upper()


@klieg.remote(max_concurrency=3)
async def fetch(page: int) -> bytes:
    return b""


@klieg.remote
def count(to: int) -> Iterator[int]:
    yield to


@klieg.remote
def letters() -> Generator[str, None, None]:
    yield "a"


@klieg.remote(num_returns=2)
def pair() -> tuple[int, str]:
    return 1, ""


assert_type(half.remote(3, digits=1), ObjectRef[float])
assert_type(shout.remote("a"), ObjectRef[str])
assert_type(shout.options(num_cpus=1).remote("a"), ObjectRef[str])
assert_type(fetch.remote(1), ObjectRef[bytes])
assert_type(count.remote(3), ObjectRefGenerator[int])
assert_type(letters.remote(), ObjectRefGenerator[str])
first, second = pair.remote()
one, two = shout.options(num_returns=2).remote("a")
half.remote("3")  # error
half.remote(3, colour=1)  # error
half.remote()  # error
shout.options(num_cpus=1).remote(3)  # error
half.nonsense  # error

# Refs

ref = half.remote(1)
assert_type(klieg.get(ref), float)
assert_type(klieg.get([ref, ref]), list[float])
assert_type(klieg.wait([ref], num_returns=1, timeout=1.0), tuple[list[ObjectRef[float]], list[ObjectRef[float]]])
assert_type(klieg.put("a"), ObjectRef[str])
assert_type(klieg.get(klieg.put("a")), str)
assert_type(ref.future().result(), float)
klieg.get(ref, timeout="soon")  # error
klieg.wait(ref)  # error


async def main() -> None:
    assert_type(await half.remote(1), float)
    assert_type(await fetch.remote(1), bytes)
    async for item in count.remote(3):
        assert_type(item, ObjectRef[int])
        assert_type(await item, int)


for each in count.remote(3):
    assert_type(each, ObjectRef[int])

# Typed actors


@klieg.remote
class Counter(TypedActor):
    def __init__(self, start: int, step: int = 1) -> None:
        self.value = start
        self.step = step

    @klieg.method
    def add(self, times: int) -> int:
        self.value += times * self.step
        return self.value

    @klieg.method
    async def add_later(self, times: int, *, seconds: float = 0) -> int:
        return self.add(times) + await self.wait(seconds)

    @klieg.method(run_in="thread")
    def wait(self, seconds: float) -> "Awaitable":
        return Awaitable()

    @klieg.method
    def past(self) -> Iterator[int]:
        yield self.value

    @klieg.method
    async def future(self) -> AsyncIterator[str]:
        yield ""

    @klieg.method(num_returns=2)
    def both(self) -> tuple[int, int]:
        value, step = self.both()
        return value, step

    def forgotten(self) -> None:
        return


class Awaitable:
    def __await__(self) -> Generator[Any, None, int]:
        yield
        return 1


@klieg.remote(num_cpus=1, max_concurrency=3)
class Named(TypedActor):
    @klieg.method
    def name(self) -> str:
        return ""


counter = Counter.remote(1, step=2)
assert_type(counter, Counter)
assert_type(counter.add.remote(1), ObjectRef[int])
assert_type(counter.add.options(timeout=1.0).remote(1), ObjectRef[int])
assert_type(counter.add_later.remote(1, seconds=0.5), ObjectRef[int])
assert_type(counter.past.remote(), ObjectRefGenerator[int])
assert_type(counter.future.remote(), ObjectRefGenerator[str])
assert_type(klieg.get(counter.add.remote(1)), int)
assert_type(klieg.get([counter.add.remote(1)]), list[int])
assert_type(Counter.options(name="c").remote(1), Counter)
assert_type(Named.remote().name.remote(), ObjectRef[str])
assert_type(counter.stats(), dict[str, dict[str, int]])
value, step = counter.both.remote()
counter.resize(3)
klieg.kill(counter)
klieg.Executor(actor=counter)
Counter.remote()  # error
Counter.remote("1")  # error
Counter.options(name="c").remote("1")  # error
Named.remote(1)  # error
counter.add.remote("1")  # error
counter.add.remote(1, 2)  # error
counter.add_later.remote(1, minutes=1)  # error
counter.add.options(timeout=1.0).remote("1")  # error
counter.forgotten.remote()  # error
counter.nonsense  # error
klieg.kill(3)  # error

# Plain classes


class Plain:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, times: int) -> int:
        return self.value + times


Remote = klieg.remote(Plain)
handle = Remote.remote(1)
assert_type(handle, ActorHandle[Plain])
assert_type(Remote.options(num_cpus=1).remote(1), ActorHandle[Plain])
handle.add.remote(1)
klieg.kill(handle)
klieg.get_actor("name").add.remote(1)
