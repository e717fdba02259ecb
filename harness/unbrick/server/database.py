"""The store that lasts: SQLAlchemy on SQLite, or on any database it has a URL for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateColumn

from unbrick.errors import SetupError
from unbrick.server.records import (
    Event,
    Image,
    MessageState,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)
from unbrick.wire.messages import Kind, Result, TerminalState

_META = MetaData()

_TERMINALS = Table(
    "terminals",
    _META,
    Column("serial", String, primary_key=True),
    Column("hardware_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("build_time", String, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("state", Integer, nullable=False),
    Column("last_update_id", Integer, nullable=False),
    Column("last_result", Integer, nullable=False),
    Column("security_counter", Integer, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("confirmed", LargeBinary),
)

_IMAGES = Table(
    "images",
    _META,
    Column("id", Integer, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("version", String, nullable=False),
    Column("hardware_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("build_time", String, nullable=False),
    Column("security_counter", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("file_size", Integer, nullable=False),
    Column("file_digest", LargeBinary, nullable=False),
    Column("published", Float, nullable=False),
)

_FILES = Table(
    "files",
    _META,
    Column("digest", LargeBinary(32), ForeignKey("images.digest"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

_DIFFERENCES = Table(
    "differences",
    _META,
    Column("base", LargeBinary(32), ForeignKey("images.digest"), primary_key=True),
    Column("digest", LargeBinary(32), ForeignKey("images.digest"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# sqlite_autoincrement: an id that was given out never comes back, whatever is deleted.
_UPDATES = Table(
    "updates",
    _META,
    Column("id", Integer, primary_key=True),
    Column("serial", String, nullable=False, index=True),
    Column("version", String, nullable=False),
    Column("digest", LargeBinary(32), ForeignKey("images.digest"), nullable=False),
    Column("from_version", String, nullable=False),
    Column("from_digest", LargeBinary, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("result", Integer),
    Column("text", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("restoration", Boolean),
    Column("kind", Integer),
    sqlite_autoincrement=True,
)

_EVENTS = Table(
    "events",
    _META,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("serial", String, nullable=False, index=True),
    Column("update_id", Integer, ForeignKey("updates.id"), index=True),
    Column("state", String),
    Column("text", String, nullable=False),
    sqlite_autoincrement=True,
)

_MESSAGES = Table(
    "messages",
    _META,
    Column("id", Integer, primary_key=True),
    Column("serial", String, ForeignKey("terminals.serial"), nullable=False, index=True),
    Column("text", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    sqlite_autoincrement=True,
)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _open(url: str) -> Engine:
    if url in ("sqlite://", "sqlite:///:memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    _META.create_all(engine)
    _add_columns(engine)
    return engine


def _add_columns(engine: Engine) -> None:
    """Give a database that an earlier version made the columns that have come since."""
    for table in _META.sorted_tables:
        there = {column["name"] for column in inspect(engine).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                what = CreateColumn(column).compile(engine)
                with engine.begin() as connection:
                    connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {what}"))


class SqlRecords:
    """``Records`` in a database.

    What a transaction wrote is on the disk when its block ends. Not for several threads at once.

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
                f"the database cannot be opened: {reason}",
                hint="give the path of a file that can be written, or an SQLAlchemy URL",
            ) from error
        self._connection: Connection | None = None

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Records``."""
        with self._engine.begin() as connection:
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None

    @contextmanager
    def _use(self) -> Iterator[Connection]:
        if self._connection is not None:
            yield self._connection
        else:
            with self._engine.begin() as connection:
                yield connection

    def _rows(self, table: Table, **where: object) -> list[Row[Any]]:
        query = select(table)
        for name, value in where.items():
            query = query.where(table.c[name] == value)
        with self._use() as connection:
            return list(connection.execute(query.order_by(*table.primary_key)).all())

    def _add(self, table: Table, values: dict[str, Any]) -> int:
        with self._use() as connection:
            key = connection.execute(insert(table).values(**values)).inserted_primary_key
        return int(key[0]) if key is not None and table.c.get("id") is not None else 0

    def _save(self, table: Table, key: str, values: dict[str, Any]) -> int:
        with self._use() as connection:
            statement = update(table).where(table.c[key] == values[key]).values(**values)
            return connection.execute(statement).rowcount

    def terminal(self, serial: str) -> Terminal | None:
        """See ``Records``."""
        rows = self._rows(_TERMINALS, serial=serial)
        return _terminal(rows[0]) if rows else None

    def terminals(self) -> list[Terminal]:
        """See ``Records``."""
        return [_terminal(row) for row in self._rows(_TERMINALS)]

    def save_terminal(self, terminal: Terminal) -> None:
        """See ``Records``."""
        values = dict(vars(terminal))
        values["state"] = int(terminal.state)
        values["last_result"] = int(terminal.last_result)
        if not self._save(_TERMINALS, "serial", values):
            self._add(_TERMINALS, values)

    def image(self, digest: bytes) -> Image | None:
        """See ``Records``."""
        rows = self._rows(_IMAGES, digest=digest)
        return _image(rows[0]) if rows else None

    def images(self) -> list[Image]:
        """See ``Records``."""
        return [_image(row) for row in self._rows(_IMAGES)]

    def image_file(self, digest: bytes) -> bytes:
        """See ``Records``."""
        rows = self._rows(_FILES, digest=digest)
        if not rows:
            raise KeyError(digest)
        return bytes(rows[0].data)

    def add_image(self, image: Image, file: bytes) -> None:
        """See ``Records``."""
        self._add(_IMAGES, dict(vars(image)))
        self._add(_FILES, {"digest": image.digest, "data": file})

    def difference(self, base: bytes, digest: bytes) -> bytes | None:
        """See ``Records``."""
        rows = self._rows(_DIFFERENCES, base=base, digest=digest)
        return bytes(rows[0].data) if rows else None

    def add_difference(self, base: bytes, digest: bytes, file: bytes) -> None:
        """See ``Records``."""
        if self.difference(base, digest) is None:
            self._add(_DIFFERENCES, {"base": base, "digest": digest, "data": file})

    def update(self, update_id: int) -> Update | None:
        """See ``Records``."""
        rows = self._rows(_UPDATES, id=update_id)
        return _update(rows[0]) if rows else None

    def updates(self, serial: str | None = None) -> list[Update]:
        """See ``Records``."""
        where = {} if serial is None else {"serial": serial}
        return [_update(row) for row in self._rows(_UPDATES, **where)]

    def unfinished_updates(self) -> list[Update]:
        """See ``Records``."""
        ended = [state.value for state in UpdateState if state.ended]
        query = select(_UPDATES).where(_UPDATES.c.state.not_in(ended)).order_by(_UPDATES.c.id)
        with self._use() as connection:
            return [_update(row) for row in connection.execute(query)]

    def add_update(self, update: Update) -> Update:
        """See ``Records``."""
        return replace(update, id=self._add(_UPDATES, _update_values(update)))

    def save_update(self, update: Update) -> None:
        """See ``Records``."""
        self._save(_UPDATES, "id", {**_update_values(update), "id": update.id})

    def events(self, *, serial: str | None = None, update_id: int | None = None) -> list[Event]:
        """See ``Records``."""
        where = {"serial": serial, "update_id": update_id}
        given = {name: value for name, value in where.items() if value is not None}
        return [_event(row) for row in self._rows(_EVENTS, **given)]

    def add_event(self, event: Event) -> Event:
        """See ``Records``."""
        values = dict(vars(event))
        del values["id"]
        values["state"] = None if event.state is None else event.state.value
        return replace(event, id=self._add(_EVENTS, values))

    def messages(self, serial: str | None = None) -> list[TextMessage]:
        """See ``Records``."""
        where = {} if serial is None else {"serial": serial}
        return [_message(row) for row in self._rows(_MESSAGES, **where)]

    def message(self, message_id: int) -> TextMessage | None:
        """See ``Records``."""
        rows = self._rows(_MESSAGES, id=message_id)
        return _message(rows[0]) if rows else None

    def queued_messages(self) -> list[TextMessage]:
        """See ``Records``."""
        return [_message(row) for row in self._rows(_MESSAGES, state=MessageState.QUEUED.value)]

    def add_message(self, message: TextMessage) -> TextMessage:
        """See ``Records``."""
        return replace(message, id=self._add(_MESSAGES, _message_values(message)))

    def save_message(self, message: TextMessage) -> None:
        """See ``Records``."""
        self._save(_MESSAGES, "id", {**_message_values(message), "id": message.id})


def _terminal(row: Row[Any]) -> Terminal:
    values = dict(row._mapping)
    values["state"] = TerminalState(row.state)
    values["last_result"] = Result(row.last_result)
    values["confirmed"] = row.confirmed or b""
    return Terminal(**values)


def _image(row: Row[Any]) -> Image:
    values = dict(row._mapping)
    del values["id"]
    return Image(**values)


def _update_values(item: Update) -> dict[str, Any]:
    values = dict(vars(item))
    del values["id"]
    values["state"] = item.state.value
    values["result"] = None if item.result is None else int(item.result)
    values["kind"] = None if item.kind is None else int(item.kind)
    return values


def _update(row: Row[Any]) -> Update:
    values = dict(row._mapping)
    values["state"] = UpdateState(row.state)
    values["result"] = None if row.result is None else Result(row.result)
    values["restoration"] = bool(row.restoration)
    values["kind"] = None if row.kind is None else Kind(row.kind)
    return Update(**values)


def _event(row: Row[Any]) -> Event:
    values = dict(row._mapping)
    values["state"] = None if row.state is None else UpdateState(row.state)
    return Event(**values)


def _message_values(item: TextMessage) -> dict[str, Any]:
    values = dict(vars(item))
    del values["id"]
    values["state"] = item.state.value
    return values


def _message(row: Row[Any]) -> TextMessage:
    values = dict(row._mapping)
    values["state"] = MessageState(row.state)
    return TextMessage(**values)
