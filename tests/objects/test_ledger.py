"""The page on which all processes write what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from klieg.engines.local.store.ledger import Account, Ledger, default_limit


@pytest.fixture
def pages() -> Iterator[tuple[Ledger, Ledger]]:
    """One page as two processes see it."""
    fd = Ledger.new_file()
    first, second = Ledger(fd), Ledger(fd)
    os.close(fd)
    first.limit = 100
    yield first, second
    first.close()
    second.close()


def test_what_one_process_takes_leaves_less_for_the_others(pages: tuple[Ledger, Ledger]) -> None:
    first, second = pages
    driver = Account(first, first.open_line(11))
    worker = Account(second, first.open_line(12))
    assert driver.take(60)
    assert not worker.take(60)
    assert second.total == 60
    driver.give(30)
    assert worker.take(60)
    assert first.total == 90


def test_the_line_of_a_dead_process_is_cleared_and_used_again(pages: tuple[Ledger, Ledger]) -> None:
    first, second = pages
    line = first.open_line(11)
    Account(second, line).take(100)
    assert [(h.process, h.memory) for h in first.holdings()] == [(11, 100)]
    first.close_line(line)
    assert (first.total, first.holdings()) == (0, [])
    assert first.open_line(12) == line


def test_a_process_that_came_too_late_for_a_line_is_held_to_the_limit_too(pages: tuple[Ledger, Ledger]) -> None:
    first, second = pages
    Account(first, first.open_line(11)).take(90)
    late = Account(second, 0)
    assert late.take(10)
    assert not late.take(1)


def test_a_closed_ledger_takes_what_is_still_written_and_forgets_it(pages: tuple[Ledger, Ledger]) -> None:
    first, second = pages
    account = Account(first, first.open_line(11))
    first.close()
    account.give(5)
    assert second.total == 0


def test_the_default_limit_leaves_most_of_the_memory_to_others() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < default_limit(None) <= 0.3 * machine


def test_where_shared_memory_is_files_the_file_system_bounds_the_limit(tmp_path: os.PathLike[str]) -> None:
    free = os.statvfs(tmp_path)
    assert default_limit(os.fspath(tmp_path)) <= free.f_bavail * free.f_frsize
