"""What goes in and what comes out: copies, refs in their places, and clear refusals."""

import array
import collections
import dataclasses
import enum
import socket
import threading

import pytest

import klieg

numpy = pytest.importorskip("numpy")


@klieg.remote
def echo(x):
    return x


@klieg.remote
def kind(x):
    return type(x).__name__


@klieg.remote
def collect(*args, **kwargs):
    return args, kwargs


def test_top_level_refs_are_replaced_by_their_values():
    refs = [klieg.put(i) for i in range(4)]
    assert klieg.get(collect.remote(refs[0], 10, refs[1], a=refs[2], b=refs[3])) == (
        (0, 10, 1),
        {"a": 2, "b": 3},
    )


@pytest.mark.parametrize(
    "wrap",
    [lambda r: [r], lambda r: (r,), lambda r: {"k": r}, lambda r: {1: [r]}],
    ids=["list", "tuple", "dict", "deeper"],
)
def test_nested_refs_stay_refs(wrap):
    @klieg.remote
    def open_up(x):
        while not isinstance(x, klieg.ObjectRef):
            x = next(iter(x.values())) if isinstance(x, dict) else x[0]
        return klieg.get(x)

    assert klieg.get(open_up.remote(wrap(klieg.put(5)))) == 5


def test_a_ref_comes_back_from_a_task():
    @klieg.remote
    def make():
        return [klieg.put("made there")]

    (ref,) = klieg.get(make.remote())
    assert klieg.get(ref) == "made there"


def test_a_ref_of_a_running_call_comes_back_and_resolves_later(gate):
    @klieg.remote
    def wait_at(gate):
        gate.wait()
        return "late"

    @klieg.remote
    class Holder:
        def start(self, gate):
            self.ref = wait_at.remote(gate)
            return [self.ref]

    holder = Holder.remote()
    (ref,) = klieg.get(holder.start.remote(gate))
    assert klieg.wait([ref], timeout=0)[0] == []
    gate.open()
    assert klieg.get(ref) == "late"


def test_a_ref_goes_through_three_hands():
    @klieg.remote
    def pass_on(box, left):
        return klieg.get(pass_on.remote(box, left - 1)) if left else klieg.get(box[0])

    assert klieg.get(pass_on.remote([klieg.put("far")], 3)) == "far"


def test_an_actor_keeps_a_ref_that_the_driver_drops():
    @klieg.remote
    class Holder:
        def keep(self, box):
            self.box = box

        def read(self):
            return klieg.get(self.box[0])

    holder = Holder.remote()
    ref = klieg.put([1, 2, 3])
    klieg.get(holder.keep.remote([ref]))
    del ref
    assert klieg.get(holder.read.remote()) == [1, 2, 3]


def test_arguments_are_snapshots(gate):
    @klieg.remote
    class Actor:
        def take(self, gate, value):
            gate.wait()
            return value

    value = [1]
    ref = Actor.remote().take.remote(gate, value)
    value.append(2)
    gate.open()
    assert klieg.get(ref) == [1]


def test_a_task_cannot_change_the_callers_object():
    @klieg.remote
    def spoil(value):
        value.append("spoilt")

    value = []
    klieg.get(spoil.remote(value))
    assert value == []


def test_an_actors_state_cannot_be_reached_through_a_result():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.items = [1]

        def read(self):
            return self.items

    actor = Actor.remote()
    klieg.get(actor.read.remote()).append(2)
    assert klieg.get(actor.read.remote()) == [1]


def test_identity_is_kept_within_one_argument():
    @klieg.remote
    def same(pair):
        return pair[0] is pair[1]

    item = []
    assert klieg.get(same.remote((item, item))) is True


VALUES = {
    "none": None,
    "nan free float": 1.5,
    "large int": 10**100,
    "text": "αβγ\0",
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"abc"),
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "ordered": collections.OrderedDict(a=1),
    "deque": collections.deque([1], maxlen=3),
    "range": range(3),
    "complex": 1j,
    "slice": slice(1, 2),
    "array": array.array("i", [1, 2]),
    "ellipsis": ...,
    "class": int,
    "builtin": len,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_value_comes_back_equal_and_of_its_type(value):
    result = klieg.get(echo.remote(value))
    assert result == value
    assert type(result) is type(value)


def test_a_large_bytearray_stays_a_bytearray():
    value = bytearray(200_000)
    assert klieg.get(kind.remote(value)) == "bytearray"
    assert type(klieg.get(klieg.put(value))) is bytearray


def test_local_classes_enums_and_dataclasses_travel():
    @dataclasses.dataclass
    class Point:
        x: int

    class Colour(enum.Enum):
        RED = 1

    Pair = collections.namedtuple("Pair", "left right")
    point, colour, pair = klieg.get(echo.remote((Point(1), Colour.RED, Pair(1, 2))))
    assert point == Point(1)
    assert colour is Colour.RED
    assert pair == Pair(1, 2)


def test_a_cyclic_value_travels():
    value = [1]
    value.append(value)
    result = klieg.get(echo.remote(value))
    assert result[1] is result


def test_values_are_never_compared_or_asked_for_their_truth():
    class Touchy:
        def fail(self, *args):
            raise AssertionError("touched")

        __eq__ = __bool__ = __len__ = __hash__ = fail

    assert type(klieg.get(echo.remote(Touchy()))).__name__ == "Touchy"
    assert type(klieg.get(klieg.put(Touchy()))).__name__ == "Touchy"


