"""Options are checked where they are written: the decorator, `.options()`, `@method`."""

import pytest

import klieg


def function():
    return 1


class Plain:
    def ping(self):
        return 1


@pytest.mark.parametrize("target", [function, Plain], ids=["function", "class"])
def test_an_unknown_option_is_refused_with_the_valid_ones(target):
    with pytest.raises(ValueError, match="num_cpus"):
        klieg.remote(no_such_option=1)(target)
    with pytest.raises(ValueError, match="no_such_option"):
        klieg.remote(target).options(no_such_option=1)


WRONG_TYPES = [
    (function, "num_cpus", "1"),
    (function, "num_returns", 1.5),
    (function, "max_retries", "3"),
    (function, "retry_exceptions", 1),
    (function, "resources", [1]),
    (function, "runtime_env", 3),
    (function, "name", 3),
    (Plain, "num_cpus", "1"),
    (Plain, "max_concurrency", 2.0),
    (Plain, "max_restarts", "1"),
    (Plain, "max_task_retries", 1.0),
    (Plain, "max_pending_calls", "1"),
    (Plain, "name", 3),
    (Plain, "namespace", 3),
    (Plain, "get_if_exists", 1),
    (Plain, "concurrency_groups", ["io"]),
]

WRONG_VALUES = [
    (function, "num_cpus", -1),
    (function, "num_returns", -1),
    (function, "num_returns", "many"),
    (function, "max_retries", -2),
    (function, "resources", {"CPU": 1}),
    (function, "scheduling_strategy", "SIDEWAYS"),
    (function, "max_calls", -1),
    (Plain, "max_concurrency", 0),
    (Plain, "max_restarts", -2),
    (Plain, "max_task_retries", -2),
    (Plain, "max_pending_calls", -2),
    (Plain, "name", ""),
    (Plain, "lifetime", "eternal"),
    (Plain, "concurrency_groups", {"io": 0}),
]


@pytest.mark.parametrize(("target", "key", "value"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_a_type_error(target, key, value):
    with pytest.raises(TypeError, match=key):
        klieg.remote(**{key: value})(target)


@pytest.mark.parametrize(("target", "key", "value"), WRONG_VALUES)
def test_a_value_out_of_range_is_a_value_error(target, key, value):
    with pytest.raises(ValueError, match=key if key != "resources" else "CPU"):
        klieg.remote(**{key: value})(target)


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        (function, "max_calls", 1),
        (Plain, "concurrency_groups", {"io": 1}),
    ],
    ids=["max_calls", "concurrency_groups"],
)
def test_what_belongs_to_the_decorator_is_refused_by_options(target, key, value):
    klieg.remote(**{key: value})(target)
    with pytest.raises(ValueError, match=key):
        klieg.remote(target).options(**{key: value})


def test_get_if_exists_needs_a_name():
    with pytest.raises(ValueError, match="name"):
        klieg.remote(Plain).options(get_if_exists=True).remote()


ACCEPTED = [
    (function, {"num_cpus": 0.5}),
    (function, {"num_cpus": 0}),
    (function, {"num_cpus": None}),
    (function, {"max_retries": -1}),
    (function, {"retry_exceptions": [ValueError]}),
    (function, {"scheduling_strategy": "SPREAD"}),
    (function, {"enable_task_events": False}),
    (function, {"name": "other"}),
    (function, {"max_calls": 1}),
    (Plain, {"num_cpus": 1}),
    (Plain, {"max_concurrency": None}),
    (Plain, {"max_concurrency": 4}),
    (Plain, {"max_restarts": -1, "max_task_retries": -1}),
    (Plain, {"max_pending_calls": 0}),
    (Plain, {"lifetime": "non_detached"}),
    (Plain, {"name": "a name", "get_if_exists": True}),
    (Plain, {"concurrency_groups": {"io": 2}}),
    (Plain, {"scheduling_strategy": "DEFAULT"}),
]


@pytest.mark.parametrize(
    ("target", "options"), ACCEPTED, ids=lambda value: getattr(value, "__name__", None) or str(value)
)
def test_a_good_option_is_accepted_and_the_thing_works(target, options):
    remote = klieg.remote(**options)(target)
    ref = remote.remote() if target is function else remote.remote().ping.remote()
    assert klieg.get(ref) == 1


def test_an_unknown_option_of_a_method_is_refused():
    handle = klieg.remote(Plain).remote()
    with pytest.raises((TypeError, ValueError), match="no_such_option"):
        handle.ping.options(no_such_option=1).remote()


def test_an_unknown_option_of_the_method_decorator_is_refused():
    with pytest.raises((ValueError, TypeError, AssertionError), match="no_such_option"):
        klieg.method(no_such_option=1)


def test_method_options_make_a_copy():
    handle = klieg.remote(Plain).remote()
    named = handle.ping.options(name="another name")
    assert klieg.get([named.remote(), handle.ping.remote()]) == [1, 1]


@pytest.mark.not_on_ray("an autoscaler may still bring the resource: Ray waits for it, and says so in its log")
def test_an_actor_that_can_never_be_placed_says_so():
    with pytest.raises(klieg.exceptions.ActorUnschedulableError, match="1000"):
        klieg.get(klieg.remote(Plain).options(num_cpus=1000).remote().ping.remote())
