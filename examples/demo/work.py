"""What the demo's actors and tasks do. It is ordinary Python, but for the decorators."""

import asyncio
import bz2
import hashlib
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import aiohttp

import klieg

WORD = re.compile(r"[A-Za-z]{2,}")


@klieg.remote
class Fetcher:
    """An async actor: while one page is on its way, the loop asks for the next."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.session: aiohttp.ClientSession | None = None
        self.opening = asyncio.Lock()

    async def fetch(self, path: str) -> bytes:
        session = await self.open_session()
        return await fetch_page(session, self.site, path)

    async def open_session(self) -> aiohttp.ClientSession:
        async with self.opening:
            if self.session is None:
                self.session = new_session()
        return self.session

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()


def new_session() -> aiohttp.ClientSession:
    """A session without a limit of its own: the actor's `max_concurrency` is the only one."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def fetch_page(session: aiohttp.ClientSession, site: str, path: str) -> bytes:
    async with session.get(f"{site}/page/{path}") as response:
        response.raise_for_status()
        return await response.read()


class Packed(NamedTuple):
    """What is kept of a page once it is packed."""

    digest: str
    size: int
    packed_size: int


@klieg.remote
class Packer:
    """A threaded actor: zlib, bz2 and hashlib let go of the GIL, so its threads fill the cores."""

    def pack(self, page: bytes) -> Packed:
        return pack_page(page)


def pack_page(page: bytes) -> Packed:
    """Pack the page by zlib and by bz2, and keep the smaller."""
    packed = min(zlib.compress(page, level=9), bz2.compress(page), key=len)
    return Packed(hashlib.sha256(page).hexdigest(), len(page), len(packed))


def count_words(paths: list[Path]) -> Counter[str]:
    words: Counter[str] = Counter()
    for path in paths:
        words.update(WORD.findall(path.read_text(encoding="utf-8", errors="replace").lower()))
    return words
