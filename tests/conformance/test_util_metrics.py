"""`klieg.util.metrics`: counted in each process, added up when somebody asks."""

from __future__ import annotations

import gates
import pytest

import klieg
from klieg import measurements
from klieg.util import metrics


@klieg.remote
class Worker:
    def __init__(self, requests, seconds, depth):
        self.requests, self.seconds, self.depth = requests, seconds, depth

    def work(self, path):
        self.requests.inc(2, tags={"path": path})
        self.seconds.observe(0.5)
        self.seconds.observe(7)
        self.depth.set(3)


def exported(*lines):
    text = metrics.export().splitlines()
    return all(line in text for line in lines)


def test_counters_and_histograms_of_all_processes_are_added_up():
    # Names of their own: what a name is for stays known in the process, whoever has declared it first.
    requests = metrics.Counter("visits", 'those that\n"came"', tag_keys=("path",))
    seconds = metrics.Histogram("visit_seconds", boundaries=[0.1, 1, 5])
    depth = metrics.Gauge("visit_depth")
    workers = [Worker.remote(requests, seconds, depth) for _ in range(2)]
    klieg.get([worker.work.remote("/") for worker in workers])
    requests.inc(tags={"path": "/a"})
    text = metrics.export()
    lines = text.splitlines()
    assert r"# HELP visits those that\n\"came\"" in lines
    assert {"# TYPE visits counter", 'visits{path="/"} 4', 'visits{path="/a"} 1'} <= set(lines)
    assert {
        'visit_seconds_bucket{le="0.1"} 0',
        'visit_seconds_bucket{le="1"} 2',
        'visit_seconds_bucket{le="+Inf"} 4',
    } <= set(lines)
    assert {"visit_seconds_sum 15", "visit_seconds_count 4"} <= set(lines)
    assert any(line.startswith('visit_depth{pid="') and line.endswith(" 3") for line in lines)


@pytest.mark.needs_process("inline there is one process")
def test_what_a_worker_has_counted_stays_when_it_ends():
    requests = metrics.Counter("requests_of_the_dead", tag_keys=("path",))
    for _ in range(3):
        worker = Worker.remote(requests, metrics.Histogram("s", boundaries=[1]), metrics.Gauge("d"))
        klieg.get(worker.work.remote("/"))
        worker.__ray_terminate__.remote()
        del worker
    assert gates.soon(lambda: klieg.util.state.list_actors(filters=[("state", "!=", "DEAD")]) == [])
    assert exported('requests_of_the_dead{path="/"} 6', "s_count 6")
    assert 'd{pid="' not in metrics.export()


def test_default_tags_are_used_where_a_value_has_none():
    counter = metrics.Counter("tagged", tag_keys=("a", "b")).set_default_tags({"a": "1"})
    counter.inc(tags={"b": "2"})
    counter.inc(tags={"a": "x", "b": "2"})
    assert exported('tagged{a="1",b="2"} 1', 'tagged{a="x",b="2"} 1')
    assert counter.info["default_tags"] == {"a": "1"}


@pytest.mark.parametrize(
    ("error", "attempt"),
    [
        (ValueError, lambda: metrics.Counter("no spaces")),
        (TypeError, lambda: metrics.Counter("c", tag_keys="a")),
        (ValueError, lambda: metrics.Counter("c1").inc(0)),
        (ValueError, lambda: metrics.Counter("c2").inc(tags={"a": "1"})),
        (ValueError, lambda: metrics.Counter("c3", tag_keys=("a",)).inc()),
        (TypeError, lambda: metrics.Counter("c4", tag_keys=("a",)).inc(tags={"a": 1})),
        (TypeError, lambda: metrics.Gauge("g1").set("1")),
        (ValueError, lambda: metrics.Histogram("h1")),
        (ValueError, lambda: metrics.Histogram("h2", boundaries=[2, 1])),
        (ValueError, lambda: [metrics.Gauge("both"), metrics.Counter("both")]),
    ],
)
def test_a_wrong_use_is_refused_at_once(error, attempt):
    with pytest.raises(error):
        attempt()


def test_what_was_measured_ends_with_the_runtime():
    counter = metrics.Counter("again")
    counter.inc()
    klieg.shutdown()
    counter.inc()
    assert [m["series"] for m in measurements.dump() if m["name"] == "again"] == [[[{}, 1.0]]]
