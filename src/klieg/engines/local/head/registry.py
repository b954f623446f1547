"""What the head knows: processes, actors, names. Pure: facts in, decisions out; nothing here sends or forks.

actor   PENDING ──placed──► ALIVE ──its process died──► RESTARTING ──placed──► ALIVE
           │                  │                              │
           └──────────────────┴──────────► DEAD ◄────────────┘
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from klieg.engines.local.head.pace import Pace
from klieg.placement import Placement


class ActorState(enum.Enum):
    PENDING = "PENDING_CREATION"
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"


TRANSITIONS: Mapping[ActorState, frozenset[ActorState]] = {
    ActorState.PENDING: frozenset({ActorState.ALIVE, ActorState.DEAD}),
    ActorState.ALIVE: frozenset({ActorState.RESTARTING, ActorState.DEAD}),
    ActorState.RESTARTING: frozenset({ActorState.ALIVE, ActorState.DEAD}),
    ActorState.DEAD: frozenset(),
}


@dataclasses.dataclass(slots=True, eq=False)
class ActorRecord:
    number: int
    request: Mapping[str, Any]
    """What the creator asked for; see `LocalEngine.create_actor`."""
    restarts_left: int
    """-1: without end."""
    state: ActorState = ActorState.PENDING
    process: int = 0
    """The process it runs in, or ran in last."""
    death: str = ""
    """Why it is dead."""
    init_failed: bool = False
    waiting: list[Any] = dataclasses.field(default_factory=list)
    """Connections asked for while it had no process."""
    restarts: int = 0
    """How often it was started again."""
    pace: Pace = dataclasses.field(default_factory=Pace)
    """How soon it is started again when it dies."""

    def become(self, state: ActorState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"an actor cannot go from {self.state} to {state}")
        self.state = state

    @property
    def name(self) -> str | None:
        name: str | None = self.request["name"]
        return name

    @property
    def key(self) -> tuple[str, str]:
        return self.request["namespace"], self.request["name"]

    @property
    def placement(self) -> Placement:
        return Placement.load(self.request["placement"])


class Registry:
    """The actors of the runtime, by number and by name."""

    DEAD_KEPT = 10_000
    """Dead actors whose cause of death is remembered."""

    def __init__(self) -> None:
        self._actors: dict[int, ActorRecord] = {}
        self._names: dict[tuple[str, str], int] = {}
        self._dead: list[int] = []

    def reserve(self, key: tuple[str, str], number: int) -> bool:
        """Claim a name for an actor that is about to be created; False if it is taken."""
        return self._names.setdefault(key, number) == number

    def add(self, record: ActorRecord) -> None:
        self._actors[record.number] = record
        if record.name:
            self._names[record.key] = record.number

    def all(self) -> list[ActorRecord]:
        """Every actor that is not forgotten, dead ones too."""
        return list(self._actors.values())

    def get(self, number: int) -> ActorRecord | None:
        return self._actors.get(number)

    def find(self, key: tuple[str, str]) -> ActorRecord | None:
        return self._actors.get(self._names.get(key, 0))

    def names(self) -> list[tuple[str, str]]:
        return [key for key, number in self._names.items() if number in self._actors]

    def owned_by(self, process: int) -> list[ActorRecord]:
        """The living actors that end with that process."""
        return [
            actor
            for actor in self._actors.values()
            if actor.request["owner"] == process
            and not actor.request["detached"]
            and actor.state is not ActorState.DEAD
        ]

    def bury(self, actor: ActorRecord, reason: str) -> None:
        """The actor is dead for good: its name is free, its cause of death is kept for a while."""
        actor.become(ActorState.DEAD)
        actor.death = reason
        if actor.name and self._names.get(actor.key) == actor.number:
            del self._names[actor.key]
        self._dead.append(actor.number)
        if len(self._dead) > self.DEAD_KEPT:
            self._actors.pop(self._dead.pop(0), None)
