"""The tables of the database. Columns have the names of the fields that they keep.

Whoever changes something here writes a migration for it (docs/database.md); a test compares them.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from unbrick.server.records.analysis import PreparationState, RangeKind, Verdict
from unbrick.server.records.calls import LineState
from unbrick.server.records.people import AuditAction
from unbrick.server.records.sessions import SessionState, StepKind, StepState
from unbrick.server.records.updates import MessageState, UpdateState
from unbrick.wire.messages import Kind, Result, TerminalState

E = TypeVar("E", bound=Enum)
N = TypeVar("N", bound=IntEnum)

BIG = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits; SQLite's INTEGER has them, and only that counts up by itself there."""


class Word(TypeDecorator[E], Generic[E]):
    """An enumeration, kept as its value, which is a word."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[E]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else str(value.value)

    def process_result_value(self, value: Any, dialect: Dialect) -> E | None:  # noqa: ARG002
        return None if value is None else self.kind(value)


class Number(TypeDecorator[N], Generic[N]):
    """An enumeration of the wire, kept as its number."""

    impl = BIG
    cache_ok = True

    def __init__(self, kind: type[N]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: N | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> N | None:  # noqa: ARG002
        return None if value is None else self.kind(value)


Id = Annotated[int, mapped_column(BIG, primary_key=True)]
Serial = Annotated[str, mapped_column(index=True)]
Digest = Annotated[bytes, mapped_column(LargeBinary(32))]
ImageDigest = Annotated[bytes, mapped_column(LargeBinary(32), ForeignKey("images.digest"))]
PairPart = Annotated[
    bytes, mapped_column(LargeBinary(32), ForeignKey("images.digest"), primary_key=True)
]

_PAIR = ["preparations.base", "preparations.digest"]
# An id that was given out never comes back, whatever is deleted.
_COUNTED = {"sqlite_autoincrement": True}


class Base(DeclarativeBase):
    """What the tables have in common."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's way
        int: BIG,
        float: Float(),
        UpdateState: Word(UpdateState),
        MessageState: Word(MessageState),
        Verdict: Word(Verdict),
        RangeKind: Word(RangeKind),
        PreparationState: Word(PreparationState),
        SessionState: Word(SessionState),
        StepKind: Word(StepKind),
        StepState: Word(StepState),
        AuditAction: Word(AuditAction),
        LineState: Word(LineState),
        TerminalState: Number(TerminalState),
        Result: Number(Result),
        Kind: Number(Kind),
    }


class TerminalRow(Base):
    """A terminal as it registered last."""

    __tablename__ = "terminals"
    serial: Mapped[str] = mapped_column(primary_key=True)
    hardware_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[str]
    build_time: Mapped[str]
    digest: Mapped[bytes]
    state: Mapped[TerminalState]
    last_update_id: Mapped[int]
    last_result: Mapped[Result]
    security_counter: Mapped[int]
    endpoint: Mapped[str]
    first_seen: Mapped[float]
    last_seen: Mapped[float]
    confirmed: Mapped[bytes | None]
    nonce: Mapped[int]


class ImageRow(Base):
    """A published image."""

    __tablename__ = "images"
    id: Mapped[Id]
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    version: Mapped[str]
    hardware_id: Mapped[str]
    name: Mapped[str]
    build_time: Mapped[str]
    security_counter: Mapped[int]
    size: Mapped[int]
    file_size: Mapped[int]
    file_digest: Mapped[bytes]
    published: Mapped[float]
    userdata_format: Mapped[int]


class FileRow(Base):
    """The file of a published image."""

    __tablename__ = "files"
    digest: Mapped[PairPart]
    data: Mapped[bytes]


class DifferenceRow(Base):
    """A differential file."""

    __tablename__ = "differences"
    base: Mapped[PairPart]
    digest: Mapped[PairPart]
    data: Mapped[bytes]


class UpdateRow(Base):
    """An update."""

    __tablename__ = "updates"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    serial: Mapped[Serial]
    version: Mapped[str]
    digest: Mapped[ImageDigest]
    from_version: Mapped[str]
    from_digest: Mapped[bytes]
    state: Mapped[UpdateState] = mapped_column(index=True)
    result: Mapped[Result | None]
    text: Mapped[str]
    created: Mapped[float]
    changed: Mapped[float]
    restoration: Mapped[bool | None]
    kind: Mapped[Kind | None]
    commanded: Mapped[bool]


class EventRow(Base):
    """Something that happened."""

    __tablename__ = "events"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    time: Mapped[float]
    serial: Mapped[Serial]
    update_id: Mapped[int | None] = mapped_column(ForeignKey("updates.id"), index=True)
    state: Mapped[UpdateState | None]
    text: Mapped[str]


class MessageRow(Base):
    """A text message."""

    __tablename__ = "messages"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    serial: Mapped[str] = mapped_column(ForeignKey("terminals.serial"), index=True)
    text: Mapped[str]
    state: Mapped[MessageState] = mapped_column(index=True)
    created: Mapped[float]
    changed: Mapped[float]


