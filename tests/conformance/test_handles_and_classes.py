"""Handles and actor classes: what can be called, compared, listed and refused."""

import abc
import dataclasses
import functools
import pickle
from typing import Generic, TypeVar

import pytest

import klieg

T = TypeVar("T")


class Base:
    def inherited(self):
        return "inherited"


@klieg.remote
class Full(Base):
    """An actor with one method of each kind."""

    data = 5

    def __init__(self, value=0):
        self.value = value

    def plain(self):
        return self.value

    def _private(self):
        return "private"

    def __mangled(self):
        return "mangled"

    def __len__(self):
        return 7

    def __call__(self, x):
        return ("called", x)

    @staticmethod
    def static(x=1):
        return ("static", x)

    @classmethod
    def of_class(cls):
        return cls.__name__

    @property
    def shown(self):
        return self.value

    def add(self, a, b):
        return a + b

    add_one = functools.partialmethod(add, 1)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("plain", (), 3),
        ("inherited", (), "inherited"),
        ("_private", (), "private"),
        ("_Full__mangled", (), "mangled"),
        ("__len__", (), 7),
        ("__call__", (1,), ("called", 1)),
        ("static", (2,), ("static", 2)),
        ("of_class", (), "Full"),
        ("add_one", (4,), 5),
    ],
)
def test_a_method_of_every_kind_can_be_called(name, args, expected):
    assert klieg.get(getattr(Full.remote(3), name).remote(*args)) == expected


@pytest.mark.parametrize("name", ["data", "shown", "value", "nothing"])
def test_what_is_no_method_is_no_attribute_of_a_handle(name):
    with pytest.raises(AttributeError, match=f"'ActorHandle' object.* has no attribute '{name}'"):
        getattr(Full.remote(), name)


def test_attributes_can_be_set_on_a_handle_locally():
    handle = Full.remote()
    handle.mine = 1
    assert handle.mine == 1


def test_dir_lists_the_methods():
    names = dir(Full.remote())
    assert {"plain", "_private", "inherited", "static", "__ray_ready__"} <= set(names)


def test_an_actor_class_cannot_be_instantiated_directly():
    with pytest.raises(TypeError, match=r"Actors cannot be instantiated directly.*Full\.remote"):
        Full()


def test_a_method_cannot_be_called_directly():
    with pytest.raises(TypeError, match=r"Actor methods cannot be called directly.*plain\.remote"):
        Full.remote().plain()


def test_an_actor_class_cannot_be_subclassed():
    with pytest.raises(klieg.actor.ActorClassInheritanceException):

        class Sub(Full):
            pass

    assert issubclass(klieg.actor.ActorClassInheritanceException, TypeError)


def test_inherit_from_the_plain_class_and_decorate_the_leaf():
    class Plain:
        def ping(self):
            return "pong"

    @klieg.remote
    class Leaf(Plain):
        pass

    assert klieg.get(Leaf.remote().ping.remote()) == "pong"


def test_what_is_remote_cannot_be_made_remote_again():
    with pytest.raises(TypeError):
        klieg.remote(Full)


def test_class_attributes_and_static_methods_can_be_reached_on_the_class():
    assert Full.data == 5
    assert Full.static(3) == ("static", 3)


def test_handles_are_equal_by_actor():
    first, second = Full.remote(), Full.options(name="second").remote()
    assert first == first
    assert first != second
    assert klieg.get_actor("second") == second
    assert len({first, second, klieg.get_actor("second")}) == 2


def test_a_handle_prints_class_and_id():
    handle = Full.remote()
    assert repr(handle).startswith("Actor(Full, ")
    assert handle._actor_id.hex() in repr(handle)


def test_a_handle_and_a_ref_can_be_pickled_out_of_band():
    handle = Full.remote(3)
    ref = handle.plain.remote()
    other_handle, other_ref = pickle.loads(pickle.dumps((handle, ref)))
    assert other_handle == handle
    assert klieg.get([other_ref, other_handle.plain.remote()]) == [3, 3]


def test_the_page_of_types_is_there():
    handle = Full.remote()
    assert isinstance(handle, klieg.actor.ActorHandle)
    assert isinstance(handle.plain, klieg.actor.ActorMethod)
    assert isinstance(Full, klieg.actor.ActorClass)


def dataclass():
    @dataclasses.dataclass
    class Point:
        x: int = 4

        def ping(self):
            return self.x

    return Point


def slots():
    class Slots:
        __slots__ = ("x",)

        def __init__(self):
            self.x = 4

        def ping(self):
            return self.x

    return Slots


def generic():
    class Box(Generic[T]):
        def ping(self):
            return 4

    return Box


def metaclass():
    class Meta(type):
        pass

    class Made(metaclass=Meta):
        def ping(self):
            return 4

    return Made


def abstract():
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def ping(self): ...

    class Concrete(Abstract):
        def ping(self):
            return 4

    return Concrete


def with_getattr():
    class Open:
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return 4

        def ping(self):
            return self.anything

    return Open


def with_super():
    class Parent:
        def ping(self):
            return 3

    class Child(Parent):
        def ping(self):
            return super().ping() + 1

    return Child


def with_new():
    class New:
        def __new__(cls):
            made = super().__new__(cls)
            made.x = 4
            return made

        def ping(self):
            return self.x

    return New


@pytest.mark.parametrize(
    "make",
    [dataclass, slots, generic, metaclass, abstract, with_getattr, with_super, with_new],
    ids=lambda make: make.__name__,
)
def test_any_class_can_be_an_actor(make):
    assert klieg.get(klieg.remote(make()).remote().ping.remote()) == 4


def test_method_options_are_declared_on_the_method():
    @klieg.remote
    class Actor:
        @klieg.method(num_returns=2)
        def pair(self):
            return 1, 2

        @klieg.method
        def bare(self):
            return 1

        @klieg.method()
        def empty(self):
            return 1

    actor = Actor.remote()
    assert klieg.get(actor.pair.remote()) == [1, 2]
    assert klieg.get([actor.bare.remote(), actor.empty.remote()]) == [1, 1]


def test_call_options_win_over_declared_ones():
    @klieg.remote
    class Actor:
        @klieg.method(num_returns=2)
        def pair(self):
            return 1, 2

    assert klieg.get(Actor.remote().pair.options(num_returns=1).remote()) == (1, 2)


def test_a_call_on_a_temporary_handle_works():
    assert klieg.get(Full.remote(9).plain.remote()) == 9


def test_a_class_redefined_under_the_same_name_is_another_class():
    def make(answer):
        @klieg.remote
        class Actor:
            def ping(self):
                return answer

        return Actor

    first, second = make(1).remote(), make(2).remote()
    assert klieg.get([first.ping.remote(), second.ping.remote()]) == [1, 2]
