"""From another terminal into a running program: find its door, ask a question, read the answer. JSON only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

from klieg.engines import rundir

PATIENCE: Final = 30.0
"""Seconds to wait for an answer; a runtime that answers at all does so in milliseconds."""


class VisitError(Exception):
    """There is no program to visit, or it does not answer."""


def ask(path: str, question: dict[str, Any], patience: float = PATIENCE) -> Any:
    """The answer of the runtime whose folder this is; VisitError if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        try:
            rundir.connect(sock, path)
            if not rundir.peer_is_this_user(sock):
                raise VisitError(f"The runtime at {path} is another user's.")
            sock.sendall(json.dumps(question).encode() + b"\n")
            data = b"".join(iter(lambda: sock.recv(1 << 16), b""))
            answer = json.loads(data)
        except (OSError, ValueError) as error:
            raise VisitError(f"The runtime at {path} does not answer: {str(error) or type(error).__name__}") from error
    if "error" in answer:
        raise VisitError(answer["error"])
    return answer["answer"]


def running() -> Iterator[tuple[str, dict[str, Any]]]:
    """(folder, what it says of itself) of each running program of this user's, the youngest first."""
    known = []
    for path in rundir.found():
        try:
            known.append((path, ask(path, {"want": "about"}, 5.0)))
        except VisitError:
            continue  # it ends just now, or was killed before it could tidy up
    yield from sorted(known, key=lambda one: -one[1]["started"])


def choose(pid: int | None = None) -> tuple[str, dict[str, Any]]:
    """The program to visit: the one of that driver, or the only one there is.

    `KLIEG_PID` names it, too. Raises VisitError that lists the choices if it is not clear which.
    """
    wanted = pid if pid is not None else int(os.environ.get("KLIEG_PID") or 0)
    programs = list(running())
    fitting = [one for one in programs if one[1]["pid"] == wanted] if wanted else programs
    if len(fitting) == 1:
        return fitting[0]
    if not programs:
        raise VisitError("No program of yours runs klieg's local engine now.")
    what = f"No program with pid {wanted} runs klieg" if wanted else f"{len(programs)} programs run klieg"
    listed = "".join(f"\n  --pid {about['pid']}  {about['command']}" for _, about in programs)
    raise VisitError(f"{what}; say which one you mean:{listed}")
