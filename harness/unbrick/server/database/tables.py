"""The tables of the records in a database. Columns are named as the fields of the records are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
)

from unbrick.server.database.answers import WHOLE, Answer, Answers, Group, Query
from unbrick.server.database.connection import Writer, open_database, wipe_log
from unbrick.server.database.models import KINDS, META
from unbrick.server.database.presence import Presence
from unbrick.server.database.troubles import told
from unbrick.server.database.writes import BulkDelete, BulkWrite, Row
from unbrick.server.records.tables import Containing, Elsewhere, Record, Store

R = TypeVar("R", bound=Record)

# Names of parameters that are not those of columns.
_FIRST, _LAST, _BELOW, _AFTER = "first_", "last_", "below_", "after_"

_PLACES = {rows: place for place, rows in enumerate(META.sorted_tables)}
"""Of the tables: each comes after those that it refers to."""

_LAST_ID = {
    "sqlite": "SELECT seq FROM sqlite_sequence WHERE name = '{0}'",
    "postgresql": "SELECT last_value - (NOT is_called)::int FROM {0}_id_seq",
}
"""By the kind of database: the last id that was given out; nothing or 0: none was."""


def _to_json(value: Any) -> Any:
    """What JSON has no word for: a digest in the name of a group."""
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _from_json(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


class _Grouping(NamedTuple):
    """Where a question names a group.

    Attributes:
        names: of the fields by which its records are grouped.
        places: of their conditions among those of the question.
        others: the places of the other conditions.
    """

    names: tuple[str, ...]
    places: list[int]
    others: list[int]


def _being(rows: Table, name: str, value: Any, *, for_all: bool = False) -> ColumnElement[bool]:
    """That a condition holds for a field; it is asked ``for_all`` records, or for some of them."""
    column = rows.c[name]
    if not isinstance(value, Elsewhere):
        return column.in_(value) if isinstance(value, frozenset) else column == value

    def is_one_of(kind: type[Record], where: tuple[tuple[str, Any], ...]) -> ColumnElement[bool]:
        """That a record of this kind has it: one is looked up, or all are read before."""
        others = KINDS[kind].table
        values = select(others.c[name]).where(*(_being(others, at, item) for at, item in where))
        return column.in_(values) if for_all else values.where(others.c[name] == column).exists()

    some = [is_one_of(*of) for of in value.some]
    return and_(*([or_(*some)] if some else []), *(~is_one_of(*of) for of in value.none))


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
        self._grouping: dict[tuple[str, ...], list[_Grouping]] = {}
        self._has_own_group = kind.KEY in self._keeping.groups
        names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
        self._new = BulkWrite(rows, names)
        self._change = BulkWrite(rows, names, kind.KEY)
        self._with_data = BulkWrite(rows, [*names, "data"]) if "data" in rows.c else self._new
        self._gone = BulkDelete(rows, kind.KEY[0])
        self._next = (
            BulkWrite(rows, [name for name in names if name != "id"]) if self._counts else self._new
        )

    def get(self, *key: Any) -> R | None:
        """See ``Table``."""
        if self._has_own_group and self._store.in_transaction:
            answer = self._store.answers.find((self._rows.name, *key, *self._key))
            if answer is not None:
                return next(iter(answer.values()), None)
        return next(iter(self._find(Query(tuple(zip(self._key, key, strict=True))))), None)

    def select(
        self,
        *,
        first: int | None = None,
        last: int | None = None,
        below: int | None = None,
        last_of_each: str = "",
        after: str | int | tuple[Any, ...] | None = None,
        by: tuple[str, ...] = (),
        search: Containing | None = None,
        **where: Any,
    ) -> list[R]:
        """See ``Table``."""
        return self._find(
            Query(tuple(where.items()), first, last, below, last_of_each, after, search, by)
        )

    def largest(self, field: str) -> Any:
        """See ``Table``."""
        with self._store.reading(self._rows) as connection:
            return connection.execute(select(func.max(self._rows.c[field]))).scalar()

    def tally(self, *by: str, search: Containing | None = None, **where: Any) -> dict[Any, int]:
        """See ``Table``."""
        return self._calculate(func.count(), by, where, search)

    def totals(self, field: str, *by: str, **where: Any) -> dict[Any, int]:
        """See ``Table``."""
        return self._calculate(func.sum(self._rows.c[field]), by, where)

    def _calculate(
        self,
        what: ColumnElement[Any],
        by: tuple[str, ...],
        where: dict[str, Any],
        search: Containing | None = None,
    ) -> dict[Any, int]:
        """A number for each group of records with the same values of some fields."""
        columns = [self._rows.c[name] for name in by]
        conditions = [
            _being(self._rows, name, value, for_all=True) for name, value in where.items()
        ]
        if search is not None:
            conditions.append(self._finding(search))
        statement = select(*columns, what).where(*conditions).group_by(*columns)
        with self._reading(where.values()) as connection:
            rows = connection.execute(statement).all()
        return {values[0] if len(by) == 1 else tuple(values): int(n) for *values, n in rows}

    def add(self, record: R, data: bytes | None = None) -> R:
        """See ``Table``."""
        with self._store.together():
            if self._counts:
                record = replace(record, id=self._store.draw_id(self._rows))  # type: ignore[type-var]
            if data is None:
                self._store.write_later(self._rows, self._new, dict(vars(record)))
            else:
                self._store.write_later(self._rows, self._with_data, {**vars(record), "data": data})
            self._store.answers.added(self._groups_of(record), self._key_of(record), record)
            self._remember(record)
            for table, name, field in self._referring:
                table.know_none(name, getattr(record, field))
        return record

    def append(self, record: R) -> None:
        """See ``Table``."""
        with self._store.together():
            values = dict(vars(record))
            if self._counts:
                del values["id"]
            self._store.write_later(self._rows, self._next, values)
            self._store.forget_id(self._rows)
            self._store.answers.appended(self._groups_of(record))

    def change(self, record: R) -> bool:
        """See ``Table``. A record that is known to be there is written with others, later."""
        groups, key, values = self._groups_of(record), self._key_of(record), dict(vars(record))
        with self._store.together():
            if self._store.answers.know(groups, key):
                self._store.write_later(self._rows, self._change, values)
            else:
                with self._store.writing() as connection:
                    if not self._change.one(connection, values):
                        return False
            self._store.answers.changed(groups, key, record)
            self._remember(record)
            self._store.traces |= self._keeping.personal
        return True

    def put(self, record: R) -> None:
        """See ``Table``."""
        with self._store.together():
            if self._is_new(record) or not self.change(record):
                self.add(record)

    def remove(self, **where: Any) -> bool:
        """See ``Table``."""
        with self._store.together():
            found = self.select(**where)
            if found and not self._counts:
                self._delete_now(where)
            for record in found:
                key = self._key_of(record)
                if self._counts:
                    self._store.delete_later(self._rows, self._gone, key)
                self._store.answers.removed(self._groups_of(record), key)
            self._store.traces |= bool(found) and self._keeping.personal
        return bool(found)

    def _delete_now(self, where: dict[str, Any]) -> None:
        statement = delete(self._rows).where(
            *(self._rows.c[name] == value for name, value in where.items())
        )
        with self._store.writing() as connection:
            connection.execute(statement)

    def data(self, *key: Any) -> bytes | None:
        """See ``Table``."""
        conditions = (
            self._rows.c[name] == value for name, value in zip(self._key, key, strict=True)
        )
        with self._store.reading(self._rows) as connection:
            found = connection.execute(select(self._rows.c.data).where(*conditions)).scalar()
        return None if found is None else bytes(found)

    # Answers

    def _groups_of(self, record: R) -> list[Group]:
        """The groups that a record is of."""
        return [
            (self._rows.name, *(getattr(record, name) for name in names), *names)
            for names in self._keeping.groups
        ]

    def _group(self, query: Query) -> tuple[Group, Query] | None:
        """The group that a question is about, if there is one that answers are remembered of.

        Gives with it what is asked about the group.
        """
        if query.last_of_each or query.after or query.search or query.by:
            return None
        asked = tuple([name for name, _ in query.where])
        if asked not in self._grouping:
            self._grouping[asked] = [
                _Grouping(
                    names,
                    [asked.index(name) for name in names],
                    [place for place, name in enumerate(asked) if name not in names],
                )
                for names in self._keeping.groups
                if set(names) <= set(asked)
            ]
        for names, places, others in self._grouping[asked]:
            values = [query.where[place][1] for place in places]
            if None not in values and not {frozenset, Elsewhere} & set(map(type, values)):
                group = (self._rows.name, *values, *names)
                if not others and query[1:4] == WHOLE[1:4]:
                    return group, WHOLE
                where = tuple([query.where[place] for place in others])
                return group, Query(where, query.first, query.last, query.below)
        return None

    def _remember(self, record: R) -> None:
        """What was written need not be read."""
        if self._has_own_group:
            answer = {self._key_of(record): record}
            self._store.answers.remember(self._own_group(record), WHOLE, answer)

    def _own_group(self, record: R) -> Group:
        """The group of which a record is the only one."""
        return (self._rows.name, *[getattr(record, name) for name in self._key], *self._key)

    def _know(self, query: Query, found: Iterable[R]) -> None:
        """Remember an answer."""
        at = self._group(query)
        if at is not None:
            answer = {self._key_of(record): record for record in found}
            self._store.answers.remember(*at, answer)

    def _known(self, query: Query) -> Answer | None:
        """What is remembered, in a transaction: nobody else writes then."""
        at = self._group(query) if self._store.in_transaction else None
        return None if at is None else self._store.answers.find(*at)

    def _is_new(self, record: R) -> bool:
        """Whether it is known that there is none with its key."""
        return self._store.answers.find(self._own_group(record)) == {}

    @cached_property
    def _referring(self) -> list[tuple[SqlTable[Any], str, str]]:
        """The tables with groups of records that refer to one here: by which field, to which."""
        return [
            (table, names[0], key.column.name)
            for table in self._store.tables
            for names in table._keeping.groups  # noqa: SLF001 - of the same class
            if len(names) == 1
            for key in table._rows.c[names[0]].foreign_keys  # noqa: SLF001
            if key.column.table is self._rows
        ]

    def know_none(self, name: str, value: Any) -> None:
        """None here can have this value of a field yet, because what it refers to is new."""
        if self._store.in_transaction:
            self._know(Query(((name, value),)), ())

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
        if self._store.in_transaction:
            self._know(query, found)
        return found

    # Reading

    def _read(self, query: Query) -> list[R]:
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, frozenset) else value
            for name, value in query.where
            if value is not None and not isinstance(value, Elsewhere)
        }
        limits = {_FIRST: query.first, _LAST: query.last, _BELOW: query.below}
        values.update({name: limit for name, limit in limits.items() if limit is not None})
        if isinstance(query.after, tuple):
            named = (_AFTER + name for name in query.by)
            values.update(zip(named, query.after, strict=True))
        elif query.after is not None:
            values[_AFTER] = query.after
        with self._reading(value for _, value in query.where) as connection:
            rows = connection.execute(self._selecting(query), values).all()
        found = [self._kind(*row) for row in rows]
        return found if query.last is None else found[::-1]

    @contextmanager
    def _reading(self, conditions: Iterable[Any]) -> Iterator[Connection]:
        """A connection that reads the table, and those that conditions are about."""
        if self._store.in_transaction and any(isinstance(item, Elsewhere) for item in conditions):
            with self._store.writing() as connection:  # What waits in any table is there then.
                yield connection
        else:
            with self._store.reading(self._rows) as connection:
                yield connection

    def _selecting(self, query: Query) -> Select[Any]:
        """The statement for a question and all that differ from it in values alone."""
        shape = (
            *(
                (name, value if isinstance(value, Elsewhere) else (type(value), value is None))
                for name, value in query.where
            ),
            *(limit is None for limit in query[1:4]),
            query.last_of_each,
            query.after is None,
            query.by,
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
            if value is None or isinstance(value, Elsewhere):
                statement = statement.where(_being(rows, name, value))
            elif isinstance(value, frozenset):
                statement = statement.where(column.in_(bindparam(name, expanding=True)))
            else:
                statement = statement.where(column == bindparam(name))
        if query.below is not None:
            statement = statement.where(rows.c.id < bindparam(_BELOW))
        order = [rows.c[name] for name in query.by] or list(rows.primary_key)
        if isinstance(query.after, tuple):
            values = (bindparam(_AFTER + column.name, type_=column.type) for column in order)
            statement = statement.where(tuple_(*order) > tuple_(*values))
        elif query.after is not None:
            statement = statement.where(rows.c[self._key[-1]] > bindparam(_AFTER))
        if query.search is not None:
            statement = statement.where(self._finding(query.search))
        if query.last_of_each:
            # What holds for all of one value holds for the last one, so all others are not read.
            field = rows.c[query.last_of_each]
            last = select(func.max(rows.c.id)).group_by(field)
            if isinstance(dict(query.where).get(field.name), frozenset):
                last = last.where(field.in_(bindparam(field.name, expanding=True)))
            statement = statement.where(rows.c.id.in_(last))
        if query.last is not None:
            return statement.order_by(rows.c.id.desc()).limit(bindparam(_LAST))
        if query.first is not None:
            statement = statement.limit(bindparam(_FIRST))
        return statement.order_by(*order)

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
        self._pending: dict[Table, dict[BulkWrite | BulkDelete, list[Row]]] = {}
        self._last_ids: dict[Table, int] = {}
        self._drawn: dict[Table, int] = {}
        self._given: dict[str, int | None] = {}
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
            with told(), self._writer.begun() as (connection, news):
                self._learn(news)
                self._connection = connection
                try:
                    yield
                    if self._pending or self._drawn or self._has_news:
                        with self._writer.ending(connection, self.while_waiting):
                            self._flush(len(_PLACES))
                            self._writer.note(connection, self._take_news())
                finally:
                    self._connection = None
        except BaseException:
            self._forget()
            self._pending.clear()
            self._drawn.clear()
            self._take_news()
            raise
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

    def write_later(self, rows: Table, write: BulkWrite | BulkDelete, values: Row) -> None:
        """Write when the transaction ends, or when the table is read: many rows at once."""
        self._pending.setdefault(rows, {}).setdefault(write, []).append(values)

    def delete_later(self, rows: Table, write: BulkDelete, key: object) -> None:
        """Delete likewise, before others are written: these may take its place."""
        waiting = self._pending.get(rows, {})
        if any(row.get(write.key) == key for some in waiting.values() for row in some):
            self._flush(_PLACES[rows] + 1)
        self.write_later(rows, write, {write.key: key})

    def draw_id(self, rows: Table) -> int:
        """The id of the next record of a table, before it is written.

        The last one is remembered as answers are: nobody else draws in a transaction.
        """
        if rows not in self._last_ids:
            question = text(_LAST_ID[self._engine.dialect.name].format(rows.name))
            with self.reading(rows) as connection:
                self._last_ids[rows] = int(connection.execute(question).scalar() or 0)
        self._last_ids[rows] += 1
        self._drawn[rows] = self._given[rows.name] = self._last_ids[rows]
        return self._last_ids[rows]

    def forget_id(self, rows: Table) -> None:
        """The database itself gives an id to a record of this table."""
        self._last_ids.pop(rows, None)
        self._given[rows.name] = None

    @property
    def _has_news(self) -> bool:
        return bool(self.answers.written or self._given)

    def _take_news(self) -> object:
        """What a transaction has written, for the others; nothing is left of it here."""
        groups = [list(map(_to_json, group)) for group in self.answers.written]
        news = groups, self._given
        self._given = {}
        self.answers.written.clear()
        return news

    def _learn(self, news: list[Any] | None) -> None:
        """What others have written since the last transaction; None: it is not known."""
        if news is None:
            self._forget()
            return
        for groups, given in news:
            self.answers.forget(tuple(map(_from_json, group)) for group in groups)
            for name, last in given.items():
                if last is None:
                    self._last_ids.pop(META.tables[name], None)
                else:
                    self._last_ids[META.tables[name]] = last

    def _forget(self) -> None:
        """What is remembered may not be so any more."""
        self.answers.clear()
        self._last_ids.clear()

    def _flush(self, tables: int) -> None:
        """Write what waits to be written to the first so many tables: many rows are one statement.

        Records come after those that they refer to.
        """
        connection = self._connection
        assert connection is not None  # noqa: S101 - only in a transaction does anything wait
        self._keep_ids(connection)
        for rows in sorted(self._pending, key=_PLACES.__getitem__):
            if _PLACES[rows] >= tables:
                return
            waiting = self._pending.pop(rows)
            for write in sorted(waiting, key=lambda write: write.place):
                write.all(connection, waiting[write])

    def _keep_ids(self, connection: Connection) -> None:
        """Tell PostgreSQL the last ids that were drawn; SQLite sees them in the rows."""
        drawn, self._drawn = self._drawn, {}
        if drawn and self._engine.dialect.name != "sqlite":
            last = (func.setval(f"{rows.name}_id_seq", number) for rows, number in drawn.items())
            connection.execute(select(*last))
