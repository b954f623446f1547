"""klieg at work, in under a minute: fetch, pack and count Python's own standard library.

    python examples/demo [--engine local|inline] [--pages N] [--sources N]

1. An async actor fetches every page of a web site that the demo starts on loopback, 50 at a time.
2. A threaded actor packs what came back, one thread for each core.
3. Tasks count the words of the library's sources, tests included, in processes of their own.

Each part is then done without klieg, one by one; the table at the end sets the two side by side.
"""

import argparse
import asyncio
import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import screen
import server
import work

import klieg

PAGE_DELAY = 0.1
"""Seconds that the site takes for each page: about what a distant server takes."""
AT_ONCE = 50
SAMPLE = 30
"""Pages fetched one by one; all of them would take longer than anyone wants to watch."""
TASKS = 32
TICK = 0.05
"""Seconds between two looks at what is done."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Timed(NamedTuple):
    value: Any
    seconds: float


def timed(work_to_do: Callable[[], Any]) -> Timed:
    began = time.perf_counter()
    value = work_to_do()
    return Timed(value, time.perf_counter() - began)


def get_all(title: str, refs: list) -> list:
    """The values of all refs, with a line of progress while they come in."""
    progress = screen.Progress(title, len(refs))
    pending = refs
    while pending:
        _, pending = klieg.wait(pending, num_returns=len(pending), timeout=TICK)
        progress.show(len(refs) - len(pending))
    return klieg.get(refs)


# --- 1. An async actor fetches ---


def fetch_all(site: str, paths: list[str]) -> list[bytes]:
    fetcher = work.Fetcher.options(max_concurrency=AT_ONCE).remote(site)
    pages = get_all(f"fetch, {AT_ONCE} at a time", [fetcher.fetch.remote(path) for path in paths])
    klieg.get(fetcher.close.remote())
    return pages


async def fetch_one_by_one(site: str, paths: list[str]) -> None:
    progress = screen.Progress("fetch, one by one", len(paths))
    async with work.new_session() as session:
        for done, path in enumerate(paths, 1):
            await work.fetch_page(session, site, path)
            progress.show(done)


def show_fetching(site: str, paths: list[str]) -> tuple[list[bytes], screen.Row]:
    pages, took = timed(lambda: fetch_all(site, paths))
    with urllib.request.urlopen(f"{site}/most-open") as response:
        print(f"    the site counted {json.load(response)} requests open at once, at most")

    sample = paths[:: max(1, len(paths) // SAMPLE)]
    alone = timed(lambda: asyncio.run(fetch_one_by_one(site, sample))).seconds
    how = f"{len(sample)} pages measured, scaled to {len(paths)}"
    one_by_one = alone * len(paths) / len(sample)
    return pages, screen.Row("async actor fetches", len(paths), took, one_by_one, how)


# --- 2. A threaded actor packs ---


def pack_all(pages: list[bytes]) -> list[work.Packed]:
    packer = work.Packer.options(max_concurrency=CORES).remote()
    return get_all(f"pack, {CORES} threads", [packer.pack.remote(page) for page in pages])


def pack_one_by_one(pages: list[bytes]) -> list[work.Packed]:
    progress = screen.Progress("pack, one by one", len(pages))
    packed = []
    for page in pages:
        packed.append(work.pack_page(page))
        progress.show(len(packed))
    return packed


def show_packing(pages: list[bytes]) -> screen.Row:
    packed, took = timed(lambda: pack_all(pages))
    size, packed_size = sum(p.size for p in packed), sum(p.packed_size for p in packed)
    print(f"    {size / 1e6:.1f} MB became {packed_size / 1e6:.1f} MB")

    alone = timed(lambda: pack_one_by_one(pages))
    assert alone.value == packed, "the actor's digests and sizes are not those of a plain loop"
    return screen.Row("threaded actor packs", len(pages), took, alone.seconds, "measured in full")


# --- 3. Tasks count ---

count_words = klieg.remote(work.count_words)


def in_batches(paths: list[Path]) -> list[list[Path]]:
    """Every n-th file together, so that the long ones are spread over all batches."""
    return [paths[first::TASKS] for first in range(TASKS)]


def count_all(batches: list[list[Path]]) -> Counter[str]:
    words: Counter[str] = Counter()
    for count in get_all("count words, in tasks", [count_words.remote(batch) for batch in batches]):
        words.update(count)
    return words


def count_one_by_one(batches: list[list[Path]]) -> Counter[str]:
    progress = screen.Progress("count words, one by one", len(batches))
    words: Counter[str] = Counter()
    for done, batch in enumerate(batches, 1):
        words.update(work.count_words(batch))
        progress.show(done)
    return words


def show_counting(paths: list[Path]) -> screen.Row:
    batches = in_batches(paths)
    words, took = timed(lambda: count_all(batches))
    most = ", ".join(f"{word} {times:,}" for word, times in words.most_common(5))
    print(f"    {words.total():,} words in {len(paths):,} files; the most frequent: {most}")

    alone = timed(lambda: count_one_by_one(batches))
    assert alone.value == words, "the tasks counted other words than a plain loop"
    return screen.Row("tasks count words", len(batches), took, alone.seconds, "measured in full")


# --- The whole ---


def all_sources() -> list[Path]:
    """Every source file of the library, its tests included, other people's packages left out."""
    foreign = {"site-packages", "dist-packages"}
    return sorted(p for p in server.STDLIB.rglob("*.py") if foreign.isdisjoint(p.parts))


def run(page_limit: int | None, source_limit: int | None) -> list[screen.Row]:
    paths = server.library_pages()[:page_limit]
    with server.running_server(PAGE_DELAY) as site:
        print(f"\nA web site of {len(paths)} pages on {site}, {PAGE_DELAY * 1000:.0f} ms each.")
        pages, fetching = show_fetching(site, paths)
    return [fetching, show_packing(pages), show_counting(all_sources()[:source_limit])]


def main() -> None:
    parser = argparse.ArgumentParser(description="klieg at work on Python's standard library.")
    parser.add_argument("--engine", choices=["local", "inline"], default="local")
    parser.add_argument("--pages", type=int, help="fetch so many pages instead of all")
    parser.add_argument("--sources", type=int, help="count the words of so many files instead of all")
    arguments = parser.parse_args()

    started = timed(lambda: klieg.init(engine=arguments.engine)).seconds
    print(f"klieg started in {started * 1000:.0f} ms on {CORES} cores ({arguments.engine} engine).")
    try:
        rows = run(arguments.pages, arguments.sources)
    finally:
        klieg.shutdown()
    print(f"\n{screen.table(rows)}")
    if arguments.engine == "inline":
        print("The inline engine has one process: tasks that hold the GIL gain nothing there.")


if __name__ == "__main__":
    main()
