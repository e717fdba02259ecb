"""Reading and writing rows as the records that they keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    Connection,
    Insert,
    Select,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from unbrick.server.database.connection import data_version, open_database, wipe_log, writing
from unbrick.server.database.models import Base, table
from unbrick.server.records.contract import check_whole

T = TypeVar("T")

REMEMBERED = 50_000
"""Answers kept in memory, so that they need not be read again."""

# Names of parameters that are not those of columns.
_KEY, _LIMIT, _BELOW = "key_", "limit_", "below_"


# To make a statement takes longer than to carry it out, so each is made once.


@cache
def _selecting(
    kind: type[Any],
    model: type[Base],
    where: tuple[str, ...],
    lists: frozenset[str],
    extra: tuple[str, ...],
    backwards: bool,
) -> Select[Any]:
    rows = table(model)
    query = select(*(rows.c[field.name] for field in fields(kind)))
    for name in where:
        value: BindParameter[Any] = bindparam(name, expanding=name in lists)
        query = query.where(rows.c[name].in_(value) if name in lists else rows.c[name] == value)
    if _BELOW in extra:
        query = query.where(rows.c.id < bindparam(_BELOW))
    if _LIMIT in extra:
        query = query.limit(bindparam(_LIMIT))
    return query.order_by(*(key.desc() if backwards else key for key in rows.primary_key))


@cache
def _inserting(model: type[Base]) -> Insert:
    return insert(table(model))


@cache
def _updating(model: type[Base], names: tuple[str, ...]) -> Update:
    rows = table(model)
    keys = {column.name for column in rows.primary_key}
    found = update(rows).where(*(rows.c[name] == bindparam(_KEY + name) for name in sorted(keys)))
    return found.values({name: bindparam(name) for name in names if name not in keys})


def _keyed(model: type[Base], values: dict[str, Any]) -> dict[str, Any]:
    """Values for ``_updating``."""
    keys = {column.name for column in table(model).primary_key}
    return {(_KEY + name if name in keys else name): value for name, value in values.items()}


class Rows:
    """A database with what every store of records needs. Columns are named as fields are.

    Args:
        url: see ``open_database``.

    Raises:
        SetupError: the database cannot be opened, or is a later version's.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        self._connection: Connection | None = None
        self._undone = False  # A part of the transaction that is under way.
        self._traces = False  # Of what was deleted for good.
        self._memory: dict[tuple[object, object], Any] = {}
        self._pending: dict[type[Base], dict[Insert | Update, list[dict[str, Any]]]] = {}
        self._seen: object = None
        self._transactions = 0

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Records``."""
        if self._connection is not None:
            with self._part():
                yield
            return
        self._undone = False
        try:
            with writing(self._engine) as connection:
                self._check_memory(connection)
                self._connection = connection
                try:
                    yield
                    check_whole(undone=self._undone)
                    self._flush(*self._pending)
                finally:
                    self._connection = None
        except BaseException:
            self._memory.clear()
            self._pending.clear()
            raise
        if self._traces:
            self._traces = not wipe_log(self._engine)

    def _check_memory(self, connection: Connection) -> None:
        """At the beginning of a transaction: forget what another process may have changed."""
        self._transactions += 1
        version = data_version(connection, self._transactions)
        if version != self._seen:
            self._memory.clear()
        self._seen = version

    def _known(self, what: object, key: object, read: Callable[[], T | None]) -> T | None:
        """What is kept under a key; in a transaction, in which nobody else writes, from memory."""
        if self._connection is None:
            return read()
        found: T | None = self._memory.get((what, key))
        if found is None:
            found = read()
            if found is not None:
                self._remember(what, key, found)
        return found

    def _remember(self, what: object, key: object, value: object) -> None:
        """Keep in mind what was read or written."""
        self._forget(what, key)
        self._memory[what, key] = value
        if len(self._memory) > REMEMBERED:
            del self._memory[next(iter(self._memory))]

    def _is_known(self, what: object, key: object) -> bool:
        """Whether there is something under a key, for sure: only in a transaction."""
        return self._connection is not None and (what, key) in self._memory

    def _forget(self, what: object, key: object) -> None:
        """Something is written, and what was remembered is no longer so."""
        self._memory.pop((what, key), None)

    @contextmanager
    def _part(self) -> Iterator[None]:
        """A transaction inside another: when it fails, the whole does."""
        try:
            yield
        except BaseException:
            self._undone = True
            raise

    @contextmanager
    def _together(self) -> Iterator[None]:
        """The transaction that is under way, or one for this block alone."""
        if self._connection is not None:
            yield
        else:
            with self.transaction():
                yield

    @contextmanager
    def _use(self) -> Iterator[Connection]:
        if self._connection is not None:
            yield self._connection
        else:
            with self._engine.begin() as connection:
                yield connection

    @contextmanager
    def _writing(self, model: type[Base]) -> Iterator[Connection]:
        if self._connection is not None:
            self._flush(model)
            yield self._connection
        else:
            with self.transaction(), self._use() as connection:
                yield connection

    def _find(self, kind: type[T], model: type[Base], /, **where: object) -> list[T]:
        """Records by the order of their keys; None is any value, a list is any of its values."""
        return self._select(kind, model, where)

    def _first(self, kind: type[T], model: type[Base], /, **where: object) -> T | None:
        return next(iter(self._select(kind, model, where, limit=1)), None)

    def _page(
        self,
        kind: type[T],
        model: type[Base],
        newest: int | None,
        before: int | None,
        /,
        **where: object,
    ) -> list[T]:
        """As ``_find``, of a table that counts: the ``newest``, those with ids below ``before``."""
        return self._select(kind, model, where, limit=newest, below=before, backwards=True)[::-1]

    def _select(
        self,
        kind: type[T],
        model: type[Base],
        where: dict[str, object],
        *,
        limit: int | None = None,
        below: int | None = None,
        backwards: bool = False,
    ) -> list[T]:
        given = {name: value for name, value in where.items() if value is not None}
        lists = frozenset(name for name, value in given.items() if isinstance(value, list))
        extra = {_LIMIT: limit, _BELOW: below}
        extra = {name: value for name, value in extra.items() if value is not None}
        key: Any = kind  # mypy 2 takes a type for something that cannot be hashed.
        query = _selecting(key, model, tuple(given), lists, tuple(extra), backwards)
        self._flush(model)
        with self._use() as connection:
            return [kind(*row) for row in connection.execute(query, {**given, **extra})]

    def _data(self, model: type[Base], **where: object) -> bytes | None:
        rows = table(model)
        query = select(rows.c.data).where(*(rows.c[name] == where[name] for name in where))
        with self._use() as connection:
            data = connection.execute(query).scalar()
        return None if data is None else bytes(data)

    def _add(self, model: type[Base], values: dict[str, Any]) -> int:
        """Add a row; gives its id, if its table counts."""
        counts = "id" in table(model).c
        if counts:
            values.pop("id", None)
        with self._writing(model) as connection:
            key = connection.execute(_inserting(model), values).inserted_primary_key
        return int(key[0]) if key is not None and counts else 0

    def _add_all(self, model: type[Base], values: list[dict[str, Any]]) -> None:
        if values:
            with self._writing(model) as connection:
                connection.execute(_inserting(model), values)

    def _save(self, model: type[Base], values: dict[str, Any]) -> bool:
        """Change the row with this key; gives whether there is one."""
        given = _keyed(model, values)
        with self._writing(model) as connection:
            return bool(connection.execute(_updating(model, tuple(values)), given).rowcount)

    def _add_later(self, model: type[Base], values: dict[str, Any]) -> None:
        """Add a row when the transaction ends, or when its table is read."""
        values.pop("id", None)
        self._write_later(model, _inserting(model), values)

    def _save_later(self, model: type[Base], values: dict[str, Any]) -> None:
        """Change the row with this key, if there is one, as ``_add_later`` adds."""
        self._write_later(model, _updating(model, tuple(values)), _keyed(model, values))

    def _write_later(
        self, model: type[Base], statement: Insert | Update, values: dict[str, Any]
    ) -> None:
        with self._together():
            self._pending.setdefault(model, {}).setdefault(statement, []).append(values)

    def _flush(self, *models: type[Base]) -> None:
        """Write what waits to be written to these tables: many rows are one statement."""
        for model in models:
            for statement, values in self._pending.pop(model, {}).items():
                with self._use() as connection:
                    connection.execute(statement, values)

    def _put(self, model: type[Base], values: dict[str, Any]) -> None:
        """Change the row with this key, or add it."""
        with self._together():
            if not self._save(model, values):
                self._add(model, values)

    def _remove(self, model: type[Base], **where: object) -> bool:
        """Remove rows; gives whether there were any."""
        rows = table(model)
        statement = delete(rows).where(*(rows.c[name] == where[name] for name in where))
        with self._writing(model) as connection:
            return bool(connection.execute(statement).rowcount)

    def _remove_for_good(self, model: type[Base], **where: object) -> bool:
        """Remove rows of which nothing may be left when the transaction is over."""
        removed = self._remove(model, **where)
        self._traces |= removed
        return removed
