"""Reading and writing rows as the records that they keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, delete, insert, select, update

from unbrick.server.database.connection import open_database, wipe_log, writing
from unbrick.server.database.models import Base, table
from unbrick.server.records import check_whole

T = TypeVar("T")


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
        with writing(self._engine) as connection:
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None
            check_whole(undone=self._undone)
        if self._traces:
            self._traces = not wipe_log(self._engine)

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

    def _find(self, kind: type[T], model: type[Base], /, **where: object) -> list[T]:
        """Records by the order of their keys; None is any value, a list is any of its values."""
        return self._select(kind, self._query(kind, model, where))

    def _first(self, kind: type[T], model: type[Base], /, **where: object) -> T | None:
        return next(iter(self._select(kind, self._query(kind, model, where).limit(1))), None)

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
        rows = table(model)
        query = self._query(kind, model, where)
        if before is not None:
            query = query.where(rows.c.id < before)
        query = query.order_by(None).order_by(rows.c.id.desc()).limit(newest)
        return self._select(kind, query)[::-1]

    def _query(self, kind: type[T], model: type[Base], where: dict[str, object]) -> Select[Any]:
        rows = table(model)
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        query = select(*(rows.c[name] for name in names)).order_by(*rows.primary_key)
        for name, value in where.items():
            if isinstance(value, list):
                query = query.where(rows.c[name].in_(value))
            elif value is not None:
                query = query.where(rows.c[name] == value)
        return query

    def _select(self, kind: type[T], query: Select[Any]) -> list[T]:
        with self._use() as connection:
            return [kind(**row._mapping) for row in connection.execute(query)]

    def _data(self, model: type[Base], **where: object) -> bytes | None:
        rows = table(model)
        query = select(rows.c.data).where(*(rows.c[name] == where[name] for name in where))
        with self._use() as connection:
            data = connection.execute(query).scalar()
        return None if data is None else bytes(data)

    def _add(self, model: type[Base], values: dict[str, Any]) -> int:
        """Add a row; gives its id, if its table counts."""
        rows = table(model)
        if "id" in rows.c:
            values.pop("id", None)
        with self._use() as connection:
            key = connection.execute(insert(rows).values(**values)).inserted_primary_key
        return int(key[0]) if key is not None and "id" in rows.c else 0

    def _add_all(self, model: type[Base], values: list[dict[str, Any]]) -> None:
        if values:
            with self._use() as connection:
                connection.execute(insert(table(model)), values)

    def _save(self, model: type[Base], values: dict[str, Any]) -> bool:
        """Change the row with this key; gives whether there is one."""
        rows = table(model)
        key = [column == values[column.name] for column in rows.primary_key]
        with self._use() as connection:
            return bool(connection.execute(update(rows).where(*key).values(**values)).rowcount)

    def _put(self, model: type[Base], values: dict[str, Any]) -> None:
        """Change the row with this key, or add it."""
        with self._together():
            if not self._save(model, values):
                self._add(model, values)

    def _remove(self, model: type[Base], **where: object) -> bool:
        """Remove rows; gives whether there were any."""
        rows = table(model)
        statement = delete(rows).where(*(rows.c[name] == where[name] for name in where))
        with self._use() as connection:
            return bool(connection.execute(statement).rowcount)

    def _remove_for_good(self, model: type[Base], **where: object) -> bool:
        """Remove rows of which nothing may be left when the transaction is over."""
        removed = self._remove(model, **where)
        self._traces |= removed
        return removed
