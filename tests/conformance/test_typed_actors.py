"""`klieg.TypedActor` is for type checkers: at run time a class with it is as any other."""

from __future__ import annotations

import klieg


@klieg.remote
class Counter(klieg.TypedActor):
    def __init__(self, start: int) -> None:
        self.value = start

    @klieg.method
    def add(self, times: int) -> int:
        self.value += times
        return self.value

    @klieg.method(num_returns=2)
    def both(self) -> tuple[int, int]:
        return self.add(0), self.add(1)

    async def _hidden(self) -> None:
        return


def test_a_typed_actor_works_as_any_other():
    counter = Counter.options(name="the typed one").remote(1)
    assert klieg.get(counter.add.remote(2)) == 3
    assert klieg.get(counter.both.remote()) == [3, 4]
    assert klieg.get(klieg.get_actor("the typed one").add.remote(0)) == 4
    assert isinstance(counter, klieg.ActorHandle)
    klieg.kill(counter)


def test_completion_knows_the_methods_of_a_handle():
    counter = Counter.remote(1)
    assert {"add", "both", "_hidden", "__init__"} <= set(dir(counter))
    assert "value" not in dir(counter)
    assert "remote" not in dir(counter)
    assert all(callable(getattr(counter, name).remote) for name in dir(counter) if not name.startswith("__"))


def test_the_classes_of_handles_and_methods_can_be_subscripted():
    assert repr(klieg.ActorHandle[int]).startswith("klieg.actor.ActorHandle[")
    assert repr(klieg.ActorClass[int]).startswith("klieg.actor.ActorClass[")
