"""Every store there is, for tests of the one contract that all of them keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import CursorResult, Engine

from unbrick.server.database import SqlRecords
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords

Open = Callable[[], AbstractContextManager[Records]]

STORES = ("memory", "sql in memory", "sqlite", "postgresql")


def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a store of the kind ``request.param``; stores that last are opened anew each time."""
    urls = {"sqlite": str(tmp_path / "records.db")}
    if request.param == "postgresql":
        urls["postgresql"] = str(request.getfixturevalue("new_postgresql"))
    memory: Records = (
        SqlRecords("sqlite://") if request.param == "sql in memory" else MemoryRecords()
    )

    @contextmanager
    def open_() -> Iterator[Records]:
        if request.param not in urls:
            yield memory
            return
        records = SqlRecords(urls[request.param])
        yield records
        records.close()

    return open_


@contextmanager
def count_rows() -> Iterator[list[int]]:
    """The rows of each answer that is read from a database inside."""
    counted: list[int] = []
    read = CursorResult.all

    def note(result: CursorResult[Any]) -> Any:
        rows = read(result)
        counted.append(len(rows))
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorResult, "all", note)
        yield counted


@contextmanager
def list_statements() -> Iterator[list[str]]:
    """The first word of each statement that a database gets inside."""
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        said.append(statement.split(maxsplit=1)[0])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", note)
