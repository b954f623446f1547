"""What the demo's actors and tasks do. It is ordinary Python, but for the decorators."""

import hashlib
import importlib
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp

import klieg

WORD = re.compile(r"[A-Za-z]{2,}")


def compressors() -> list[Callable[[bytes], bytes]]:
    """What this Python can pack with: zlib always, bz2 and lzma if it was built with them."""
    found: list[Callable[[bytes], bytes]] = [zlib.compress]
    for name in ("bz2", "lzma"):
        try:
            found.append(importlib.import_module(name).compress)
        except ImportError:
            continue
    return found


COMPRESSORS = compressors()


@klieg.remote
class Fetcher:
    """An async actor: while one page is on its way, the loop asks for the next."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.session = new_session()  # the constructor runs on the actor's loop, so this session is at home there

    async def fetch(self, path: str) -> bytes:
        return await fetch_page(self.session, self.site, path)

    async def close(self) -> None:
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
    """A threaded actor: what compresses and what hashes lets go of the GIL, so its threads fill the cores."""

    def pack(self, page: bytes) -> Packed:
        return pack_page(page)


def pack_page(page: bytes) -> Packed:
    """Pack the page in every way there is, and keep the smallest."""
    packed = min((compress(page) for compress in COMPRESSORS), key=len)
    return Packed(hashlib.sha256(page).hexdigest(), len(page), len(packed))


def count_words(paths: list[Path]) -> Counter[str]:
    words: Counter[str] = Counter()
    for path in paths:
        words.update(WORD.findall(path.read_text(encoding="utf-8", errors="replace").lower()))
    return words
