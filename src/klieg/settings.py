"""What `init` was told, as one frozen object: every engine gets it whole, every process of the runtime knows it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from klieg import environment
from klieg.concurrency.watchdog import Thresholds
from klieg.propagation import Described, is_tracing_installed


def _new_session_name() -> str:
    return f"session_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Adding a keyword of `init` touches this class, `init` itself and the one place that obeys it."""

    blocking_get: Literal["raise", "warn"] = "raise"
    """What a blocking `get` on an async actor's loop does."""
    log_to_driver: bool = dataclasses.field(default_factory=lambda: environment.flag("LOG_TO_DRIVER", True))
    """False: what workers print goes nowhere."""
    loop_warning: float = dataclasses.field(default_factory=lambda: environment.seconds("LOOP_WARNING", 1.0))
    """Seconds for which a method may hold an async actor's loop, or a cancelled call go on, unreported; 0: for ever."""
    stall_warning: float = dataclasses.field(default_factory=lambda: environment.seconds("STALL_WARNING", 10.0))
    """Seconds for which a full limit may let no call start, unreported; 0: for ever."""
    runtime_env: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What tasks and actors find in their processes, if they do not say so themselves."""
    profiling: bool = dataclasses.field(default_factory=lambda: environment.flag("PROFILING", False))
    """True: every process records what runs when, for `timeline`."""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the user calls this machine, as `get_runtime_context().get_node_labels()` tells it."""
    address: str | None = None
    """Of the Ray cluster, for the engine that needs one."""
    worker_imports: Sequence[str] = ()
    """Modules that every worker imports before it runs anything."""
    object_store_memory: int | None = None
    """Bytes that large values may take in memory, all processes together; None: a share of what there is."""
    store_directory: str | None = dataclasses.field(default_factory=lambda: environment.text("STORE_DIR"))
    """Where shared memory is files; None: in memory that is no file anywhere."""
    spill_directory: str | None = None
    """Where large values go when memory is short; None: to the directory for temporary files."""
    propagate: Sequence[Described] = ()
    """The context variables whose values travel with calls."""
    traces: bool = dataclasses.field(default_factory=is_tracing_installed)
    """Whether OpenTelemetry's current context travels with calls."""
    logging: Mapping[str, Any] | None = None
    """How log records look, and that those of workers reach the driver; None: each process sees to its own."""
    record_call_sites: bool = False
    """Whether `put` notes where it was called."""
    session_name: str = dataclasses.field(default_factory=_new_session_name)

    def thresholds(self) -> Thresholds:
        """What the watchdogs of this runtime's actors are told to report."""
        return Thresholds(self.loop_warning or None, self.stall_warning or None)

    def dump(self) -> dict[str, Any]:
        """As JSON can carry it."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, fields: Mapping[str, Any]) -> Settings:
        return cls(**fields)


DEFAULT: Final = Settings(session_name="", traces=False)
"""Where there is no runtime."""
