"""Errors: the original type, its text, the remote traceback, its cause; and the actor lives on."""

import asyncio
import pickle
import threading

import pytest

import klieg
from klieg.exceptions import KliegError, TaskError


def by_get(ref):
    return klieg.get(ref)


def by_await(ref):
    async def main():
        return await ref

    return asyncio.run(main())


def by_future(ref):
    return ref.future().result(10)


def by_dependency(ref):
    @klieg.remote
    def take(value):
        return value

    return klieg.get(take.remote(ref))


STYLES = [by_get, by_await, by_future, by_dependency]


SHAPES = {}
"""Fourteen shapes of an exception that a library may raise: name to what makes one."""


def shape(function):
    """Enter a shape into the table.

    Its name in this module is taken away, so that it travels by value and no worker imports pytest.
    """
    SHAPES[function.__name__] = function


@shape
def required_positional():
    class NeedsTwo(Exception):
        def __init__(self, code, reason):
            super().__init__(f"{code}: {reason}")
            self.code = code

    return NeedsTwo(7, "the text")


@shape
def required_keyword():
    class NeedsKeyword(Exception):
        def __init__(self, message, *, response):
            super().__init__(message)
            self.response = response

    return NeedsKeyword("the text", response=42)


@shape
def constructor_without_arguments():
    class TakesNone(Exception):
        def __init__(self):
            super().__init__("the text")

    return TakesNone()


@shape
def reduce_raises():
    class ReduceRaises(Exception):
        def __reduce__(self):
            raise RuntimeError("no pickle")

    return ReduceRaises("the text")


@shape
def reduce_exits():
    class ReduceExits(Exception):
        def __reduce__(self):
            raise SystemExit(3)

    return ReduceExits("the text")


@shape
def text_raises():
    class TextRaises(Exception):
        def __str__(self):
            raise RuntimeError("no text")

        __repr__ = __str__

    return TextRaises("the text")


@shape
def read_only_args():
    class ReadOnlyArgs(Exception):
        @property
        def args(self):
            return ("the text",)

    return ReadOnlyArgs()


@shape
def group():
    return ExceptionGroup("the text", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])


@shape
def cause_with_a_cycle():
    error, other = ValueError("the text"), KeyError("other")
    error.__cause__, other.__cause__ = other, error
    error.add_note("a note")
    return error


@shape
def holds_a_lock():
    error = ValueError("the text")
    error.lock = threading.Lock()
    return error


@shape
def with_errno():
    return FileNotFoundError(2, "the text", "some-file")


@shape
def unicode_error():
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "the text")


@shape
def memory_error():
    return MemoryError("the text")


@shape
def recursion_error():
    return RecursionError("the text")


def raise_on(actor_class, make):
    error = make()
    actor = actor_class.remote()
    return actor, actor.fail.remote(make), type(error).__name__


@klieg.remote
class Raiser:
    def fail(self, make):
        raise make()

    def ping(self):
        return True


@klieg.remote
class AsyncRaiser:
    async def fail(self, make):
        raise make()

    async def ping(self):
        return True


def name_of(function):
    return function.__name__


def original_names(error):
    return {cls.__name__ for cls in type(error).__mro__} | {type(error.cause).__name__}


@pytest.mark.parametrize("style", STYLES, ids=name_of)
@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_comes_home_by_every_way(make, style):
    actor, ref, name = raise_on(Raiser, make)
    with pytest.raises(TaskError) as caught:
        style(ref)
    assert name in original_names(caught.value)
    assert "in fail" in caught.value.traceback_str
    assert caught.value.cause is not None
    assert klieg.get(actor.ping.remote()) is True


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_comes_home_from_an_async_actor(make):
    actor, ref, name = raise_on(AsyncRaiser, make)
    with pytest.raises(TaskError) as caught:
        by_get(ref)
    assert name in original_names(caught.value)
    assert klieg.get(actor.ping.remote()) is True


@pytest.mark.parametrize("actor_class", [Raiser, AsyncRaiser], ids=["plain", "async"])
@pytest.mark.parametrize("style", STYLES[:3], ids=name_of)
@pytest.mark.parametrize("cls", [GeneratorExit, KeyboardInterrupt], ids=name_of)
def test_exceptions_beside_exception_come_as_plain_task_errors(cls, style, actor_class):
    actor, ref, _ = raise_on(actor_class, lambda: cls("the text"))
    with pytest.raises(TaskError) as caught:
        style(ref)
    assert isinstance(caught.value.cause, cls)
    assert not isinstance(caught.value, cls)
    assert klieg.get(actor.ping.remote()) is True


@pytest.mark.parametrize("style", STYLES, ids=name_of)
def test_a_base_exception_of_the_user_is_an_exception_at_home(style):
    class MyBase(BaseException):
        pass

    actor, ref, _ = raise_on(Raiser, lambda: MyBase("the text"))
    with pytest.raises(TaskError) as caught:
        style(ref)
    assert isinstance(caught.value, Exception)
    assert type(caught.value.cause).__name__ == "MyBase"
    assert klieg.get(actor.ping.remote()) is True


