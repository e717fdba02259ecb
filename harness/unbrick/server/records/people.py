"""Who uses which terminal, and who touched personal data, ruled on a rollout or let one in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from unbrick.server.records.tables import Record


@dataclass(frozen=True)
class Subscriber(Record):
    """Somebody who has a terminal; ``phone`` (E.164, as ``+441632960123``) is theirs alone."""

    id: int
    phone: str
    name: str
    created: float


@dataclass(frozen=True)
class Ownership(Record):
    """Whose terminal one is."""

    KEY = ("serial",)
    serial: str
    subscriber_id: int


class AuditAction(Enum):
    """What was done to personal data, with a rollout, or to let a terminal in."""

    SUBSCRIBER_ADDED = "subscriber added"
    SUBSCRIBER_CHANGED = "subscriber changed"
    SUBSCRIBER_DELETED = "subscriber deleted"
    TERMINAL_ASSIGNED = "terminal assigned"
    TERMINAL_RELEASED = "terminal released"
    BACKUP_KEPT = "backup kept"
    BACKUP_READ = "backup read"
    BACKUP_DELETED = "backup deleted"
    ROLLOUT_CREATED = "rollout created"
    ROLLOUT_APPROVED = "rollout approved"
    ROLLOUT_BEGUN = "rollout begun"
    ROLLOUT_PAUSED = "rollout paused"
    ROLLOUT_RESUMED = "rollout resumed"
    ROLLOUT_STOPPED = "rollout stopped"
    ROLLOUT_FINISHED = "rollout finished"
    ROLLOUT_ABANDONED = "rollout abandoned"
    TERMINAL_APPROVED = "terminal approved"
    TERMINAL_ENROLLED = "terminal enrolled"


OF_BACKUPS = (AuditAction.BACKUP_KEPT, AuditAction.BACKUP_READ, AuditAction.BACKUP_DELETED)
"""What is done with the backup of a user's data."""


@dataclass(frozen=True)
class AuditEntry(Record):
    """Somebody touched personal data, did something with a rollout, or let a terminal in.

    ``subject`` is an id of the first two, else 0; personal data itself is never in here.
    """

    id: int
    time: float
    actor: str
    action: AuditAction
    serial: str
    subject: int
    text: str


@dataclass(frozen=True)
class Actor:
    """Who does what the audit keeps, when, and why if that has to be said."""

    name: str
    now: float
    why: str = ""
