"""`init(logging_config=...)`: log records of workers reach the driver's handlers, with the call that made them."""

from __future__ import annotations

import json
import logging

import pytest

import klieg
from klieg import LoggingConfig


@pytest.fixture
def klieg_runtime():
    """Each test starts its own."""


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    handler = Kept()
    logger = logging.getLogger("theirs")
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


@klieg.remote
class Worker:
    def work(self):
        logging.getLogger("theirs").info("did %s", "it")
        logging.getLogger("theirs").debug("too much")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("theirs").exception("failed")


def run(engine, config):
    klieg.init(engine=engine, num_cpus=1, logging_config=config)
    worker = Worker.remote()
    klieg.get(worker.work.remote())
    klieg.shutdown()


def test_records_of_workers_reach_the_drivers_handlers(engine, kept):
    run(engine, LoggingConfig())
    assert [(r.levelname, r.getMessage(), r.name) for r in kept] == [
        ("INFO", "did it", "theirs"),
        ("ERROR", "failed", "theirs"),
    ]


def test_a_record_is_shown_with_its_call(engine, capsys):
    run(engine, LoggingConfig(additional_log_standard_attrs=["name"]))
    first = next(line for line in capsys.readouterr().err.splitlines() if "did it" in line)
    assert "INFO test_logging.py:" in first
    assert "task_name=Worker.work" in first
    assert "name=theirs" in first


def test_records_can_be_json(engine, capsys):
    run(engine, LoggingConfig(encoding="JSON", log_level="DEBUG"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "test_logging" in line]
    assert [line["message"] for line in lines] == ["did it", "too much", "failed"]
    assert all(line["task_name"] == "Worker.work" and line["actor_id"] for line in lines)
    assert "ValueError: broken" in lines[2]["exc_text"]


def test_without_it_nothing_is_changed(engine, kept):
    klieg.init(engine=engine, num_cpus=1)
    before = list(logging.root.handlers), logging.root.level
    klieg.shutdown()
    run(engine, LoggingConfig())
    assert (list(logging.root.handlers), logging.root.level) == before


@pytest.mark.parametrize(
    "wrong", [{"encoding": "XML"}, {"log_level": "LOUD"}, {"additional_log_standard_attrs": ["colour"]}]
)
def test_a_wrong_configuration_is_refused_at_once(wrong, engine):
    with pytest.raises(ValueError, match="|".join(["TEXT", "DEBUG", "colour"])):
        LoggingConfig(**wrong)


def test_the_environment_names_the_encoding(engine, monkeypatch):
    monkeypatch.setenv("RAY_LOGGING_CONFIG_ENCODING", "JSON")
    assert LoggingConfig().encoding == "JSON"
