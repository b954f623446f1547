"""A small web site of Python's own sources, on loopback, in a process of its own.

    python server.py DELAY

prints the port it listens on, answers every page after DELAY seconds, and ends when its standard
input is closed: whoever started it holds that pipe, so the server cannot outlive it.
"""

import asyncio
import contextlib
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

STDLIB = Path(sysconfig.get_path("stdlib"))

NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
"""Folders inside the library that hold other people's code, tests or nothing to read."""


def library_pages() -> list[str]:
    """The paths of the library's modules below `STDLIB`, in order, the tests left out."""
    paths = (path.relative_to(STDLIB) for path in STDLIB.rglob("*.py"))
    return sorted(str(path) for path in paths if NOT_LIBRARY.isdisjoint(path.parts))


class Site:
    """Serves the pages and counts how many requests are open at once."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.pages = frozenset(library_pages())
        self.open = self.most_open = 0

    async def page(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        if path not in self.pages:
            raise web.HTTPNotFound
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(self.delay)
        self.open -= 1
        return web.Response(body=(STDLIB / path).read_bytes(), content_type="text/x-python")

    async def most(self, request: web.Request) -> web.Response:
        """The most requests that were open at once since this was last asked."""
        most, self.most_open = self.most_open, 0
        return web.json_response(most)


async def serve(delay: float) -> None:
    site = Site(delay)
    app = web.Application()
    app.add_routes([web.get("/most-open", site.most), web.get("/page/{path:.+}", site.page)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def running_server(delay: float) -> Iterator[str]:
    """The address of a server that answers after `delay` seconds and ends with the block."""
    command = [sys.executable, __file__, str(delay)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:  # closes the server's standard input and waits for its end
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the demo's web server did not start")
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    asyncio.run(serve(delay=float(sys.argv[1])))
