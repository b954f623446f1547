"""Private folders: where a runtime keeps its door, and where those who look for runtimes find them.

A folder belongs to one runtime, has a random name and mode 0700, and holds one socket. Nothing in it is trusted for
being there: whoever looks checks by `lstat` that it is a folder, this user's, and open to nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Final

from klieg import environment

DOOR: Final = "door"
"""The name of the socket in the folder."""

UNFINISHED_FOR: Final = 60.0
"""Seconds for which a folder without a door may be one that is being made."""

BACKLOG: Final = 64
"""Visitors that may stand before the door while it is not looked after."""

PATH_LIMIT: Final = 107
"""Bytes that the address of a Unix socket may have."""


def prefix() -> str:
    """How the names of this user's folders begin."""
    return f"klieg-{os.geteuid()}-"


def is_private(path: str) -> bool:
    """True for a real folder of this user's that nobody else may enter."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def parents() -> list[str]:
    """Where folders are made, the first choice first; all of them are looked through for runtimes."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    choices = [
        environment.text("TMPDIR") or "",
        runtime if os.path.isabs(runtime) and is_private(runtime) else "",
        _temporary(),
    ]
    return list(dict.fromkeys(choice for choice in choices if choice))


def _temporary() -> str:
    """The system's folder for temporary files, "" if none can be used now; to find out, a descriptor is needed."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return ""


def places() -> list[str]:
    """Paths of which one may become the folder of a new runtime, the first choice first."""
    name = prefix() + secrets.token_hex(8)
    return [os.path.join(parent, name) for parent in parents()]


def make(places: Sequence[str]) -> str:
    """Make the first of these paths that can be one a private folder, and return it; OSError if none can."""
    problem: OSError | None = None
    for path in places:
        try:
            os.mkdir(path, 0o700)
        except OSError as error:  # what is there already, even a link, is not used
            problem = error
            continue
        if is_private(path):
            return path
        remove(path)
    raise problem or OSError(errno.EACCES, "no folder of this user's own can be made")


def found() -> Iterator[str]:
    """The folders of this user's runtimes, of dead ones too."""
    for parent in parents():
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(parent)):
                path = os.path.join(parent, name)
                if name.startswith(prefix()) and is_private(path):
                    yield path


def remove(path: str) -> None:
    """Remove a folder that `make` made. Follows no link and removes nothing but the socket and the empty folder."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for name in (DOOR, f".{DOOR}"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(path)


def remove_dead() -> None:
    """Remove the folders of runtimes that were killed before they could."""
    for path in found():
        if is_dead(path):
            remove(path)


def is_dead(path: str) -> bool:
    """True if nobody listens at the folder's door any more; a stopped process still does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            connect(sock, path)
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                return time.time() - os.lstat(path).st_mtime > UNFINISHED_FOR
        except OSError:
            return False
    return False


def bind(sock: socket.socket, path: str) -> None:
    """Give the socket its name in the folder, readable and writable by this user alone, once it listens."""
    with _address(path, f".{DOOR}") as address:
        sock.bind(address)
    os.chmod(os.path.join(path, f".{DOOR}"), 0o600)
    sock.listen(BACKLOG)
    os.rename(os.path.join(path, f".{DOOR}"), os.path.join(path, DOOR))


def connect(sock: socket.socket, path: str) -> None:
    """Connect to the door of the folder."""
    with _address(path, DOOR) as address:
        sock.connect(address)


@contextlib.contextmanager
def _address(path: str, name: str) -> Iterator[str]:
    """The socket's address, by way of the folder's descriptor where the path is too long for one."""
    plain = os.path.join(path, name)
    if len(os.fsencode(plain)) <= PATH_LIMIT:
        yield plain
        return
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def peer_is_this_user(sock: socket.socket) -> bool:
    """True if the process at the other end of a Unix socket runs as this user, as the kernel says."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = (int.from_bytes(credentials[i : i + 4], "little", signed=True) for i in (0, 4, 8))
    return uid == os.geteuid()
