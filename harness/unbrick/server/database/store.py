"""``Records`` in a database."""

from __future__ import annotations

from unbrick.server.database.presence import Presence
from unbrick.server.database.tables import SqlStore
from unbrick.server.records.contract import Records


class SqlRecords(Records):
    """``Records`` in a database.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file, which is made when it is missing.

    Raises:
        SetupError: the database cannot be opened, or is a later version's.
    """

    def __init__(self, url: str) -> None:
        self._database = SqlStore(url)
        super().__init__(self._database)

    def join(self) -> Presence | None:
        """Be one of the servers that share the database; None: only one can use it."""
        return self._database.join()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()
