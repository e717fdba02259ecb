"""What the customer center itself remembers: its operators and what they did.

Subscribers and calls are in the user database (``server.records``), not here. Times are seconds
since 1970. ``database.py`` has the store that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol


class Role(Enum):
    """What an operator is."""

    CLERK = "clerk"
    ENGINEER = "engineer"
    AUDITOR = "auditor"


@dataclass(frozen=True)
class Operator:
    """Somebody who may sign in; ``password`` is its Argon2 hash with salt and parameters."""

    name: str
    role: Role
    password: str
    created: float


class Deed(Enum):
    """What an operator did, or somebody who said to be one."""

    ADDED = "operator added"
    CHANGED = "operator changed"
    REMOVED = "operator removed"
    SIGNED_IN = "signed in"
    FAILED = "sign-in failed"
    SIGNED_OUT = "signed out"
    LOOKED = "looked at a subscriber"
    CALLED = "made a call"
    SENT = "sent a text message"
    STARTED = "started an update"
    CANCELLED = "cancelled an update"
    ABANDONED = "abandoned an update"
    ROLLED_OUT = "ruled on a rollout"
    REFUSED = "was refused"


@dataclass(frozen=True)
class LogEntry:
    """One line of the center's log, which is only ever added to; no personal data is in it."""

    id: int
    time: float
    operator: str
    deed: Deed
    serial: str
    text: str


class Accounts(Protocol):
    """Operators, and the log of what they did."""

    def operator(self, name: str) -> Operator | None:
        """The operator with this name."""

    def operators(self) -> list[Operator]:
        """Every operator, by name."""

    def save_operator(self, operator: Operator) -> None:
        """Keep a new operator, or what has changed of one."""

    def remove_operator(self, name: str) -> None:
        """Forget an operator; what they did stays in the log."""

    def log(self, entry: LogEntry) -> None:
        """Add to the log (the id is passed over)."""

    def entries(self, limit: int, before: int | None = None) -> list[LogEntry]:
        """The last entries, newest first; only those with ids lower than ``before``."""


class MemoryAccounts:
    """``Accounts`` that are lost when they end."""

    def __init__(self) -> None:
        self._operators: dict[str, Operator] = {}
        self._entries: list[LogEntry] = []

    def operator(self, name: str) -> Operator | None:
        """See ``Accounts``."""
        return self._operators.get(name)

    def operators(self) -> list[Operator]:
        """See ``Accounts``."""
        return [self._operators[name] for name in sorted(self._operators)]

    def save_operator(self, operator: Operator) -> None:
        """See ``Accounts``."""
        self._operators[operator.name] = operator

    def remove_operator(self, name: str) -> None:
        """See ``Accounts``."""
        self._operators.pop(name, None)

    def log(self, entry: LogEntry) -> None:
        """See ``Accounts``."""
        self._entries.append(replace(entry, id=len(self._entries) + 1))

    def entries(self, limit: int, before: int | None = None) -> list[LogEntry]:
        """See ``Accounts``."""
        older = [entry for entry in self._entries if before is None or entry.id < before]
        return older[: -limit - 1 : -1]
