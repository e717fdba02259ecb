"""Who uses which terminal, and who touched personal data."""

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
    """What was done to personal data."""

    SUBSCRIBER_ADDED = "subscriber added"
    SUBSCRIBER_CHANGED = "subscriber changed"
    SUBSCRIBER_DELETED = "subscriber deleted"
    TERMINAL_ASSIGNED = "terminal assigned"
    TERMINAL_RELEASED = "terminal released"
    BACKUP_KEPT = "backup kept"
    BACKUP_READ = "backup read"
    BACKUP_DELETED = "backup deleted"


@dataclass(frozen=True)
class AuditEntry(Record):
    """Somebody touched personal data. ``subject`` is an id; the data itself is never in here."""

    id: int
    time: float
    actor: str
    action: AuditAction
    serial: str
    subject: int
    text: str


@dataclass(frozen=True)
class Actor:
    """Who touches personal data, when, and why if that has to be said."""

    name: str
    now: float
    why: str = ""
