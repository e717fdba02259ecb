"""The center's own store that lasts: operators and their log, in SQLite or any other database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from unbrick.center.records import Deed, Entry, Operator, Role
from unbrick.errors import SetupError

_META = MetaData()

_OPERATORS = Table(
    "operators",
    _META,
    Column("name", String(32), primary_key=True),
    Column("role", String, nullable=False),
    Column("password", String, nullable=False),
    Column("created", Float, nullable=False),
)

# sqlite_autoincrement: an id never comes back, so that a gap shows what is missing.
_LOG = Table(
    "operator_log",
    _META,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("operator", String, nullable=False),
    Column("deed", String, nullable=False),
    Column("serial", String, nullable=False),
    Column("text", String, nullable=False),
    sqlite_autoincrement=True,
)


def _open(url: str) -> Engine:
    engine = create_engine(url)
    _META.create_all(engine)
    return engine


class SqlAccounts:
    """``Accounts`` in a database; what is written is on the disk when the call returns.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file, which is made when it is missing.

    Raises:
        SetupError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        if "://" not in url:
            url = f"sqlite:///{url}"
        try:
            self._engine = _open(url)
        except (SQLAlchemyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise SetupError(
                f"the center's accounts cannot be opened: {reason}",
                hint="give the path of a file that can be written, or an SQLAlchemy URL",
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

    def log(self, entry: Entry) -> None:
        """See ``Accounts``."""
        values = {**vars(entry), "deed": entry.deed.value}
        del values["id"]
        with self._engine.begin() as connection:
            connection.execute(insert(_LOG).values(values))

    def entries(self, limit: int, before: int | None = None) -> list[Entry]:
        """See ``Accounts``."""
        query = select(_LOG).order_by(_LOG.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(_LOG.c.id < before)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [Entry(**{**row._mapping, "deed": Deed(row.deed)}) for row in rows]


def _operator(row: Row[Any]) -> Operator:
    return Operator(**{**row._mapping, "role": Role(row.role)})
