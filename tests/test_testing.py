"""The pytest plugin that klieg ships: what its fixtures give, and what its leak check catches."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["klieg.testing"]'


@pytest.fixture
def outcomes(pytester: pytest.Pytester, monkeypatch):
    """Run tests with the plugin; how they ended, and what was printed."""
    pytester.makeconftest(CONFTEST)

    def run(text: str, *options: str) -> tuple[dict[str, int], str]:
        pytester.makepyfile("import klieg, pytest\n" + text)
        result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *options, timeout=60)
        return result.parseoutcomes(), result.stdout.str()

    return run


def test_a_runtime_is_fresh_for_each_test_on_each_chosen_engine(outcomes):
    ended, printed = outcomes(
        """
seen = set()

@klieg.remote(name="the one")
class One:
    def ping(self): return 1

@pytest.mark.parametrize("turn", [1, 2])
def test_it(klieg_runtime, klieg_engine, turn):
    one = One.remote()
    assert klieg.get(one.ping.remote()) == 1
    seen.add((klieg_engine, turn, klieg.get_runtime_context().namespace))

def test_all(): assert len(seen) == 4
""",
        "--klieg-engine=inline",
        "--klieg-engine=local",
    )
    assert ended == {"passed": 5}, printed


def test_without_a_word_tests_run_inline_and_an_ini_file_says_otherwise(outcomes, pytester):
    test = "def test_it(klieg_runtime, klieg_engine): print('engine', klieg_engine)"
    assert "engine inline" in outcomes(test, "-s")[1]
    pytester.makeini("[pytest]\nklieg_engines = local")
    ended, printed = outcomes(test, "-s")
    assert ended == {"passed": 1}
    assert "engine local" in printed


def test_a_mark_has_keywords_of_init_and_engines(outcomes):
    ended, printed = outcomes(
        """
pytestmark = pytest.mark.klieg(num_cpus=7, namespace="theirs")

@pytest.mark.klieg(num_cpus=3, engines=["local"])
def test_it(klieg_runtime, klieg_engine):
    assert klieg_engine == "local"
    assert klieg.cluster_resources()["CPU"] == 3
    assert klieg.get_runtime_context().namespace == "theirs"
""",
        "--strict-markers",
    )
    assert ended == {"passed": 1}, printed


def test_a_shared_runtime_is_one_until_somebody_needs_another(outcomes):
    ended, printed = outcomes(
        """
spaces = []

@klieg.remote(name="left over", lifetime="detached")
class Left:
    def ping(self): return 1

def note(): spaces.append(klieg.get_runtime_context().namespace)

def test_a(klieg_shared_runtime):
    note()
    klieg.get(Left.remote().ping.remote())

def test_b(klieg_shared_runtime):
    note()
    klieg.get(Left.remote().ping.remote())  # the name is free again

def test_c(klieg_runtime): note()
def test_d(klieg_shared_runtime): note()
def test_e(): assert [spaces.index(space) for space in spaces] == [0, 0, 2, 3]
""",
        "--klieg-engine=local",
    )
    assert ended == {"passed": 5}, printed


@pytest.mark.parametrize(
    ("leak", "named"),
    [
        ("kept.append(open('/dev/null'))", "descriptor /dev/null"),
        ("threading.Thread(target=time.sleep, args=(60,), name='stray', daemon=True).start()", "thread 'stray'"),
        ("kept.append(subprocess.Popen(['cat'], stdin=subprocess.PIPE))", ": cat\n"),  # it ends when pytest does
    ],
)
def test_what_is_left_behind_fails_the_test(outcomes, leak, named):
    ended, printed = outcomes(f"import subprocess, threading, time\nkept = []\ndef test_it(klieg_runtime): {leak}\n")
    assert (ended["passed"], ended["errors"]) == (1, 1)
    assert "left behind" in printed
    assert named in printed


def test_a_runtime_that_is_left_running_fails_the_test(outcomes):
    ended, printed = outcomes("def test_it(klieg_no_leaks): klieg.init(num_cpus=1)\n")
    assert ended["errors"] == 1
    assert "left behind:\n  process" in printed


def test_a_wrong_engine_is_refused_at_once(outcomes, pytester):
    pytester.makeini("[pytest]\nklieg_engines = remote")
    ended, printed = outcomes("def test_it(klieg_runtime): pass\n")
    assert "the engines are inline, local, ray" in printed
    assert ended == {"errors": 1}