@pytest.mark.parametrize("style", STYLES, ids=name_of)
@pytest.mark.parametrize("cls", [StopIteration, StopAsyncIteration], ids=name_of)
def test_the_end_of_an_iteration_is_a_plain_task_error_by_every_way(cls, style):
    actor, ref, _ = raise_on(Raiser, lambda: cls("the text"))
    with pytest.raises(TaskError) as caught:
        style(ref)
    assert isinstance(caught.value.cause, cls)
    assert not isinstance(caught.value, cls)
    assert klieg.get(actor.ping.remote()) is True


def test_stop_iteration_in_an_async_method_is_what_python_makes_of_it():
    _, ref, _ = raise_on(AsyncRaiser, StopIteration)
    with pytest.raises(RuntimeError, match="StopIteration"):
        klieg.get(ref)


@pytest.mark.parametrize("actor_class", [Raiser, AsyncRaiser], ids=["plain", "async"])
@pytest.mark.parametrize("style", STYLES[:3], ids=name_of)
def test_a_cancelled_error_of_the_users_is_an_error_and_no_cancellation(style, actor_class):
    actor, ref, _ = raise_on(actor_class, lambda: asyncio.CancelledError("the text"))
    with pytest.raises(KliegError) as caught:
        style(ref)
    assert not isinstance(caught.value, asyncio.CancelledError)
    assert klieg.get(actor.ping.remote()) is True


def test_the_error_is_also_an_instance_of_the_original_type():
    _, ref, _ = raise_on(Raiser, lambda: ValueError("the text"))
    with pytest.raises(ValueError, match="the text") as caught:
        klieg.get(ref)
    error = caught.value
    assert [cls.__name__ for cls in type(error).__mro__][:3] == [
        "TaskError(ValueError)",
        "TaskError",
        "KliegError",
    ]
    assert type(error.cause) is ValueError
    assert error.args == (error.cause,)
    assert error.__cause__ is error.cause


def test_attributes_of_the_cause_are_reachable():
    _, ref, _ = raise_on(Raiser, SHAPES["required_keyword"])
    with pytest.raises(TaskError) as caught:
        klieg.get(ref)
    assert caught.value.response == 42
    assert caught.value.cause.response == 42


def test_members_that_c_keeps_come_home():
    _, ref, _ = raise_on(Raiser, SHAPES["with_errno"])
    with pytest.raises(FileNotFoundError) as caught:
        klieg.get(ref)
    assert (caught.value.errno, caught.value.filename) == (2, "some-file")


def test_notes_come_home():
    _, ref, _ = raise_on(Raiser, SHAPES["cause_with_a_cycle"])
    with pytest.raises(ValueError) as caught:
        klieg.get(ref)
    assert caught.value.__notes__ == ["a note"]


def test_the_chain_of_causes_comes_home():
    @klieg.remote
    def fail():
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("the text") from error

    with pytest.raises(ValueError) as caught:
        klieg.get(fail.remote())
    assert isinstance(caught.value.cause.__cause__, KeyError)
    assert "missing" in caught.value.traceback_str


def test_an_exception_group_can_be_taken_apart():
    _, ref, _ = raise_on(Raiser, SHAPES["group"])
    found = []
    try:
        klieg.get(ref)
    except* ValueError as part:
        found.append(len(part.exceptions))
    except* KeyError as part:
        found.append(len(part.exceptions))
    assert found == [1, 1]


def test_the_text_is_the_remote_traceback_without_our_own_frames():
    @klieg.remote
    def outer():
        inner()

    def inner():
        raise ValueError("the text")

    with pytest.raises(ValueError) as caught:
        klieg.get(outer.remote())
    text = str(caught.value)
    assert "outer" in text.splitlines()[0]
    assert "pid=" in text
    assert "in inner" in text
    assert text.rstrip().endswith("ValueError: the text")
    assert "klieg/engines" not in text


def test_raising_the_same_ref_twice_does_not_grow_the_traceback():
    _, ref, _ = raise_on(Raiser, lambda: ValueError("the text"))
    depths = []
    for _ in range(3):
        with pytest.raises(ValueError) as caught:
            klieg.get(ref)
        depths.append(len(caught.traceback))
    assert depths[0] == depths[2]


def test_an_error_that_passes_through_tasks_keeps_its_cause():
    @klieg.remote
    def inner():
        raise KeyError("the reason")

    @klieg.remote
    def outer():
        return klieg.get(inner.remote())

    with pytest.raises(KeyError) as caught:
        klieg.get(outer.remote())
    assert type(caught.value).__name__ == "TaskError(KeyError)"
    assert type(caught.value.cause) is KeyError
    assert "in inner" in str(caught.value)
    assert "in outer" in str(caught.value)


def test_a_dependant_does_not_run_and_says_so(journal):
    @klieg.remote
    def fail():
        raise ValueError("the text")

    @klieg.remote
    def dependant(value):
        journal.note("ran")

    with pytest.raises(ValueError, match="the text"):
        klieg.get(dependant.remote(fail.remote()))
    assert journal.unread() == []


