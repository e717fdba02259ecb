"""Records in memory, for simulations and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from operator import attrgetter, eq
from typing import Any, Generic, TypeVar

from unbrick.server.records.contract import Records
from unbrick.server.records.tables import Containing, Elsewhere, Record, Store

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Contents(Generic[R]):
    """All that is in a table.

    Attributes:
        records: in the order of adding.
        data: the bytes that are kept with records, by their keys.
        count: ids given so far.
    """

    records: tuple[R, ...] = ()
    data: tuple[tuple[Any, bytes], ...] = ()
    count: int = 0


class MemoryTable(Generic[R]):
    """A ``Table`` in memory.

    Args:
        store: that it is of.
        kind: of its records.
    """

    def __init__(self, store: MemoryStore, kind: type[R]) -> None:
        self._store = store
        self._key_of: Callable[[R], Any] = attrgetter(*kind.KEY)
        self._end_of_key: Callable[[R], Any] = attrgetter(kind.KEY[-1])
        self._counts = kind.KEY == Record.KEY
        self._records: dict[Any, R] = {}
        self._data: dict[Any, bytes] = {}
        self.count = 0
        """Ids given so far."""

    def take(self) -> Contents[R]:
        """All that is in it now."""
        return Contents(tuple(self._records.values()), tuple(self._data.items()), self.count)

    def put_back(self, contents: Contents[R]) -> None:
        """Have nothing in it but this."""
        self._store.changes += 1
        self._records = {self._key_of(record): record for record in contents.records}
        self._data = dict(contents.data)
        self.count = contents.count

    def get(self, *key: Any) -> R | None:
        """See ``Table``."""
        return self._records.get(key[0] if len(key) == 1 else key)

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
        found: Iterable[R] = self._records.values()
        for name, value in where.items():
            is_one: Callable[[Any], bool] = partial(eq, value)
            if isinstance(value, Elsewhere):
                is_one = self._store.checker(name, value)
            elif isinstance(value, frozenset):  # A few enumerators, whose hashes are slow.
                is_one = tuple(value).__contains__
            found = list(found)  # Of thousands of steps; so no Python for each.
            found = compress(found, map(is_one, map(attrgetter(name), found)))
        if below is not None:
            found = [record for record in found if self._key_of(record) < below]
        if after is not None or by:
            found = sorted(found, key=attrgetter(*by) if by else self._key_of)
        if after is not None:
            end: Callable[[R], Any] = attrgetter(*by) if by else self._end_of_key
            found = [record for record in found if end(record) > after]
        if search is not None:
            found = filter(search.finds, found)
        if last_of_each:
            found = {getattr(record, last_of_each): record for record in found}.values()
        found = list(found)
        return found[:first] if last is None else found[max(0, len(found) - last) :]

    def largest(self, field: str) -> Any:
        """See ``Table``."""
        return max(map(attrgetter(field), self._records.values()), default=None)

    def tally(self, *by: str, search: Containing | None = None, **where: Any) -> dict[Any, int]:
        """See ``Table``."""
        return dict(Counter(map(attrgetter(*by), self.select(search=search, **where))))

    def totals(self, field: str, *by: str, **where: Any) -> dict[Any, int]:
        """See ``Table``."""
        found: Counter[Any] = Counter()
        for record in self.select(**where):
            found[attrgetter(*by)(record)] += getattr(record, field)
        return dict(found)

    def look_ahead(self, name: str, values: Iterable[Any]) -> None:
        """See ``Table``: they are here."""

    def add(self, record: R, data: bytes | None = None) -> R:
        """See ``Table``."""
        self._store.will_change(self)
        if self._counts:
            self.count += 1
            record = replace(record, id=self.count)  # type: ignore[type-var]
        key = self._key_of(record)
        self._records[key] = record
        if data is not None:
            self._data[key] = data
        return record

    def append(self, record: R) -> None:
        """See ``Table``."""
        self.add(record)

    def change(self, record: R) -> bool:
        """See ``Table``."""
        key = self._key_of(record)
        if key not in self._records:
            return False
        self._store.will_change(self)
        self._records[key] = record
        return True

    def put(self, record: R) -> None:
        """See ``Table``."""
        if not self.change(record):
            self.add(record)

    def remove(self, **where: Any) -> bool:
        """See ``Table``."""
        found = self.select(**where)
        self._store.will_change(self)
        for record in found:
            key = self._key_of(record)
            del self._records[key]
            self._data.pop(key, None)
        return bool(found)

    def data(self, *key: Any) -> bytes | None:
        """See ``Table``."""
        return self._data.get(key[0] if len(key) == 1 else key)


class MemoryStore(Store):
    """Tables in memory; all of them can be taken and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[type[Any], MemoryTable[Any]] = {}
        """By their kinds of records."""
        self.changes = 0
        """Goes up with every change of a table: what was taken at the same count is the same."""
        self._before: dict[MemoryTable[Any], Contents[Any]] = {}

    def table(self, kind: type[R]) -> MemoryTable[R]:
        """See ``Store``."""
        return self.tables.setdefault(kind, MemoryTable(self, kind))

    def checker(self, name: str, condition: Elsewhere) -> Callable[[Any], bool]:
        """Says of a field's value whether a condition holds."""
        some, none = (
            {
                getattr(record, name)
                for kind, where in kinds
                for record in self.table(kind).select(**dict(where))
            }
            for kinds in condition
        )
        return lambda value: (value in some or not condition.some) and value not in none

    def will_change(self, table: MemoryTable[Any]) -> None:
        """A table is about to change: what is in it is kept as long as that can be undone."""
        self.changes += 1
        if self.in_transaction and table not in self._before:
            self._before[table] = table.take()

    @contextmanager
    def _begun(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for table, contents in self._before.items():
                table.put_back(contents)
            raise
        finally:
            self._before.clear()


class MemoryRecords(Records):
    """Records that are lost when they end."""

    def __init__(self) -> None:
        self._memory = MemoryStore()
        super().__init__(self._memory)

    @property
    def tables(self) -> dict[type[Any], MemoryTable[Any]]:
        """The tables, by their kinds of records: each can be taken and put back."""
        return self._memory.tables

    @property
    def changes(self) -> int:
        """Goes up with every change of a table."""
        return self._memory.changes
