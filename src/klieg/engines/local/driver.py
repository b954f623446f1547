"""The driver's side of starting and ending the runtime: it starts the head, and waits until all is gone."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Final

from klieg import session
from klieg.engines import rundir
from klieg.engines.local import wire
from klieg.engines.local.connection import socket_pair
from klieg.engines.local.engine import LocalEngine
from klieg.engines.local.interrupts import CtrlC
from klieg.engines.local.reactor import Reactor
from klieg.engines.local.store.ledger import Account, Ledger, default_limit
from klieg.engines.surroundings import resolve
from klieg.ids import new_process_number
from klieg.machine import gpu_names
from klieg.runtime_env import RuntimeEnv
from klieg.settings import Settings

START_TIMEOUT: Final = 60.0
"""Seconds the head gets to start: a fraction of a second does on an idle machine; a loaded one may need more."""

FAREWELL_TIMEOUT: Final = 5.0
"""Seconds that actors with a shutdown hook get to end their calls and run it."""

COMMAND_SHOWN: Final = 1000
"""Characters of the program's command line that tell it apart from others."""

LOGS_TIMEOUT: Final = 1.0
"""Seconds that workers get to hand over the last log records."""

STOP_TIMEOUT: Final = 5.0
"""Seconds the head gets to end its workers and itself before it is killed, and they with it."""


class DriverEngine(LocalEngine):
    """The engine of the user's process, which started the head."""

    def __init__(
        self,
        process: int,
        namespace: str,
        sock: socket.socket,
        head: subprocess.Popen[bytes],
        ledger: Ledger,
        settings: Settings,
    ) -> None:
        super().__init__(process, namespace, sock, Reactor(), Account(ledger, ledger.open_line(process)), settings)
        self._ledger = ledger
        self._head_process = head
        self.doors = rundir.places()
        """Where the head may make the folder of its door."""
        self._ctrl_c = CtrlC(self.reactor)

    def shutdown(self) -> None:
        self._say_farewell()
        self._fetch_logs()
        super().shutdown()
        self._end_head()
        self._ctrl_c.remove()

    def _say_farewell(self) -> None:
        """Let actors that have a shutdown hook leave by it; the others need no time."""
        if not self.hooked or self.is_over:
            return
        answers: list[object] = []
        self.head.request("farewell", lambda answer, _: answers.append(answer), timeout=FAREWELL_TIMEOUT)
        self.reactor.block(lambda: bool(answers) or self.is_over, time.monotonic() + FAREWELL_TIMEOUT + 0.5)

    def _fetch_logs(self) -> None:
        """Let the log records that workers have sent come in: an answer travels behind them."""
        if session.settings.logging is not None and not self.is_over:
            self.survey("lines", {"most": 0}, LOGS_TIMEOUT)

    def _end_head(self) -> None:
        if not self.head_warm:
            self._head_process.kill()
        try:
            self._head_process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._head_process.kill()
            self._head_process.wait()
        self._ledger.close()
        for place in self.doors:
            rundir.remove(place)  # a head that was killed has left it


def start_driver(resources: Mapping[str, float], namespace: str, settings: Settings) -> LocalEngine:
    """Start the head and return this process's engine; RuntimeError that says why if the machine refuses."""
    if sys.platform != "linux":
        raise RuntimeError("The local engine needs Linux; `init(engine='inline')` runs everywhere.")
    session.environment = resolve(RuntimeEnv(), settings.runtime_env)
    gpus = gpu_names(resources.get("GPU", 0))
    process = new_process_number()
    _occupy_standard_descriptors()
    ours, theirs = socket_pair()
    page = -1
    try:
        page = Ledger.new_file()
        ledger = Ledger(page)
        ledger.limit = settings.object_store_memory or default_limit(settings.store_directory)
        head = _start_head(theirs, page, settings.log_to_driver)
        # Found out once, here: Python tries it with a file, which a worker that is killed meanwhile would leave behind.
        settings = dataclasses.replace(settings, spill_directory=settings.spill_directory or tempfile.gettempdir())
    except OSError as error:
        ours.close()
        raise RuntimeError(f"klieg could not start its head process: {error}") from error
    finally:
        theirs.close()
        if page >= 0:
            os.close(page)
    engine = DriverEngine(process, namespace, ours, head, ledger, settings)
    try:
        _say_hello(engine, head, resources, gpus, settings)
    except BaseException:  # Ctrl-C, perhaps: nobody has the engine yet, so nobody else could end it
        engine.shutdown()
        raise
    return engine


def _occupy_standard_descriptors() -> None:
    """Put /dev/null where a program was started without stdin, stdout or stderr, for good: a socket that took the
    number of one of them would be printed into."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _start_head(theirs: socket.socket, page: int, log_to_driver: bool) -> subprocess.Popen[bytes]:
    code = _BOOTSTRAP.format(paths=_own_paths(), fd=theirs.fileno(), page=page, ready=_READY)
    output = None if log_to_driver else subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, *subprocess._args_from_interpreter_flags(), "-P", "-c", code],  # type: ignore[attr-defined]  # multiprocessing uses it too
        pass_fds=[theirs.fileno(), page],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env={**os.environ, "KLIEG_RUN_ID": secrets.token_hex(8)},
    )


_READY: Final = wire.control_frame({"verb": "started"})

_BOOTSTRAP: Final = """
import os, sys
os.write({fd}, {ready!r})
sys.path[:0] = {paths!r}
from klieg.engines.local.head.head import main
main({fd}, {page})
"""
"""What the head runs: it says at once that it has started, and gets warm while the driver goes on."""


def _own_paths() -> list[str]:
    """Where klieg and cloudpickle are, for a head that must find these and nothing else by accident."""
    import cloudpickle

    import klieg

    return list(
        dict.fromkeys(os.path.dirname(os.path.dirname(os.path.abspath(m.__file__ or ""))) for m in (klieg, cloudpickle))
    )


def _say_hello(
    engine: DriverEngine,
    head: subprocess.Popen[bytes],
    resources: Mapping[str, float],
    gpus: list[str],
    settings: Settings,
) -> None:
    engine.head.tell(
        "hello",
        process=engine.process,
        resources=dict(resources),
        gpus=gpus,
        doors=engine.doors,
        command=shlex.join(sys.orig_argv)[:COMMAND_SHOWN],
        environment=session.environment.dump(),
        runtime={
            "namespace": engine.namespace,
            "sys_path": _import_paths(),
            "settings": settings.dump(),
        },
    )
    decided = engine.reactor.block(lambda: engine.head_started or engine.is_over, time.monotonic() + START_TIMEOUT)
    if engine.head_started:
        return
    why = f"did not start within {START_TIMEOUT:.0f} s" if not decided else _how_it_ended(head)
    raise RuntimeError(f"klieg's head process {why}; anything it printed is above. Nothing was left running.")


def _import_paths() -> list[str]:
    """`sys.path` for workers, whose working directory may be another one later."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted: nothing can be imported from there
        return [entry for entry in sys.path if entry]
    return [entry or here for entry in sys.path]


def _how_it_ended(head: subprocess.Popen[bytes]) -> str:
    try:
        code = head.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        return "closed its connection"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
