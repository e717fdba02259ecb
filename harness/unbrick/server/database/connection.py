"""Opening a database: SQLite by default, PostgreSQL by its URL; its tables are brought up to date.

Of all that write, one writes at a time, on both (``BEGIN IMMEDIATE``, an advisory lock): what a
transaction has read is still so when it writes. Processes may share a database.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    String,
    column,
    create_engine,
    event,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from unbrick.errors import SetupError

BUSY_TIMEOUT_S = 30.0
"""Seconds to wait for another process that writes."""

WRITER_LOCK = 0x756E6272
"""The key of the advisory lock that a writer holds on PostgreSQL."""

MIGRATIONS = Path(__file__).with_name("migrations")
"""Those of the user database."""

_HINT = "give the path of a file that can be written, or a URL: postgresql://USER@HOST/NAME"

_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
# The count is taken after the lock: a subquery that has effects comes first.
_NEXT = "SELECT nextval('writers') FROM (SELECT pg_advisory_xact_lock(%s) OFFSET 0) AS locked"
_NEWS = "SELECT what FROM writings WHERE number > %s ORDER BY number"
_NOTE = text("INSERT INTO writings (number, what) VALUES (:number, :what)")
_TIDY = text("DELETE FROM writings WHERE number <= :number")

KEPT_WRITINGS = 1000
"""Transactions whose writings others are told of. Who has missed more knows nothing any more."""
_WRITES = "unbrick_writes"
_FIRST = "0001"
VERSION_TABLE = "alembic_version"
"""In which alembic keeps the revision of the user database."""


def open_database(
    url: str, migrations: Path = MIGRATIONS, version_table: str = VERSION_TABLE
) -> Engine:
    """The database at an SQLAlchemy URL, or in an SQLite file, which is made when it is missing.

    Args:
        url: of the database.
        migrations: the folder of those that bring it up to date.
        version_table: in which alembic keeps how far these are.

    Raises:
        SetupError: it cannot be opened, or is a later version's.
    """
    hint = _HINT
    try:
        engine = _engine(complete_url(url))
        with writing(engine) as connection:
            bring_up_to_date(connection, migrations=migrations, version_table=version_table)
    except (SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, ImportError) and "psycopg" in reason:
            hint = "run: pip install 'unbrick[postgresql]'"
        raise SetupError(f"the database cannot be opened: {reason}", hint=hint) from error
    return engine


def complete_url(text_: str) -> URL:
    """An SQLAlchemy URL of what a person gave: a URL, or the path of an SQLite file."""
    url = make_url(text_ if "://" in text_ else f"sqlite:///{text_}")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise NoSuchModuleError("it is neither SQLite nor PostgreSQL")
    # The driver that is maintained, whatever SQLAlchemy's default is.
    if url.drivername == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    return url


def find_sqlite_file(text_: str) -> Path | None:
    """The file of an SQLite database, of what a person gave; None when there is none.

    Raises:
        SetupError: it is no database that there could be.
    """
    try:
        url = complete_url(text_)
    except SQLAlchemyError as error:
        raise SetupError(f"the database cannot be opened: {error}", hint=_HINT) from error
    return _file_of(url)


def _file_of(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        # It warns of errors that it passes over because of the one that is raised.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        return create_engine(url, pool_pre_ping=True)
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    file = _file_of(url)
    if file is not None:
        # For its user alone: it has the keys of terminals. SQLite gives its log the same mode.
        with contextlib.suppress(OSError):  # It is there, or SQLite says what is wrong.
            file.touch(0o600, exist_ok=False)
    else:
        options["poolclass"] = StaticPool
        options["connect_args"]["check_same_thread"] = False
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` says when a transaction begins.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What is deleted is overwritten: a backup must not be found in free pages.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # Who reads first and writes later would be refused when another has written in between.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: kept when the block ends, undone when it raises."""
    with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(_LOCK, {"key": WRITER_LOCK})
        yield connection


