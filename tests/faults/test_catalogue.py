"""The catalogue is complete, its tests exist, and its page is up to date."""

import ast
import functools
from collections import Counter

import catalogue
import pytest

TESTS = catalogue.ROOT / "tests"


@functools.cache
def names_in(file):
    """The names of the tests in a file, in words."""
    tree = ast.parse((TESTS / file).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f.name.removeprefix("test_").replace("_", " ") for f in functions if f.name.startswith("test_")}


def test_it_has_every_kind_once():
    wanted = {f"{letter}{n}" for letter, (_, count) in catalogue.CHAPTERS.items() for n in range(1, count + 1)}
    assert len(wanted) == 171
    assert Counter(kind.id for kind in catalogue.KINDS) == Counter(wanted)


def test_at_least_a_hundred_and_thirty_are_injected_and_the_others_say_why_not():
    assert sum(bool(kind.tests) for kind in catalogue.KINDS) >= 130
    assert [kind.id for kind in catalogue.KINDS if bool(kind.tests) == bool(kind.why_not)] == []


@pytest.mark.parametrize("kind", catalogue.KINDS, ids=lambda kind: kind.id)
def test_its_tests_exist(kind):
    for test in kind.tests:
        file, name = test.split(": ")
        folder, stem = file.split("/")
        found = names_in(f"{folder}/test_{stem}.py")
        assert name in found or (name == "*" and found), f"{kind.id}: there is no test {test!r}"


def test_its_page_is_up_to_date():
    assert catalogue.PAGE.read_text(encoding="utf-8") == "\n".join(catalogue.page()).rstrip() + "\n"
