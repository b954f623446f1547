"""The plug: what every engine can do, in about ten verbs, and which engine this process uses.

An engine takes and gives values of the layer below (specs, futures, ids). It knows nothing of handles, refs or
decorators; those are built on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from klieg.exceptions import SystemError_

if TYPE_CHECKING:
    import asyncio

    from klieg.engines.callbacks import Callbacks
    from klieg.engines.calls import StreamFuture
    from klieg.engines.objects import ActorToken, ObjectFuture, PutFuture, Ready
    from klieg.engines.serialization import Named
    from klieg.ids import NodeID
    from klieg.task import ActorSpec, ClassInfo, TaskSpec


class Engine(Protocol):
    """Carries out the verbs. Every method may be called from any thread."""

    name: str
    process: int
    """The number of this process in the runtime."""
    namespace: str
    node: NodeID
    """The machine that this process is on."""
    callbacks: Callbacks
    """The thread that runs what users hang on results."""

    def submit(
        self, spec: TaskSpec, actor: ActorToken | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ObjectFuture, ...]:
        """Start a call and return its futures, one for each return value; never waits for anything.

        Raises TypeError for an argument that cannot be pickled."""

    def create_actor(self, spec: ActorSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorToken:
        """Start an actor; its constructor runs later, and a failure of it shows at the first call."""

    def put(self, value: Any) -> PutFuture:
        """Keep a value in this process."""

    def block(self, ready: Ready, futures: Sequence[ObjectFuture], deadline: float | None) -> bool:
        """Wait until `ready()`, which depends on the futures alone, or until the deadline; True if ready."""

    def nudge(self) -> None:
        """A future that somebody may wait for in `block` was resolved by this thread, without a message having come."""

    def count_sleepers(self, change: int) -> None:
        """So many more, or fewer, threads may wait for results without looking for them, as futures do."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine on this loop is about to sleep until a future resolves: see to it that results get in."""

    def cancel(self, future: ObjectFuture, force: bool, recursive: bool) -> None:
        """Ask that the call behind the future ends."""

    def kill(self, actor: ActorToken, no_restart: bool) -> None:
        """End the actor's process now; from the caller's view it is dead when this returns."""

    def find_actor(self, name: str, namespace: str | None) -> tuple[ActorToken, ClassInfo] | None:
        """The living actor of that name."""

    def named_actors(self) -> list[tuple[str, str]]:
        """(namespace, name) of every living named actor."""

    def nodes(self) -> list[dict[str, Any]] | None:
        """The machines of the runtime, as Ray describes them; None for this one alone."""

    def resources(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """What this runtime has in all, and what is free now."""

    def stats(self, actor: ActorToken) -> dict[str, dict[str, int]]:
        """For each concurrency group of the actor: calls queued, calls running, and the limit."""

    def table(self, of: str) -> list[dict[str, Any]]:
        """The rows of "actors", "workers", "nodes", "jobs" or "placement_groups", or the one of "store" (see
        `store_usage`), as plain values."""

    def survey(self, question: str, details: Mapping[str, Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """What each process answers, and facts of those that have not answered in time.

        Questions: "calls" (see `engines.task_table`), "lines" (what was printed last), "objects" (see
        `engines.inventory`)."""

    def snapshot(self, timeout: float) -> list[dict[str, Any]]:
        """What each process of the runtime is doing, this one first; of one that says nothing within `timeout` seconds
        {"silent": {pid, title, state, stacks}}, of the others {pid, driver, actors, threads, outgoing}."""

    def resize(self, actor: ActorToken, limits: Mapping[str, int]) -> None:
        """Change how many calls of each group of the actor may run; it is done when this returns.

        Raises ValueError for a group that the actor does not have, or if it has no limits."""

    def drop_stream(self, stream: StreamFuture) -> None:
        """The consumer of a streaming generator is gone; called by a finalizer, so it only leaves a note."""

    def pin(self, named: Named) -> None:
        """A ref or handle is pickled by hand: keep what it names until the end."""

    def future_of(self, number: int) -> ObjectFuture:
        """The future of a ref that was pickled by hand; ObjectLostError if there is none."""

    def token_of(self, number: int, info: ClassInfo) -> ActorToken:
        """The token of an actor whose handle was pickled by hand."""

    def create_placement_group(self, group: int, facts: Mapping[str, Any]) -> str:
        """Reserve bundles under a new number; why they can never be placed, "" if they can.

        Raises SystemError_ if the name is taken. Facts: name, bundles, strategy, detached."""

    def placement_group_ready(self, group: int, value: Any) -> ObjectFuture:
        """A future that has the value once the group is placed."""

    def remove_placement_group(self, group: int) -> None:
        """Give the bundles back and end what runs in them."""

    def placement_groups(self) -> list[dict[str, Any]]:
        """The facts of every group: group, name, bundles, strategy, state, impossible."""

    def let_go(self) -> None:
        """This process is a fork of the engine's: close what was inherited, and harm nothing of the parent's."""

    def objects(self) -> list[dict[str, Any]]:
        """What objects this process knows: one plain dict each, as `engines.inventory` describes it."""

    def store_usage(self) -> dict[str, Any]:
        """Bytes of the object store: its `limit`, those `used` in all, and for each of the `processes` that hold some
        its number (`process`), `pid`, and the bytes in `memory` and on `disk`."""

    def shutdown(self) -> None:
        """End everything; whoever waits gets RuntimeShutdownError."""


_current: Engine | None = None


def current() -> Engine:
    """This process's engine; SystemError_ if klieg is not running."""
    if _current is None:
        raise SystemError_("klieg is not initialized: call `klieg.init()` first.")
    return _current


def current_or_none() -> Engine | None:
    return _current


def use(engine: Engine | None) -> None:
    """Make `engine` the one this process uses; None when it has been shut down."""
    global _current
    _current = engine
