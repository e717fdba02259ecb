"""Writing many rows of a table with one statement.

PostgreSQL gets the rows as one JSON array: a statement for each would cost both sides more than all
else. SQLite is in this process, so that a statement for each row is as cheap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Executable,
    String,
    Table,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

Row = dict[str, Any]
"""Values by the names of columns."""

_KEY = "key_"  # A parameter must not be called as a column that is set.
_ROWS = "rows_"


class BulkWrite:
    """A way to write rows of a table: new ones, or changes of those that are there.

    Args:
        table: theirs.
        names: of the columns.
        key: of those among them that tell the row to be changed; none: the rows are new.

    Attributes:
        place: of its turn among the writes to a table.
    """

    def __init__(self, table: Table, names: Sequence[str], key: Sequence[str] = ()) -> None:
        self.key = tuple(key)
        self.place = 2 if key else 1
        others = [name for name in names if name not in key]
        self._single: Executable = insert(table)
        if key:
            self._single = (
                update(table)
                .where(*(table.c[name] == bindparam(_KEY + name) for name in key))
                .values({name: bindparam(name) for name in others})
            )
        rows = (
            func.json_to_recordset(cast(bindparam(_ROWS, type_=String), JSON))
            .table_valued(*(column(name, table.c[name].type) for name in names))
            .render_derived(with_types=True)
        )
        all_of_them = postgresql.insert(table).from_select(names, select(rows))
        # By a join, PostgreSQL might read all of the table; this looks for each key.
        whole = {item.name for item in table.columns} == set(names)
        if others and key:
            all_of_them = all_of_them.on_conflict_do_update(
                index_elements=list(key), set_={name: all_of_them.excluded[name] for name in others}
            )
        self._together: str | None = None
        if not key or (whole and others):
            # As text, since to look it up by its parts takes as long as to send it.
            self._together = str(all_of_them.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]

    def one(self, connection: Connection, row: Row) -> int:
        """Write one row now; gives how many there were to write."""
        return connection.execute(self._single, self._named(row)).rowcount

    def all(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Write these rows; of several changes of one the last is what counts."""
        if self.key:
            rows = list({tuple(map(row.__getitem__, self.key)): row for row in rows}.values())
        if connection.dialect.name == "postgresql" and self._together is not None:
            rows_as_json = json.dumps(rows, default=_as_json)
            connection.exec_driver_sql(self._together, {_ROWS: rows_as_json})
        else:
            connection.execute(self._single, [self._named(row) for row in rows])

    def _named(self, row: Row) -> Row:
        return {_KEY + name if name in self.key else name: row[name] for name in row}


class BulkDelete:
    """A way to delete rows of a table.

    Args:
        table: theirs.
        key: the column that tells them.
    """

    place = 0

    def __init__(self, table: Table, key: str) -> None:
        self.key = key
        self._statement = delete(table).where(table.c[key].in_(bindparam(_KEY, expanding=True)))

    def all(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Delete the rows with these keys."""
        connection.execute(self._statement, {_KEY: [row[self.key] for row in rows]})


def _as_json(value: object) -> str:
    """What JSON has no word for, as PostgreSQL reads it from a text."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value.value)  # type: ignore[attr-defined]
