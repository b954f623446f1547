"""Which context variables `init` takes, and how processes that cannot import one make their own."""

import contextvars
import pickle

import pytest

import klieg
from klieg import propagation


@pytest.fixture(autouse=True)
def nothing_chosen():
    yield
    klieg.shutdown()
    propagation.use((), traces=False)


def test_without_a_choice_nothing_is_added_to_a_call():
    propagation.use((), traces=False)
    assert not propagation.active


def test_what_is_no_context_variable_is_refused():
    with pytest.raises(TypeError, match="takes context variables, not str"):
        klieg.init(engine="inline", propagate=["request_id"])


def test_two_local_variables_of_one_name_are_refused_and_one_twice_is_not():
    one, other = contextvars.ContextVar("same"), contextvars.ContextVar("same")
    with pytest.raises(ValueError, match="two context variables 'same'"):
        propagation.describe([one, other])
    assert propagation.describe([one, one]) == [("", "same", "")]


def test_a_default_that_cannot_be_pickled_is_refused():
    with pytest.raises(TypeError, match="default of the context variable 'bad'"):
        propagation.describe([contextvars.ContextVar("bad", default=lambda: None)])


def test_another_process_makes_a_variable_of_the_same_name_and_default():
    described = propagation.describe([contextvars.ContextVar("mine", default=7), contextvars.ContextVar("bare")])
    propagation.use((), traces=False)  # as good as another process
    propagation.use(described, traces=False)
    mine, bare = propagation.find(":mine"), propagation.find(":bare")
    assert (mine.name, mine.get(), bare.name, bare.get(None)) == ("mine", 7, "bare", None)
    assert propagation.find(":mine") is mine


def test_a_variable_of_a_module_is_found_where_it_is():
    propagation.use(propagation.describe([in_module]), traces=False)
    assert propagation.find(f"{__name__}:in_module") is in_module
    assert propagation.pack({}) == {}
    contextvars.Context().run(packs_what_is_set)


def packs_what_is_set():
    in_module.set(5)
    assert propagation.pack({"a": 1}) == {"a": 1, propagation.CARRIED: {f"{__name__}:in_module": 5}}


def test_a_function_that_uses_a_variable_of_a_module_can_be_pickled_by_value():
    from klieg.engines import by_value

    assert pickle.loads(by_value.dumps(in_module)) is in_module


def test_the_error_for_a_variable_of_nowhere_says_what_to_do():
    nowhere = contextvars.ContextVar("nowhere")

    @klieg.remote
    def read():
        return nowhere.get()

    klieg.init(engine="local", num_cpus=1)
    with pytest.raises(TypeError, match=r"captures 'nowhere'.*propagate=\[\.\.\.\]"):
        read.remote()


in_module = contextvars.ContextVar("another name")
