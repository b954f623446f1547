"""Errors that nobody read are reported; those that nobody has to read are not."""

from __future__ import annotations

import logging

import pytest

from klieg.engines import failures
from klieg.engines.unread import report_unread
from klieg.exceptions import RuntimeShutdownError
from klieg.outcome import UNREAD


@pytest.fixture(autouse=True)
def nothing_is_unread_yet():
    """Tests of single parts run without an engine that would report what they leave."""
    UNREAD.clear()


def test_an_unread_error_is_logged_once(caplog):
    UNREAD.append(failures.dumps(ValueError("the text"), "f"))
    with caplog.at_level(logging.ERROR, "klieg"):
        report_unread()
        report_unread()
    assert [record.getMessage().count("ValueError: the text") for record in caplog.records] == [1]


def test_calls_that_a_shutdown_has_ended_are_no_unread_errors(caplog):
    UNREAD.append(failures.dumps(RuntimeShutdownError(), "f"))
    report_unread()
    assert caplog.records == []
    assert not UNREAD