def test_numpy_results_are_read_only_and_equal():
    value = numpy.arange(100_000)
    for result in (klieg.get(echo.remote(value)), klieg.get(klieg.put(value))):
        assert numpy.array_equal(result, value)
        with pytest.raises(ValueError, match="read-only"):
            result[0] = 1


def test_numpy_arguments_are_read_only_in_the_task():
    @klieg.remote
    def writeable(x):
        return x.flags.writeable

    assert klieg.get(writeable.remote(numpy.zeros(100_000))) is False


def test_numpy_object_arrays_can_be_changed():
    value = numpy.array([None, "a"], dtype=object)
    result = klieg.get(echo.remote(value))
    result[0] = 1
    assert result[0] == 1


def test_an_array_outlives_its_ref():
    result = klieg.get(klieg.put(numpy.arange(100_000)))
    assert int(result[-1]) == 99_999


def test_an_array_outlives_the_runtime(engine):
    result = klieg.get(echo.remote(numpy.arange(100_000)))
    klieg.shutdown()
    assert int(result.sum()) == 4_999_950_000
    klieg.init(engine=engine)


UNPICKLABLE = {
    "lock": threading.Lock,
    "generator": lambda: (i for i in range(3)),
    "thread": lambda: threading.Thread(target=len),
    "socket": socket.socket,
}


@pytest.mark.parametrize("make", UNPICKLABLE.values(), ids=UNPICKLABLE.keys())
def test_an_argument_that_cannot_be_pickled_raises_at_the_call(make):
    value = make()
    try:
        with pytest.raises(TypeError, match="echo"):
            echo.remote(value)
    finally:
        getattr(value, "close", lambda: None)()


def test_the_refusal_names_the_path_to_what_cannot_be_pickled():
    class Holder:
        def __init__(self):
            self.inner = {"key": [0, threading.Lock()]}

    with pytest.raises(TypeError) as caught:
        echo.remote(Holder())
    assert "lock" in str(caught.value)
    assert "inner" in str(caught.value)
    assert "key" in str(caught.value)


def test_a_keyword_argument_that_cannot_be_pickled_is_named():
    with pytest.raises(TypeError, match="lamp"):
        collect.remote(lamp=threading.Lock())


def test_an_argument_of_a_method_or_constructor_that_cannot_be_pickled_raises_at_the_call():
    @klieg.remote
    class Actor:
        def __init__(self, x=None):
            pass

        def take(self, x):
            pass

    with pytest.raises(TypeError, match="lock"):
        Actor.remote(threading.Lock())
    with pytest.raises(TypeError, match="lock"):
        Actor.remote().take.remote(threading.Lock())


@pytest.mark.needs_process("inline code is not pickled")
def test_a_closure_that_cannot_be_pickled_raises_at_the_call():
    lock = threading.Lock()

    @klieg.remote
    def use():
        return lock.locked()

    with pytest.raises(TypeError, match="lock"):
        use.remote()


def test_a_refused_call_leaves_everything_working():
    with pytest.raises(TypeError):
        echo.remote(threading.Lock())
    assert klieg.get(echo.remote(1)) == 1


def test_a_thousand_arguments_and_refs_arrive():
    refs = [klieg.put(i) for i in range(500)]
    args, _ = klieg.get(collect.remote(*refs, *range(500)))
    assert args == (*range(500), *range(500))


def test_a_chain_of_dependent_calls_is_no_recursion():
    ref = klieg.put(0)

    @klieg.remote
    class Adder:
        def add(self, x):
            return x + 1

    adder = Adder.remote()
    for _ in range(2000):
        ref = adder.add.remote(ref)
    assert klieg.get(ref) == 2000


def test_a_wide_fan_in_arrives():
    @klieg.remote
    class Actor:
        def echo(self, x):
            return x

    actor = Actor.remote()
    args, _ = klieg.get(collect.remote(*[actor.echo.remote(i) for i in range(300)]))
    assert args == tuple(range(300))


def test_a_handle_is_an_argument_and_a_result():
    @klieg.remote
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

    @klieg.remote
    def use(counter, nested):
        klieg.get(counter.add.remote())
        klieg.get(nested["here"][0].add.remote())
        return [counter]

    counter = Counter.remote()
    (returned,) = klieg.get(use.remote(counter, {"here": [counter]}))
    assert returned == counter
    assert klieg.get(returned.add.remote()) == 3


def test_a_bound_method_is_an_argument():
    @klieg.remote
    class Actor:
        def double(self, x):
            return 2 * x

    @klieg.remote
    def call(method, x):
        return klieg.get(method.remote(x))

    actor = Actor.remote()
    assert klieg.get(call.remote(actor.double, 4)) == 8


def test_an_actor_class_is_an_argument():
    @klieg.remote
    class Actor:
        def ping(self):
            return "pong"

    @klieg.remote
    def create(actor_class):
        return klieg.get(actor_class.remote().ping.remote())

    assert klieg.get(create.remote(Actor)) == "pong"


def test_returning_self_returns_a_copy():
    @klieg.remote
    class Actor:
        def __init__(self):
            self.value = 1

        def me(self):
            return self

        def read(self):
            return self.value

    actor = Actor.remote()
    copy = klieg.get(actor.me.remote())
    copy.value = 2
    assert klieg.get(actor.read.remote()) == 1