class SubscriberRow(Base):
    """Somebody who has a terminal."""

    __tablename__ = "subscribers"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    phone: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    created: Mapped[float]


class OwnershipRow(Base):
    """Whose terminal one is."""

    __tablename__ = "ownerships"
    serial: Mapped[str] = mapped_column(primary_key=True)
    subscriber_id: Mapped[int] = mapped_column(ForeignKey("subscribers.id"), index=True)


class SoftwareRow(Base):
    """Software as a terminal named it, published here or not."""

    __tablename__ = "software"
    __table_args__ = (
        UniqueConstraint("digest", "hardware_id", "name", "version", "build_time"),
        _COUNTED,
    )
    id: Mapped[Id]
    digest: Mapped[bytes]
    hardware_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[str]
    build_time: Mapped[str]


class InstallationRow(Base):
    """What a terminal runs, and since when."""

    __tablename__ = "installations"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    serial: Mapped[str] = mapped_column(ForeignKey("terminals.serial"), index=True)
    software_id: Mapped[int] = mapped_column(ForeignKey("software.id"))
    since: Mapped[float]
    until: Mapped[float | None]


class AnalysisRow(Base):
    """A decision, and why."""

    __tablename__ = "analyses"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    serial: Mapped[str] = mapped_column(ForeignKey("terminals.serial"), index=True)
    time: Mapped[float]
    verdict: Mapped[Verdict]
    digest: Mapped[bytes]
    reason: Mapped[str]


class PreparationRow(Base):
    """The work on a pair of images."""

    __tablename__ = "preparations"
    base: Mapped[PairPart]
    digest: Mapped[PairPart]
    state: Mapped[PreparationState] = mapped_column(index=True)
    tries: Mapped[int]
    file_size: Mapped[int | None]
    text: Mapped[str]
    created: Mapped[float]
    changed: Mapped[float]


class RangeRow(Base):
    """A range of the NOR in which a pair of images differs, or which that has erased or written."""

    __tablename__ = "ranges"
    __table_args__ = (ForeignKeyConstraint(["base", "digest"], _PAIR),)
    base: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    kind: Mapped[RangeKind] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True)
    length: Mapped[int]


class CallRow(Base):
    """A call to the customer center."""

    __tablename__ = "calls"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    serial: Mapped[Serial]
    caller: Mapped[str]
    keys: Mapped[str]
    outcome: Mapped[str]
    text: Mapped[str]
    started: Mapped[float]
    ended: Mapped[float | None] = mapped_column(index=True)


class TerminalCallRow(Base):
    """The terminal's end of a call."""

    __tablename__ = "terminal_calls"
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), primary_key=True)
    serial: Mapped[str]
    number: Mapped[int]
    keys: Mapped[str]
    state: Mapped[LineState] = mapped_column(index=True)


class SayingRow(Base):
    """What is to be said to a terminal's user, or was said in a call that goes on."""

    __tablename__ = "sayings"
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), primary_key=True)
    count: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    final: Mapped[bool]
    heard: Mapped[bool]


class SessionRow(Base):
    """A commanded update."""

    __tablename__ = "sessions"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    update_id: Mapped[int] = mapped_column(ForeignKey("updates.id"), index=True)
    serial: Mapped[Serial]
    base: Mapped[Digest]
    digest: Mapped[ImageDigest]
    state: Mapped[SessionState] = mapped_column(index=True)
    text: Mapped[str]
    created: Mapped[float]
    changed: Mapped[float]
    command: Mapped[int]
    outcome: Mapped[SessionState | None]


class StepRow(Base):
    """A step of a commanded update."""

    __tablename__ = "steps"
    session_id: Mapped[int] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[StepKind]
    offset: Mapped[int]
    length: Mapped[int]
    state: Mapped[StepState]
    tries: Mapped[int]
    result: Mapped[int | None]
    text: Mapped[str]
    changed: Mapped[float]


class BackupRow(Base):
    """A terminal's personal data, encrypted by the terminal."""

    __tablename__ = "backups"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    session_id: Mapped[int] = mapped_column(ForeignKey("sessions.id"), unique=True)
    serial: Mapped[Serial]
    size: Mapped[int]
    checksum: Mapped[Digest]
    created: Mapped[float]
    data: Mapped[bytes]


class AuditRow(Base):
    """What was done to personal data; a trigger refuses to change or to remove a row."""

    __tablename__ = "audit"
    __table_args__ = _COUNTED
    id: Mapped[Id]
    time: Mapped[float]
    actor: Mapped[str]
    action: Mapped[AuditAction]
    serial: Mapped[Serial]
    subject: Mapped[int]
    text: Mapped[str]


def table(model: type[Base]) -> Table:
    """The table of a model."""
    found = model.__table__
    assert isinstance(found, Table)  # noqa: S101 - what every model here has
    return found
