"""The tables of the records in a database. Columns are named as the fields of the records are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from operator import attrgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)

from unbrick.server.database.answers import Answer, Answers, Group, Query
from unbrick.server.database.connection import Writer, open_database, wipe_log
from unbrick.server.database.models import KINDS, META
from unbrick.server.database.presence import Presence
from unbrick.server.database.troubles import told
from unbrick.server.records.tables import Containing, Record, Store

R = TypeVar("R", bound=Record)

# Names of parameters that are not those of columns.
_KEY, _FIRST, _LAST, _BELOW, _AFTER = "key_", "first_", "last_", "below_", "after_"

_PLACES = {rows: place for place, rows in enumerate(META.sorted_tables)}
"""Of the tables: each comes after those that it refers to."""

_DRAW = text("SELECT nextval(:name) FROM generate_series(1, :count)")
_LAST_ID = text("SELECT seq FROM sqlite_sequence WHERE name = :name")

MOST_DRAWN = 64
"""Ids that are drawn at once; at first in a transaction it is one, then eight."""


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
        self._insert, self._insert_with_id = insert(rows), insert(rows)
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
        after: str | None = None,
        search: Containing | None = None,
        **where: Any,
    ) -> list[R]:
        """See ``Table``."""
        return self._find(
            Query(tuple(where.items()), first, last, below, last_of_each, after, search)
        )

    def largest(self, field: str) -> Any:
        """See ``Table``."""
        with self._store.reading(self._rows) as connection:
            return connection.execute(select(func.max(self._rows.c[field]))).scalar()

    def tally(self, *by: str, search: Containing | None = None, **where: Any) -> dict[Any, int]:
        """See ``Table``."""
        columns = [self._rows.c[name] for name in by]
        conditions = [self._rows.c[name] == value for name, value in where.items()]
        if search is not None:
            conditions.append(self._finding(search))
        statement = select(*columns, func.count()).where(*conditions).group_by(*columns)
        with self._store.reading(self._rows) as connection:
            rows = connection.execute(statement).all()
        return {values[0] if len(by) == 1 else tuple(values): int(n) for *values, n in rows}

    def add(self, record: R, data: bytes | None = None) -> R:
        """See ``Table``."""
        with self._store.together():
            if data is not None:
                record = self._add_now(record, data)
            elif self._counts:
                record = replace(record, id=self._store.draw_id(self._rows))  # type: ignore[type-var]
                self._store.write_later(self._rows, self._insert_with_id, dict(vars(record)))
            else:
                self._store.write_later(self._rows, self._insert, self._values(record))
            groups = self._groups_of(record)
            self._store.answers.added(groups, self._key_of(record), record, last=self._counts)
            self._remember(record)
        return record

    def _add_now(self, record: R, data: bytes) -> R:
        values = {**self._values(record), "data": data}
        with self._store.writing() as connection:
            key = connection.execute(self._insert, values).inserted_primary_key
        if not self._counts or key is None:
            return record
        return replace(record, id=int(key[0]))  # type: ignore[type-var]

    def append(self, record: R) -> None:
        """See ``Table``."""
        with self._store.together():
            self._store.write_later(self._rows, self._insert, self._values(record))
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
                self._store.write_later(self._rows, self._update, values)
            else:
                with self._store.writing() as connection:
                    if not connection.execute(self._update, values).rowcount:
                        return False
            self._store.answers.changed(groups, key, record)
            self._remember(record)
        return True

    def put(self, record: R) -> None:
        """See ``Table``."""
        with self._store.together():
            if self._is_new(record):
                self.add(record)
                for table in self._store.tables:
                    table.know_none_of(self._rows, record)
            elif not self.change(record):
                self.add(record)

    def remove(self, **where: Any) -> bool:
        """See ``Table``."""
        statement = delete(self._rows).where(
            *(self._rows.c[name] == value for name, value in where.items())
        )
        with self._store.writing() as connection:
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
        with self._store.reading(self._rows) as connection:
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

    def _group(self, query: Query) -> tuple[Group, Query] | None:
        """The group that a question is about, if there is one that answers are remembered of.

        Gives with it the question for all of the group.
        """
        where = dict(query.where)
        for names in self._keeping.groups:
            values = [where.get(name) for name in names]
            if not any((query.last_of_each, query.after, query.search)) and not any(
                value is None or isinstance(value, frozenset) for value in values
            ):
                whole = Query(tuple(zip(names, values, strict=True)))
                return (self, *values, *names), whole
        return None

    def _remember(self, record: R) -> None:
        """What was written need not be read."""
        if self._key in self._keeping.groups:
            self._know(self._query_of(record), [record])

    def _query_of(self, record: R) -> Query:
        """The question for a record, by its key."""
        return Query(tuple((name, getattr(record, name)) for name in self._key))

    def _know(self, query: Query, found: Iterable[R]) -> None:
        """Remember an answer."""
        at = self._group(query)
        if at is not None:
            answer = {self._key_of(record): record for record in found}
            self._store.answers.remember(at[0], query, answer)

    def _known(self, query: Query) -> Answer | None:
        """What is remembered, in a transaction: nobody else writes then."""
        at = self._group(query) if self._store.in_transaction else None
        return None if at is None else self._store.answers.find(at[0], query, at[1])

    def _is_new(self, record: R) -> bool:
        """Whether it is known that there is none with its key."""
        return self._known(self._query_of(record)) == {}

    def know_none_of(self, rows: Table, record: Record) -> None:
        """A record of ``rows`` is new: none here can refer to it yet."""
        for names in self._keeping.groups:
            if len(names) == 1 and any(
                key.column.table is rows and key.column.name == names[0]
                for key in self._rows.c[names[0]].foreign_keys
            ):
                self._know(Query(((names[0], getattr(record, names[0])),)), ())

    def look_ahead(self, name: str, values: Iterable[Any]) -> None:
        """See ``Table``. One statement, for those of which nothing is remembered."""
        if not self._store.in_transaction:
            return
        new = [value for value in values if self._known(Query(((name, value),))) is None]
        if not new:
            return
        found: dict[Any, list[R]] = {value: [] for value in new}
        for record in self._read(Query(((name, frozenset(new)),))):
            found[getattr(record, name)].append(record)
            self._remember(record)
        for value, records in found.items():
            self._know(Query(((name, value),)), records)

    def _find(self, query: Query) -> list[R]:
        answer = self._known(query)
        if answer is not None:
            return list(answer.values())
        found = self._read(query)
        longest = self._keeping.longest
        if self._store.in_transaction and (longest is None or len(found) <= longest):
            self._know(query, found)
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
        if query.after is not None:
            values[_AFTER] = query.after
        with self._store.reading(self._rows) as connection:
            rows = connection.execute(self._selecting(query), values).all()
        found = [self._kind(*row) for row in rows]
        return found if query.last is None else found[::-1]

    def _selecting(self, query: Query) -> Select[Any]:
        """The statement for a question and all that differ from it in values alone."""
        shape = (
            *((name, value is None, isinstance(value, frozenset)) for name, value in query.where),
            *(limit is None for limit in query[1:4]),
            query.last_of_each,
            query.after is None,
        )
        if query.search is not None:  # What people type is never the same: it is not kept.
            return self._made(query)
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
        if query.after is not None:
            statement = statement.where(rows.c[self._key[0]] > bindparam(_AFTER))
        if query.search is not None:
            statement = statement.where(self._finding(query.search))
        if query.last_of_each:
            last = select(func.max(rows.c.id)).group_by(rows.c[query.last_of_each])
            statement = statement.where(rows.c.id.in_(last))
        if query.last is not None:
            return statement.order_by(rows.c.id.desc()).limit(bindparam(_LAST))
        if query.first is not None:
            statement = statement.limit(bindparam(_FIRST))
        return statement.order_by(*rows.primary_key)

    def _finding(self, search: Containing) -> ColumnElement[bool]:
        """A search. SQLite knows only the capitals of ASCII, so that usual forms are looked for."""
        text = search.text
        forms = {text} if text.isascii() else {text, text.lower(), text.upper(), text.title()}
        return or_(
            *(
                self._rows.c[name].icontains(form, autoescape=True)
                for name in search.fields
                for form in sorted(forms)
            )
        )

    def _columns(self) -> Iterator[Any]:
        for item in fields(self._kind):  # type: ignore[arg-type]
            column = self._rows.c[item.name]
            if column.nullable and item.default not in (MISSING, None):
                yield func.coalesce(column, item.default)  # An earlier version's row has none.
            else:
                yield column


class _Ids:
    """Ids of a table that were drawn for a transaction.

    Nobody else draws meanwhile, so those that are left can be given back.
    """

    def __init__(self) -> None:
        self.left: list[int] = []
        self.drawn = 0
        self.last = 0


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
        self._writer = Writer(self._engine)
        self._connection: Connection | None = None
        self._pending: dict[Table, dict[Executable, list[dict[str, Any]]]] = {}
        self._ids: dict[Table, _Ids] = {}
        self._seen: object = None
        self.tables: list[SqlTable[Any]] = []
        """Those that were asked for."""
        self.answers = Answers()
        """What is remembered; only for sure in a transaction."""
        self.traces = not wipe_log(self._engine)
        """Whether there may be some of what was deleted for good, maybe left by who was killed."""

    def close(self) -> None:
        """Let go of the database."""
        self._writer.close()
        self._engine.dispose()

    def join(self) -> Presence | None:
        """Be one of the servers that share the database; None: only one can use it."""
        return Presence(self._engine) if self._engine.dialect.name == "postgresql" else None

    def table(self, kind: type[R]) -> SqlTable[R]:
        """See ``Store``."""
        table = SqlTable(self, kind)
        self.tables.append(table)
        return table

    @contextmanager
    def _begun(self) -> Iterator[None]:
        try:
            with told(), self._writer.begun() as (connection, version):
                if version != self._seen:
                    self.answers.clear()  # Another process may have changed what is remembered.
                self._seen = version
                self._connection = connection
                try:
                    yield
                    self._flush(len(_PLACES))
                    self._give_back_ids()
                finally:
                    self._connection = None
        except BaseException:
            self.answers.clear()
            self._pending.clear()
            raise
        finally:
            self._ids.clear()
        if self.traces:
            self.traces = not wipe_log(self._engine)

    @contextmanager
    def reading(self, rows: Table) -> Iterator[Connection]:
        """A connection that reads a table, in the transaction that is under way, if one is."""
        if self._connection is not None:
            if rows in self._pending:
                self._flush(_PLACES[rows] + 1)
            yield self._connection
        else:
            with told(), self._engine.begin() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection that writes, in a transaction."""
        with self.together():
            assert self._connection is not None  # noqa: S101 - in a transaction there is one
            self._flush(len(_PLACES))
            yield self._connection

    def write_later(self, rows: Table, statement: Executable, values: dict[str, Any]) -> None:
        """Write when the transaction ends, or when the table is read: many rows at once."""
        self._pending.setdefault(rows, {}).setdefault(statement, []).append(values)

    def draw_id(self, rows: Table) -> int:
        """The id of the next record of a table, before it is written."""
        assert self._connection is not None  # noqa: S101 - in a transaction there is one
        ids = self._ids.setdefault(rows, _Ids())
        if not ids.left:
            ids.drawn = min(8 * ids.drawn, MOST_DRAWN) or 1
            if self._engine.dialect.name == "sqlite":
                last = ids.last or self._connection.execute(_LAST_ID, {"name": rows.name}).scalar()
                ids.last = int(last or 0) + ids.drawn
                ids.left = list(range(ids.last, ids.last - ids.drawn, -1))
            else:
                values = {"name": f"{rows.name}_id_seq", "count": ids.drawn}
                ids.left = [int(row[0]) for row in self._connection.execute(_DRAW, values)][::-1]
        return ids.left.pop()

    def _give_back_ids(self) -> None:
        """Have the next transaction go on behind the last id that was given to a record."""
        left = {f"{rows.name}_id_seq": ids.left[-1] for rows, ids in self._ids.items() if ids.left}
        if left and self._connection is not None and self._engine.dialect.name != "sqlite":
            back = (
                func.setval(name, number, literal(value=False)) for name, number in left.items()
            )
            self._connection.execute(select(*back))

    def _flush(self, tables: int) -> None:
        """Write what waits to be written to the first so many tables: many rows are one statement.

        Records come after those that they refer to. Of a table new ones come first.
        """
        assert self._connection is not None  # noqa: S101 - only in a transaction does anything wait
        for rows in sorted(self._pending, key=_PLACES.__getitem__):
            if _PLACES[rows] >= tables:
                return
            waiting = self._pending.pop(rows)
            for statement in sorted(waiting, key=lambda statement: not statement.is_insert):
                self._connection.execute(statement, waiting[statement])
