"""The center's own store that lasts: operators and their log, in SQLite or any other database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from unbrick.center.operators.records import Deed, LogEntry, Operator, Role
from unbrick.errors import SetupError
from unbrick.server.database.connection import open_database

META = MetaData()
"""The tables; whoever changes them writes a migration."""

_OPERATORS = Table(
    "operators",
    META,
    Column("name", String(32), primary_key=True),
    Column("role", String, nullable=False),
    Column("password", String, nullable=False),
    Column("created", Float, nullable=False),
)

# sqlite_autoincrement: an id never comes back, so that a gap shows what is missing.
_LOG = Table(
    "operator_log",
    META,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("operator", String, nullable=False),
    Column("deed", String, nullable=False),
    Column("serial", String, nullable=False),
    Column("text", String, nullable=False),
    sqlite_autoincrement=True,
)

MIGRATIONS = Path(__file__).with_name("migrations")
"""Those of the operators' database."""

VERSION_TABLE = "alembic_version_center"
"""In which alembic keeps how far they are."""


class SqlAccounts:
    """``Accounts`` in a database; what is written is on the disk when the call returns.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file, which is made when it is missing.

    Raises:
        SetupError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = open_database(url, MIGRATIONS, VERSION_TABLE)
        except SetupError as error:
            words = str(error).replace("the database", "the center's accounts", 1)
            raise SetupError(
                words.replace("accounts is", "accounts are"), hint=error.hint
            ) from error

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def operator(self, name: str) -> Operator | None:
        """See ``Accounts``."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_OPERATORS).where(_OPERATORS.c.name == name)).first()
        return _operator(row) if row else None

    def operators(self) -> list[Operator]:
        """See ``Accounts``."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_OPERATORS).order_by(_OPERATORS.c.name)).all()
        return [_operator(row) for row in rows]

    def save_operator(self, operator: Operator) -> None:
        """See ``Accounts``."""
        values = {**vars(operator), "role": operator.role.value}
        with self._engine.begin() as connection:
            changed = connection.execute(
                update(_OPERATORS).where(_OPERATORS.c.name == operator.name).values(values)
            )
            if not changed.rowcount:
                connection.execute(insert(_OPERATORS).values(values))

    def remove_operator(self, name: str) -> None:
        """See ``Accounts``."""
        with self._engine.begin() as connection:
            connection.execute(delete(_OPERATORS).where(_OPERATORS.c.name == name))

    def log(self, entry: LogEntry) -> None:
        """See ``Accounts``."""
        values = {**vars(entry), "deed": entry.deed.value}
        del values["id"]
        with self._engine.begin() as connection:
            connection.execute(insert(_LOG).values(values))

    def entries(self, limit: int, before: int | None = None) -> list[LogEntry]:
        """See ``Accounts``."""
        query = select(_LOG).order_by(_LOG.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(_LOG.c.id < before)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [LogEntry(**{**row._mapping, "deed": Deed(row.deed)}) for row in rows]


def _operator(row: Row[Any]) -> Operator:
    return Operator(**{**row._mapping, "role": Role(row.role)})