def test_an_error_goes_down_a_chain_of_dependants():
    @klieg.remote
    def fail():
        raise ValueError("the text")

    @klieg.remote
    def pass_on(value):
        return value

    ref = fail.remote()
    for _ in range(20):
        ref = pass_on.remote(ref)
    with pytest.raises(ValueError, match="the text"):
        klieg.get(ref)


def test_a_returned_exception_is_a_value():
    @klieg.remote
    def give():
        return [ValueError("a value"), klieg.exceptions.GetTimeoutError("another")]

    first, second = klieg.get(give.remote())
    assert isinstance(first, ValueError)
    assert isinstance(second, klieg.exceptions.GetTimeoutError)


def test_a_returned_error_of_our_own_is_a_value_too():
    @klieg.remote
    def give():
        return klieg.exceptions.GetTimeoutError("a value")

    assert isinstance(klieg.get(give.remote()), klieg.exceptions.GetTimeoutError)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_can_be_pickled(protocol):
    _, ref, _ = raise_on(Raiser, lambda: ValueError("the text"))
    with pytest.raises(ValueError) as caught:
        klieg.get(ref)
    copy = pickle.loads(pickle.dumps(caught.value, protocol))
    assert isinstance(copy, ValueError)
    assert isinstance(copy, TaskError)
    assert str(copy) == str(caught.value)


def test_a_class_that_refuses_subclassing_gives_a_plain_task_error():
    def final_class():
        class Final(Exception):
            def __init_subclass__(cls):
                raise TypeError("final")

        return Final("the text")

    _, ref, _ = raise_on(Raiser, final_class)
    with pytest.raises(TaskError) as caught:
        klieg.get(ref)
    assert type(caught.value).__name__ == "TaskError"
    assert type(caught.value.cause).__name__ == "Final"


def test_a_result_that_cannot_be_pickled_is_an_error_that_names_it():
    @klieg.remote
    class Actor:
        def give(self):
            return {"inner": [threading.Lock()]}

        def ping(self):
            return True

    actor = Actor.remote()
    with pytest.raises(TypeError, match="lock") as caught:
        klieg.get(actor.give.remote())
    assert "give" in str(caught.value)
    assert "inner" in str(caught.value)
    assert klieg.get(actor.ping.remote()) is True


def test_a_result_nested_too_deep_is_an_error():
    @klieg.remote
    class Actor:
        def give(self):
            deep = []
            for _ in range(50_000):
                deep = [deep]
            return deep

        def ping(self):
            return True

    actor = Actor.remote()
    with pytest.raises(TaskError):
        klieg.get(actor.give.remote())
    assert klieg.get(actor.ping.remote()) is True


def test_endless_recursion_is_an_error():
    @klieg.remote
    class Actor:
        def recurse(self):
            return self.recurse()

        def ping(self):
            return True

    actor = Actor.remote()
    with pytest.raises(RecursionError):
        klieg.get(actor.recurse.remote())
    assert klieg.get(actor.ping.remote()) is True


def test_a_returned_generator_is_an_error_with_a_hint():
    @klieg.remote
    class Actor:
        def give(self):
            return (i for i in range(3))

    with pytest.raises(TypeError, match="streaming"):
        klieg.get(Actor.remote().give.remote())


def test_a_result_that_exits_when_it_is_loaded_is_an_error():
    @klieg.remote
    def give():
        class ExitsWhenLoaded:
            def __reduce__(self):
                return exit, (5,)

        return ExitsWhenLoaded()

    with pytest.raises(KliegError):
        klieg.get(give.remote())


def test_an_argument_that_raises_when_it_is_loaded_is_an_error():
    class RaisesWhenLoaded:
        def __reduce__(self):
            return int, ("no number",)

    @klieg.remote
    class Actor:
        def take(self, value):
            return value

        def ping(self):
            return True

    actor = Actor.remote()
    with pytest.raises(ValueError, match="no number"):
        klieg.get(actor.take.remote(RaisesWhenLoaded()))
    assert klieg.get(actor.ping.remote()) is True


def test_an_error_with_a_text_of_many_megabytes_is_cut():
    @klieg.remote
    def fail():
        raise ValueError("x" * 20_000_000)

    with pytest.raises(ValueError) as caught:
        klieg.get(fail.remote())
    assert len(str(caught.value)) < 5_000_000


def test_wrong_arguments_inside_the_function_are_the_functions_own():
    @klieg.remote
    def call_wrongly():
        return int("x", y=1)

    with pytest.raises(TypeError):
        klieg.get(call_wrongly.remote())


def test_the_names_that_rays_programs_catch_are_there():
    names = klieg.exceptions
    assert names.RayError is names.KliegError
    assert names.RayTaskError is names.TaskError
    assert names.RayActorError is names.ActorError
    assert issubclass(names.ActorDiedError, names.ActorError)
    assert issubclass(names.ActorUnavailableError, names.ActorError)
