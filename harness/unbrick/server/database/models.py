"""The tables of the database. Each keeps a kind of records, and its columns are their fields.

Whoever changes something here writes a migration for it (docs/database.md); a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator, TypeEngine

from unbrick.server.records.access import AccessToken
from unbrick.server.records.analysis import (
    Analysis,
    KeptInstallation,
    Preparation,
    PreparedRange,
    Software,
)
from unbrick.server.records.calls import Call, Saying, TerminalCall
from unbrick.server.records.contract import SOFTWARE
from unbrick.server.records.links import LinkKey
from unbrick.server.records.people import AuditEntry, Ownership, Subscriber
from unbrick.server.records.rollouts import Rollout, RolloutMember
from unbrick.server.records.sessions import Backup, CommandedSession, PlannedStep
from unbrick.server.records.tables import Record
from unbrick.server.records.updates import (
    Difference,
    Event,
    File,
    Image,
    Running,
    Terminal,
    TextMessage,
    Update,
)

E = TypeVar("E", bound=Enum)
N = TypeVar("N", bound=IntEnum)

META = MetaData()
"""All of the tables."""

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


_PLAIN: dict[type[Any], TypeEngine[Any]] = {
    bool: Boolean(),
    bytes: LargeBinary(),
    float: Float(),
    int: BIG,
    str: String(),
}


@dataclass(frozen=True)
class Keeping:
    """How a kind of records is kept.

    Attributes:
        table: its table.
        groups: fields by which answers are remembered (see ``answers``), none of which changes.
        personal: of what is removed or changed nothing may be left when the transaction is over.
    """

    table: Table
    groups: tuple[tuple[str, ...], ...] = ()
    personal: bool = False


def _type(kind: type[Any]) -> TypeEngine[Any]:
    if issubclass(kind, IntEnum):
        return Number(kind)
    return Word(kind) if issubclass(kind, Enum) else _PLAIN[kind]


def _table(
    kind: type[Record],
    name: str,
    *more: SchemaItem,
    refers: Mapping[str, str] | None = None,
    indexed: str = "",
    unique: str = "",
    older: str = "",
) -> Table:
    """The table of a kind of records.

    Args:
        kind: whose fields are the columns.
        name: of the table.
        more: columns that are no fields, and constraints.
        refers: the columns of other tables that fields refer to.
        indexed: names of the fields that have an index.
        unique: the field whose values are.
        older: the field that an earlier version's rows do not have.
    """
    hints, columns = get_type_hints(kind), []
    own_key = any(isinstance(item, Column) and item.primary_key for item in more)
    for field in fields(kind):  # type: ignore[arg-type]
        hint = hints[field.name]
        types = [part for part in get_args(hint) or [hint] if part is not type(None)]
        refer = [ForeignKey(target) for at, target in (refers or {}).items() if at == field.name]
        columns.append(
            Column(
                field.name,
                _type(types[0]),
                *refer,
                primary_key=field.name in kind.KEY and not own_key,
                nullable=types != [hint] or field.name == older,
                index=field.name in indexed.split() or None,
                unique=field.name == unique or None,
            )
        )
    # An id that was given out never comes back, whatever is deleted.
    return Table(name, META, *columns, *more, sqlite_autoincrement=kind.KEY == Record.KEY)


def _data() -> Column[bytes]:
    """What is kept with a record."""
    return Column("data", LargeBinary, nullable=False)


_ID, _SERIAL, _SESSION, _ALL = ("id",), ("serial",), ("session_id",), ()
_PAIR = {"base": "images.digest", "digest": "images.digest"}
_IMAGE = {"digest": "images.digest"}
_TERMINAL = {"serial": "terminals.serial"}
_CALL = {"call_id": "calls.id"}

KINDS: dict[type[Any], Keeping] = {
    Terminal: Keeping(
        # The list of terminals asks what they run, and for those that run it.
        _table(
            Terminal,
            "terminals",
            Index("ix_terminals_running", *Running._fields, "serial"),
            older="confirmed",
        ),
        (_SERIAL,),
    ),
    Image: Keeping(
        # Listed in the order of publishing.
        _table(Image, "images", Column("id", BIG, primary_key=True), unique="digest"),
        (("digest",), _ALL),
    ),
    File: Keeping(_table(File, "files", _data(), refers=_IMAGE)),
    Difference: Keeping(_table(Difference, "differences", _data(), refers=_PAIR)),
    Update: Keeping(
        _table(Update, "updates", refers=_IMAGE, indexed="serial state", older="restoration"),
        (_ID, _SERIAL),
    ),
    Event: Keeping(
        _table(Event, "events", refers={"update_id": "updates.id"}, indexed="serial update_id")
    ),
    TextMessage: Keeping(
        _table(TextMessage, "messages", refers=_TERMINAL, indexed="serial state"), (_SERIAL,)
    ),
    Subscriber: Keeping(_table(Subscriber, "subscribers", unique="phone"), personal=True),
    Ownership: Keeping(
        _table(
            Ownership,
            "ownerships",
            refers={"subscriber_id": "subscribers.id"},
            indexed="subscriber_id",
        )
    ),
    # A trigger refuses to change or to remove a row.
    AuditEntry: Keeping(_table(AuditEntry, "audit", indexed="serial subject")),
    Software: Keeping(_table(Software, "software", UniqueConstraint(*SOFTWARE)), (_ID, SOFTWARE)),
    KeptInstallation: Keeping(
        _table(
            KeptInstallation,
            "installations",
            refers={**_TERMINAL, "software_id": "software.id"},
            indexed="serial",
        ),
        (_SERIAL,),
    ),
    Analysis: Keeping(_table(Analysis, "analyses", refers=_TERMINAL, indexed="serial"), (_SERIAL,)),
    Preparation: Keeping(
        _table(Preparation, "preparations", refers=_PAIR, indexed="state"), (Preparation.KEY,)
    ),
    PreparedRange: Keeping(
        _table(
            PreparedRange,
            "ranges",
            ForeignKeyConstraint(["base", "digest"], ["preparations.base", "preparations.digest"]),
        )
    ),
    Call: Keeping(_table(Call, "calls", indexed="serial ended")),
    TerminalCall: Keeping(
        _table(TerminalCall, "terminal_calls", refers=_CALL, indexed="state"),
        (("call_id",), _ALL),
    ),
    Saying: Keeping(_table(Saying, "sayings", refers=_CALL)),
    CommandedSession: Keeping(
        _table(
            CommandedSession,
            "sessions",
            refers={**_IMAGE, "update_id": "updates.id"},
            indexed="update_id serial state",
        ),
        (_SERIAL,),
    ),
    PlannedStep: Keeping(
        _table(PlannedStep, "steps", refers={"session_id": "sessions.id"}),
        (_SESSION,),
    ),
    Backup: Keeping(
        _table(
            Backup,
            "backups",
            _data(),
            refers={"session_id": "sessions.id"},
            indexed="serial",
            unique="session_id",
        ),
        (_ID, _SESSION),
        personal=True,
    ),
    LinkKey: Keeping(_table(LinkKey, "link_keys"), (_SERIAL,)),
    AccessToken: Keeping(_table(AccessToken, "tokens", unique="digest")),
    Rollout: Keeping(_table(Rollout, "rollouts", refers=_IMAGE, indexed="settled")),
    RolloutMember: Keeping(
        _table(
            RolloutMember,
            "rollout_members",
            refers={
                **_TERMINAL,
                "rollout_id": "rollouts.id",
                "update_id": "updates.id",
            },
            indexed="update_id",
        )
    ),
}
"""How each kind of records is kept."""

WRITINGS = Table(
    "writings",
    META,
    Column("number", BIG, primary_key=True, autoincrement=False),
    Column("what", String, nullable=False),
)
"""What the last transactions have written, for the other servers (``connection.Writer``)."""
