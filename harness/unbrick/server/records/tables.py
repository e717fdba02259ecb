"""What a store is made of: a table for every kind of record, and transactions over all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from unbrick.errors import ServerError


class Record:
    """A kind of records: a frozen dataclass.

    When its key is ``id``, the table gives the ids: they count up from 1 and never come back.
    """

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    """The fields that tell a record from all others."""


R = TypeVar("R", bound=Record)


class Containing(NamedTuple):
    """A condition: the text is somewhere in one of these fields, in capitals or not."""

    fields: tuple[str, ...]
    text: str

    def finds(self, record: object) -> bool:
        """Whether it holds for a record."""
        text = self.text.casefold()
        return any(text in getattr(record, name).casefold() for name in self.fields)


class Elsewhere(NamedTuple):
    """A condition of a field: which records of other kinds have its value in their field.

    Attributes:
        some: kinds with their conditions, at least one record of which has it; empty: none need.
        none: likewise, no record of which has it.
    """

    some: tuple[tuple[type[Record], tuple[tuple[str, Any], ...]], ...] = ()
    none: tuple[tuple[type[Record], tuple[tuple[str, Any], ...]], ...] = ()


class UndoneError(ServerError):
    """A transaction of which a part could not be kept."""


class Table(Protocol[R]):
    """The records of one kind.

    Conditions (``where``) name fields and what they must be: a value, None, any value of a
    frozenset, or what an ``Elsewhere`` says. Bytes may be kept with a record; they are read apart
    from it.
    """

    def get(self, *key: Any) -> R | None:
        """The record with this key."""

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
        """The records for which the conditions hold, in the order of adding.

        Records without an id are to be added in the order of their keys, or to be sorted by who
        selects them: some stores list them by their keys.

        Args:
            first: only so many, the first of them.
            last: only so many, the last of them; of kinds with an id.
            below: only those with lower ids.
            last_of_each: only the last one for every value of this field; of kinds with an id.
            after: only those with later keys, in the order of keys. Of a key of several fields it
                is the last one, and ``where`` has the others.
            by: in the order of these fields, which tell each record from all others. ``after`` has
                a value for each of them then.
            search: only those that it finds.
            where: the conditions.
        """

    def largest(self, field: str) -> Any:
        """The largest value of a field; None without a record."""

    def tally(self, *by: str, search: Containing | None = None, **where: Any) -> dict[Any, int]:
        """How many records there are with each value of a field, or with those of several.

        Args:
            by: the names of the fields; with several of them, the values are in tuples.
            search: only of those that it finds.
            where: the conditions.
        """

    def totals(self, field: str, *by: str, **where: Any) -> dict[Any, int]:
        """The sums of a field's values, as ``tally`` has the numbers of records."""

    def look_ahead(self, name: str, values: Iterable[Any]) -> None:
        """Records with these values of a field will be asked for soon, all of each value."""

    def add(self, record: R, data: bytes | None = None) -> R:
        """Keep a new record (an id is passed over), and bytes with it; gives it with its id."""

    def append(self, record: R) -> None:
        """Keep a new record (an id is passed over); it may be written with others, later."""

    def change(self, record: R) -> bool:
        """Keep what has changed of a record; gives whether there is one with its key."""

    def put(self, record: R) -> None:
        """Keep what has changed of a record, or a new one."""

    def remove(self, **where: Any) -> bool:
        """Remove the records with these values; gives whether there were any."""

    def data(self, *key: Any) -> bytes | None:
        """The bytes that are kept with the record with this key."""


class Store(ABC):
    """The tables, and transactions over them. Not for several threads at once."""

    def __init__(self) -> None:
        self._undone: bool | None = None
        """Whether a part of the transaction that is under way had raised; None when none is."""
        self.while_waiting: Callable[[], bool] = _do_nothing
        """Called while a database that is another process keeps a transaction. It does what asks
        no records, and does not raise. It gives whether another transaction follows at once."""

    @abstractmethod
    def table(self, kind: type[R]) -> Table[R]:
        """The table of a kind of records."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is under way."""
        return self._undone is not None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is kept when the block ends, and nothing when it raises.

        One inside another is a part of it: it is kept when the outer one ends.

        Raises:
            UndoneError: a part had raised, and somebody in between took that for handled.
        """
        if self.in_transaction:
            try:
                yield
            except BaseException:
                self._undone = True
                raise
            return
        with self._begun():
            self._undone = False
            try:
                yield
                if self._undone:
                    raise UndoneError(
                        "a part of what belongs together could not be kept",
                        hint="see the server's log",
                    )
            finally:
                self._undone = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """The transaction that is under way, or one for this block alone."""
        if self.in_transaction:
            yield
        else:
            with self.transaction():
                yield

    @abstractmethod
    def _begun(self) -> AbstractContextManager[None]:
        """A transaction: it is kept when the block ends, and undone when it raises."""


def _do_nothing() -> bool:
    """Nothing is to be done, and nothing follows."""
    return False


def given(**values: Any) -> dict[str, Any]:
    """Conditions of those arguments that were given: not None."""
    return {name: value for name, value in values.items() if value is not None}


def holds(record: object, where: tuple[tuple[str, Any], ...]) -> bool:
    """Whether conditions hold for a record."""
    for name, value in where:
        found = getattr(record, name)
        if found not in value if isinstance(value, frozenset) else found != value:
            return False
    return True
