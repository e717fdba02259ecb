"""Commanded updates: the plan, how far each step is, the user's data meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from unbrick.server.records.tables import Record


class SessionState(Enum):
    """How far a commanded update is."""

    PLANNED = "planned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected to happen."""
        return self not in (SessionState.PLANNED, SessionState.RUNNING)


class StepKind(Enum):
    """What a step of a commanded update does."""

    PREPARE = "prepare"
    BACK_UP = "back up"
    ERASE = "erase"
    WRITE = "write"
    CHECK = "check"
    RESTART = "restart"
    GIVE_BACK = "give back"
    DELETE_BACKUP = "delete backup"


COMMANDS = (StepKind.ERASE, StepKind.WRITE, StepKind.CHECK, StepKind.RESTART)
"""Steps that are commands to the resident program."""


class StepState(Enum):
    """How far a step is. What was sent may have been carried out, whether an answer came or not."""

    WAITING = "waiting"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"

    def __init__(self, word: str) -> None:
        self.over = word in ("done", "skipped")
        """Whether there is nothing more to do."""


@dataclass(frozen=True)
class CommandedSession(Record):
    """A commanded update, step by step, of update ``update_id``.

    ``command`` is the number of the last command to the resident program; ``outcome`` says how the
    session ends once the user's data is back, None while that is open.
    """

    id: int
    update_id: int
    serial: str
    base: bytes
    digest: bytes
    state: SessionState
    text: str
    created: float
    changed: float
    command: int = 0
    outcome: SessionState | None = None


@dataclass(frozen=True)
class PlannedStep(Record):
    """Step ``number`` (from 0) of a session; ``offset`` and ``length`` are of the NOR, if any."""

    KEY = ("session_id", "number")
    session_id: int
    number: int
    kind: StepKind
    offset: int
    length: int
    state: StepState = StepState.WAITING
    tries: int = 0
    result: int | None = None
    text: str = ""
    changed: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether it has ever been sent; what was sent may have been carried out."""
        return self.tries > 0 or self.state in (StepState.SENT, StepState.DONE, StepState.FAILED)


def may_have_erased(steps: Iterable[PlannedStep]) -> bool:
    """Whether steps may have erased anything on the terminal."""
    return any(step.kind in COMMANDS and step.begun for step in steps)


@dataclass(frozen=True)
class Backup(Record):
    """A terminal's personal data in the server's care: which, not what.

    What it holds is encrypted with a key that only the terminal has. ``checksum`` is its SHA-256.
    """

    id: int
    session_id: int
    serial: str
    size: int
    checksum: bytes
    created: float
