"""Terminals, images, updates, events, and texts for users."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from unbrick.server.records.tables import Record
from unbrick.wire.messages import Kind, Result, TerminalState


class UpdateState(Enum):
    """How far an update is; the docstring of ``server.core`` has the order."""

    PENDING = "pending"
    ANNOUNCED = "announced"
    REFUSED = "refused"
    TRANSFERRING = "transferring"
    RECEIVED = "received"
    CHECKED = "checked"
    REWRITING = "rewriting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected to happen."""
        return self in _ENDED


_ENDED = frozenset(
    (UpdateState.REFUSED, UpdateState.SUCCEEDED, UpdateState.FAILED, UpdateState.CANCELLED)
)


class MessageState(Enum):
    """Where a text message is."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    REFUSED = "refused"


@dataclass(frozen=True)
class Terminal(Record):
    """A terminal as it registered last; ``endpoint`` is where it can be reached.

    ``confirmed`` is the digest of the software that ran last, and so had passed its trial; empty
    when none is known. ``nonce`` is of the resident program's start, 0 when that does not run.
    ``holder`` is the number of the server that speaks with it (``core.leases``).
    """

    KEY = ("serial",)
    serial: str
    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: bytes
    state: TerminalState
    last_update_id: int
    last_result: Result
    security_counter: int
    endpoint: str
    first_seen: float
    last_seen: float
    confirmed: bytes = b""
    nonce: int = 0
    holder: int = 0


class Running(NamedTuple):
    """All of a terminal that decides what is offered to it; fields as in ``Terminal``."""

    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: bytes
    state: TerminalState
    security_counter: int


@dataclass(frozen=True)
class Image(Record):
    """A published image; ``digest`` is its SHA-256 TLV, ``file_digest`` is of the whole file."""

    KEY = ("digest",)
    digest: bytes
    version: str
    hardware_id: str
    name: str
    build_time: str
    security_counter: int
    size: int
    file_size: int
    file_digest: bytes
    published: float
    userdata_format: int = 1


@dataclass(frozen=True)
class File(Record):
    """The file of image ``digest``; its bytes are kept with it."""

    KEY = ("digest",)
    digest: bytes


@dataclass(frozen=True)
class Difference(Record):
    """The differential file from image ``base`` to image ``digest``; its bytes are kept with it."""

    KEY = ("base", "digest")
    base: bytes
    digest: bytes


@dataclass(frozen=True)
class Update(Record):
    """One update of one terminal to the image ``digest``; ``from_…`` is what it ran before.

    ``restoration``: the server began it by itself, for a terminal without valid software; ``kind``
    is of the file that was announced last, and None before that. ``commanded``: not by a file, but
    by commands, in a session. ``downgrade``: who ordered it wants it even if it is older than what
    the terminal runs.
    """

    id: int
    serial: str
    version: str
    digest: bytes
    from_version: str
    from_digest: bytes
    state: UpdateState
    result: Result | None
    text: str
    created: float
    changed: float
    restoration: bool = False
    kind: Kind | None = None
    commanded: bool = False
    downgrade: bool = False


@dataclass(frozen=True)
class Event(Record):
    """Something that happened; ``state`` is the state an update changed to, if it did."""

    id: int
    time: float
    serial: str
    update_id: int | None
    state: UpdateState | None
    text: str


@dataclass(frozen=True)
class TextMessage(Record):
    """A text for a terminal's user."""

    id: int
    serial: str
    text: str
    state: MessageState
    created: float
    changed: float
