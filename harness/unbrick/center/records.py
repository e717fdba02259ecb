"""What the customer center remembers: subscribers and their calls, operators and what they did.

Times are seconds since 1970. ``database.py`` has the store that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol


@dataclass(frozen=True)
class Subscriber:
    """Somebody who has a terminal; ``phone`` (E.164, as ``+441632960123``) is theirs alone."""

    id: int
    phone: str
    name: str
    created: float


@dataclass(frozen=True)
class Call:
    """A call to the customer center, while it lasts (``ended`` None) and afterwards.

    ``caller`` is ``terminal``, or the operator who made the call; ``keys`` are those pressed, in
    their order; ``text`` is all that was said, a line for each.
    """

    id: int
    serial: str
    caller: str
    keys: str
    outcome: str
    text: str
    started: float
    ended: float | None


class UserData(Protocol):
    """The part of the user database that the center needs."""

    def owner(self, serial: str) -> Subscriber | None:
        """The subscriber whose terminal this is."""

    def calls(self, serial: str | None = None) -> list[Call]:
        """Every call, or those of a terminal, in the order of making."""

    def call(self, call_id: int) -> Call | None:
        """The call with this id."""

    def open_calls(self) -> list[Call]:
        """Every call that has not ended."""

    def add_call(self, call: Call) -> Call:
        """Keep a new call (its id is passed over); gives it back with its id."""

    def save_call(self, call: Call) -> None:
        """Keep what has changed of a call."""


class MemoryUserData:
    """``UserData`` that is lost when it ends."""

    def __init__(self) -> None:
        self.owners: dict[str, Subscriber] = {}
        self._calls: dict[int, Call] = {}

    def owner(self, serial: str) -> Subscriber | None:
        """See ``UserData``."""
        return self.owners.get(serial)

    def calls(self, serial: str | None = None) -> list[Call]:
        """See ``UserData``."""
        return [call for call in self._calls.values() if serial in (None, call.serial)]

    def call(self, call_id: int) -> Call | None:
        """See ``UserData``."""
        return self._calls.get(call_id)

    def open_calls(self) -> list[Call]:
        """See ``UserData``."""
        return [call for call in self._calls.values() if call.ended is None]

    def add_call(self, call: Call) -> Call:
        """See ``UserData``."""
        call = replace(call, id=len(self._calls) + 1)
        self._calls[call.id] = call
        return call

    def save_call(self, call: Call) -> None:
        """See ``UserData``."""
        self._calls[call.id] = call


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
    REFUSED = "was refused"


@dataclass(frozen=True)
class Entry:
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

    def log(self, entry: Entry) -> None:
        """Add to the log (the id is passed over)."""

    def entries(self, limit: int) -> list[Entry]:
        """The last entries, newest first."""


class MemoryAccounts:
    """``Accounts`` that are lost when they end."""

    def __init__(self) -> None:
        self._operators: dict[str, Operator] = {}
        self._entries: list[Entry] = []

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

    def log(self, entry: Entry) -> None:
        """See ``Accounts``."""
        self._entries.append(replace(entry, id=len(self._entries) + 1))

    def entries(self, limit: int) -> list[Entry]:
        """See ``Accounts``."""
        return self._entries[: -limit - 1 : -1]
