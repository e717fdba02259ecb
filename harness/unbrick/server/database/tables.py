"""The tables of the records in a database. Columns are named as the fields of the records are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Connection,
    Executable,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from unbrick.server.database.answers import Answers, Group, Query
from unbrick.server.database.connection import open_database, read_data_version, wipe_log, writing
from unbrick.server.database.models import KINDS
from unbrick.server.database.presence import Presence
from unbrick.server.database.troubles import told
from unbrick.server.records.tables import Record, Store

R = TypeVar("R", bound=Record)

# Names of parameters that are not those of columns.
_KEY, _FIRST, _LAST, _BELOW = "key_", "first_", "last_", "below_"


class SqlTable(Generic[R]):
    """A ``Table`` in a database.

    Args:
        store: that it is of.
        kind: of its records.
    """

    def __init__(self, store: SqlStore, kind: type[R]) -> None:
        self._store, self._kind, self._key, self._keeping = store, kind, kind.KEY, KINDS[kind]
        self._key_of = attrgetter(*kind.KEY)
        self._counts = kind.KEY == Record.KEY
        self._rows = rows = self._keeping.table
        # To make a statement takes longer than to carry it out, so each is made once.
        self._selects: dict[object, Select[Any]] = {}
        self._insert = insert(rows)
        others = [item.name for item in fields(kind) if item.name not in kind.KEY]  # type: ignore[arg-type]
        self._update = (
            update(rows)
            .where(*(rows.c[name] == bindparam(_KEY + name) for name in kind.KEY))
            .values({name: bindparam(name) for name in others})
        )

    def get(self, *key: Any) -> R | None:
        """See ``Table``."""
        return next(iter(self._find(Query(tuple(zip(self._key, key, strict=True))))), None)

    def select(
        self,
        *,
        first: int | None = None,
        last: int | None = None,
        below: int | None = None,
        last_of_each: str = "",
        **where: Any,
    ) -> list[R]:
        """See ``Table``."""
        return self._find(Query(tuple(where.items()), first, last, below, last_of_each))

    def tally(self, *by: str, **where: Any) -> dict[Any, int]:
        """See ``Table``."""
        columns = [self._rows.c[name] for name in by]
        conditions = (self._rows.c[name] == value for name, value in where.items())
        statement = select(*columns, func.count()).where(*conditions).group_by(*columns)
        with self._store.reading(self) as connection:
            rows = connection.execute(statement).all()
        return {values[0] if len(by) == 1 else tuple(values): int(n) for *values, n in rows}

    def add(self, record: R, data: bytes | None = None) -> R:
        """See ``Table``."""
        values = self._values(record)
        if data is not None:
            values["data"] = data
        with self._store.writing(self) as connection:
            key = connection.execute(self._insert, values).inserted_primary_key
            if self._counts and key is not None:
                record = replace(record, id=int(key[0]))  # type: ignore[type-var]
            groups = self._groups_of(record)
            self._store.answers.added(groups, self._key_of(record), record, last=self._counts)
            self._remember(record)
        return record

    def append(self, record: R) -> None:
        """See ``Table``."""
        with self._store.together():
            self._store.write_later(self, self._insert, self._values(record))
            self._store.answers.forget(self._groups_of(record))

    def change(self, record: R) -> bool:
        """See ``Table``. A record that is known to be there is written with others, later."""
        groups, key = self._groups_of(record), self._key_of(record)
        values = {
            (_KEY + name if name in self._key else name): value
            for name, value in vars(record).items()
        }
        with self._store.together():
            if self._store.answers.know(groups, key):
                self._store.write_later(self, self._update, values)
            else:
                with self._store.writing(self) as connection:
                    if not connection.execute(self._update, values).rowcount:
                        return False
            self._store.answers.changed(groups, key, record)
            self._remember(record)
        return True

    def put(self, record: R) -> None:
        """See ``Table``."""
        with self._store.together():
            if not self.change(record):
                self.add(record)

    def remove(self, **where: Any) -> bool:
        """See ``Table``."""
        statement = delete(self._rows).where(
            *(self._rows.c[name] == value for name, value in where.items())
        )
        with self._store.writing(self) as connection:
            removed = bool(connection.execute(statement).rowcount)
            if self._keeping.groups:  # It may be in any answer.
                self._store.answers.clear()
            self._store.traces |= removed and self._keeping.personal
        return removed

    def data(self, *key: Any) -> bytes | None:
        """See ``Table``."""
        conditions = (
            self._rows.c[name] == value for name, value in zip(self._key, key, strict=True)
        )
        with self._store.reading(self) as connection:
            found = connection.execute(select(self._rows.c.data).where(*conditions)).scalar()
        return None if found is None else bytes(found)

    def _values(self, record: R) -> dict[str, Any]:
        values = dict(vars(record))
        if self._counts:
            del values["id"]
        return values

    # Answers

    def _groups_of(self, record: R) -> list[Group]:
        """The groups that a record is of."""
        return [
            (self, *(getattr(record, name) for name in names), *names)
            for names in self._keeping.groups
        ]

    def _group(self, query: Query) -> Group | None:
        """The group that a question is about, if there is one that answers are remembered of."""
        where = dict(query.where)
        for names in self._keeping.groups:
            values = [where.get(name) for name in names]
            if not query.last_of_each and not any(
                value is None or isinstance(value, frozenset) for value in values
            ):
                return (self, *values, *names)
        return None

    def _remember(self, record: R) -> None:
        """What was written need not be read."""
        if self._key in self._keeping.groups:
            query = Query(tuple((name, getattr(record, name)) for name in self._key))
            group = self._group(query)
            self._store.answers.remember(group, query, {self._key_of(record): record})

    def _find(self, query: Query) -> list[R]:
        # In a transaction nobody else writes.
        group = self._group(query) if self._store.in_transaction else None
        if group is not None:
            answer = self._store.answers.find(group, query)
            if answer is not None:
                return list(answer.values())
        found = self._read(query)
        longest = self._keeping.longest
        if group is not None and (longest is None or len(found) <= longest):
            answer = {self._key_of(record): record for record in found}
            self._store.answers.remember(group, query, answer)
        return found

    # Reading

    def _read(self, query: Query) -> list[R]:
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, frozenset) else value
            for name, value in query.where
            if value is not None
        }
        limits = {_FIRST: query.first, _LAST: query.last, _BELOW: query.below}
        values.update({name: limit for name, limit in limits.items() if limit is not None})
        with self._store.reading(self) as connection:
            rows = connection.execute(self._selecting(query), values).all()
        found = [self._kind(*row) for row in rows]
        return found if query.last is None else found[::-1]

    def _selecting(self, query: Query) -> Select[Any]:
        """The statement for a question and all that differ from it in values alone."""
        shape = (
            *((name, value is None, isinstance(value, frozenset)) for name, value in query.where),
            *(limit is None for limit in query[1:4]),
            query.last_of_each,
        )
        if shape not in self._selects:
            self._selects[shape] = self._made(query)
        return self._selects[shape]

    def _made(self, query: Query) -> Select[Any]:
        rows = self._rows
        statement = select(*self._columns())
        for name, value in query.where:
            column = rows.c[name]
            if value is None:
                statement = statement.where(column.is_(None))
            elif isinstance(value, frozenset):
                statement = statement.where(column.in_(bindparam(name, expanding=True)))
            else:
                statement = statement.where(column == bindparam(name))
        if query.below is not None:
            statement = statement.where(rows.c.id < bindparam(_BELOW))
        if query.last_of_each:
            last = select(func.max(rows.c.id)).group_by(rows.c[query.last_of_each])
            statement = statement.where(rows.c.id.in_(last))
        if query.last is not None:
            return statement.order_by(rows.c.id.desc()).limit(bindparam(_LAST))
        if query.first is not None:
            statement = statement.limit(bindparam(_FIRST))
        return statement.order_by(*rows.primary_key)

    def _columns(self) -> Iterator[Any]:
        for item in fields(self._kind):  # type: ignore[arg-type]
            column = self._rows.c[item.name]
            if column.nullable and item.default not in (MISSING, None):
                yield func.coalesce(column, item.default)  # An earlier version's row has none.
            else:
                yield column


class SqlStore(Store):
    """Tables in a database.

    What a transaction wrote is on the disk when its block ends. Processes may share a database.

    Args:
        url: see ``open_database``.

    Raises:
        SetupError: the database cannot be opened, or is a later version's.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._engine = open_database(url)
        self._connection: Connection | None = None
        self._pending: dict[object, dict[Executable, list[dict[str, Any]]]] = {}
        self._seen: object = None
        self._transactions = 0
        self.answers = Answers()
        """What is remembered; only for sure in a transaction."""
        self.traces = not wipe_log(self._engine)
        """Whether there may be some of what was deleted for good: one that was killed has left it."""

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def join(self) -> Presence | None:
        """Be one of the servers that share the database; None: only one can use it."""
        return Presence(self._engine) if self._engine.dialect.name == "postgresql" else None

    def table(self, kind: type[R]) -> SqlTable[R]:
        """See ``Store``."""
        return SqlTable(self, kind)

    @contextmanager
    def _begun(self) -> Iterator[None]:
        try:
            with told(), writing(self._engine) as connection:
                self._check_answers(connection)
                self._connection = connection
                try:
                    yield
                    for table_ in list(self._pending):
                        self._flush(table_)
                finally:
                    self._connection = None
        except BaseException:
            self.answers.clear()
            self._pending.clear()
            raise
        if self.traces:
            self.traces = not wipe_log(self._engine)

    def _check_answers(self, connection: Connection) -> None:
        """At the beginning of a transaction: forget what another process may have changed."""
        self._transactions += 1
        version = read_data_version(connection, self._transactions)
        if version != self._seen:
            self.answers.clear()
        self._seen = version

    @contextmanager
    def reading(self, table_: object) -> Iterator[Connection]:
        """A connection that reads a table, in the transaction that is under way, if one is."""
        if self._connection is not None:
            self._flush(table_)
            yield self._connection
        else:
            with told(), self._engine.begin() as connection:
                yield connection

    @contextmanager
    def writing(self, table_: object) -> Iterator[Connection]:
        """A connection that writes a table, in a transaction."""
        with self.together(), self.reading(table_) as connection:
            yield connection

    def write_later(self, table_: object, statement: Executable, values: dict[str, Any]) -> None:
        """Write when the transaction ends, or when the table is read: many rows at once."""
        self._pending.setdefault(table_, {}).setdefault(statement, []).append(values)

    def _flush(self, table_: object) -> None:
        """Write what waits to be written to a table: many rows are one statement."""
        assert self._connection is not None  # noqa: S101 - only in a transaction does anything wait
        for statement, values in self._pending.pop(table_, {}).items():
            self._connection.execute(statement, values)