class Writer:
    """Writes again and again, in transactions that follow one another.

    PostgreSQL has a connection for it that stays open, so that it need not be tried out each time.
    What is sent there together is answered together: each way to PostgreSQL and back takes time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._seen: object = None
        self._count = 0
        self._alone = False
        self._ahead: tuple[Connection, list[Any] | None] | None = None

    @contextmanager
    def begun(self) -> Iterator[tuple[Connection, list[Any] | None]]:
        """A transaction: kept when the block ends, undone when it raises.

        Gives with the connection what others have noted since the last one; None: that is not
        known, and they may have written anything.
        """
        if self._engine.dialect.name == "sqlite":
            with writing(self._engine) as connection:
                version = _read_data_version(connection)
                news: list[Any] | None = [] if version == self._seen else None
                self._seen = version
                yield connection, news
            return
        ahead, self._ahead = self._ahead, None
        connection, news = ahead or self._begin()
        self._alone = news == []
        try:
            yield connection, news
            if self._ahead is None:
                connection.commit()
        except BaseException:
            self._ahead = None
            with contextlib.suppress(SQLAlchemyError):
                connection.rollback()
            if connection.invalidated:
                self.close()
            raise

    def note(self, connection: Connection, what: object) -> None:
        """Tell others what this transaction writes, when it is kept. SQLite has one process."""
        if self._engine.dialect.name == "sqlite":
            return
        connection.execute(_NOTE, {"number": self._count, "what": json.dumps(what)})
        if self._count % (KEPT_WRITINGS // 10) == 0:
            connection.execute(_TIDY, {"number": self._count - KEPT_WRITINGS})

    @contextmanager
    def ending(self, connection: Connection, while_waiting: Callable[[], bool]) -> Iterator[None]:
        """What is executed inside, for no answer, is sent together with the commit.

        PostgreSQL waits for the disk then, and meanwhile ``while_waiting`` is called. When it says
        that another transaction follows at once, that one is begun in the same message, unless
        somebody else writes, too: what was kept is not to wait for them.
        """
        if self._engine.dialect.name == "sqlite":
            yield
            return
        answers = None
        try:
            with self._explained(connection) as raw, raw.pipeline():
                yield
                connection.exec_driver_sql("COMMIT")
                if while_waiting() and self._alone:
                    answers = self._send_begin(raw)
            if answers is not None:
                self._ahead = connection, self._read_news(answers)
        except BaseException:
            connection.invalidate()  # It may be amid all that, and of no use any more.
            raise

    def _begin(self) -> tuple[Connection, list[Any] | None]:
        """The connection, with a transaction begun; a new one if the old one is broken."""
        tried_before = self._connection is not None
        try:
            if self._connection is None:
                # So that the driver adds no command of its own.
                connection = self._engine.connect()
                self._connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            self._connection.begin()
            with self._explained(self._connection) as raw:
                with raw.pipeline():
                    answers = self._send_begin(raw)
                return self._connection, self._read_news(answers)
        except DBAPIError as error:
            self.close()
            if not (tried_before and error.connection_invalidated):
                raise
            return self._begin()

    def _send_begin(self, raw: Any) -> tuple[Any, Any]:
        """Begin a transaction, in the same message as all else in a pipeline."""
        raw.execute("BEGIN")
        return raw.execute(_NEXT, (WRITER_LOCK,)), raw.execute(_NEWS, (self._count,))

    def _read_news(self, answers: tuple[Any, Any]) -> list[Any] | None:
        """What others have written since the last transaction, if that is known; see ``begun``."""
        numbers, news = answers
        since, self._count = self._count, int(numbers.fetchone()[0])
        if not since or self._count - since > KEPT_WRITINGS:
            return None
        return [json.loads(what) for (what,) in news.fetchall()]

    @contextmanager
    def _explained(self, connection: Connection) -> Iterator[Any]:
        """The driver's own connection; its errors are raised as SQLAlchemy's."""
        raw: Any = connection.connection.driver_connection
        dialect: Any = self._engine.dialect
        try:
            yield raw
        except dialect.dbapi.Error as error:
            lost = dialect.is_disconnect(error, raw, None)
            if lost:
                connection.invalidate(error)
            first = error.__context__  # What follows from it says less.
            raise DBAPIError.instance(
                *(None, None, first if isinstance(first, dialect.dbapi.Error) else error),
                dialect.dbapi.Error,
                connection_invalidated=lost,
                dialect=dialect,
            ) from error

    def close(self) -> None:
        """Let go of the connection; what was begun is undone."""
        connection, self._connection, self._count = self._connection, None, 0
        self._ahead = None
        if connection is not None:
            connection.close()


def bring_up_to_date(
    connection: Connection,
    revision: str = "head",
    *,
    migrations: Path = MIGRATIONS,
    version_table: str = VERSION_TABLE,
) -> None:
    """Run the migrations that are missing; those of a database without any are found out.

    Raises:
        SetupError: the database is a later version's.
    """
    tables = inspect(connection)
    if revision == "head" and tables.has_table(version_table):
        known = connection.execute(
            select(column("version_num", String)).select_from(table(version_table))
        )
        if known.scalars().all() == [_find_newest(migrations)]:
            return
    # It takes as long to import as all else here together, and most databases are up to date.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    ours = migrations == MIGRATIONS
    if ours and not tables.has_table(VERSION_TABLE) and tables.has_table("terminals"):
        command.stamp(config, _FIRST)
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise SetupError(
            f"the database is not one of this version: {error}",
            hint="start the version that it was last used with, or a later one",
        ) from error


def _find_newest(migrations: Path) -> str:
    """The revision of the newest migration: their files are called ``r0007_downgrade.py``."""
    newest = max(path.stem for path in (migrations / "versions").glob("r*.py"))
    return newest[1:5]


def _read_data_version(connection: Connection) -> object:
    """Of SQLite: something that stays the same as long as no other connection writes."""
    raw = connection.connection.driver_connection
    assert raw is not None  # noqa: S101 - it is connected
    # The count is this connection's, so another connection's says nothing.
    return raw, raw.execute("PRAGMA data_version").fetchone()[0]


def wipe_log(engine: Engine) -> bool:
    """Have what was deleted leave SQLite's log, too; gives whether nobody was in the way."""
    if engine.dialect.name != "sqlite":
        return True
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None  # noqa: S101 - it was connected just now
        busy, *_ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
