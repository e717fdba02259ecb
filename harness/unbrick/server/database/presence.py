"""Which servers share a PostgreSQL database, and that this one is there.

A server is there as long as a connection of its own holds an advisory lock with its number. When
its process ends, the kernel closes the connection and PostgreSQL lets go of the lock, at once and
without any clock. When its machine is gone, PostgreSQL asks in vain for some seconds.
"""

from __future__ import annotations

import contextlib

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

SERVER_LOCK, CENTER_LOCK = 0x756E6273, 0x756E6263
"""The classes of the advisory locks: of a server, and of one that the customer center speaks to."""

SILENCE = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3}
"""Settings of PostgreSQL: seconds, seconds, and times, until it gives up a silent machine."""

_TAKE = text("SELECT pg_try_advisory_lock(:kind, :number)")
_GIVE = text("SELECT pg_advisory_unlock(:kind, :number)")
_NEXT = text("SELECT nextval('servers')")
_HELD = text(
    "SELECT classid::bigint, objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND objsubid = 2 AND classid::bigint IN (:servers, :centers)"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Presence:
    """That this server is there, and who else is. It is ``leases.Leases``.

    Args:
        engine: of the database, which is PostgreSQL.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._has_center = False
        self.me = 0
        self.others: frozenset[int] = frozenset()
        self.center_elsewhere = False
        self._connect()
        self.look(has_center=False)

    def look(self, *, has_center: bool) -> bool:
        """See who is there; gives whether that has changed. Without a database nothing changes.

        Args:
            has_center: whether the customer center speaks to this server.
        """
        before = self.me, self.others
        try:
            if self._connection is None:
                self._connect()
            self._look(has_center=has_center)
        except SQLAlchemyError:
            self.close()
        return (self.me, self.others) != before

    def _connect(self) -> None:
        """Be there, with the number that this server had, unless that is taken."""
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        self._connection, self._has_center = connection, False
        for name, value in SILENCE.items():
            connection.execute(
                text("SELECT set_config(:name, :value, false)"), _setting(name, value)
            )
        while not self.me or not self._lock(_TAKE, SERVER_LOCK):
            self.me = int(connection.execute(_NEXT).scalar_one())

    def _look(self, *, has_center: bool) -> None:
        assert self._connection is not None  # noqa: S101 - `look` has seen to it
        if has_center != self._has_center:
            self._lock(_TAKE if has_center else _GIVE, CENTER_LOCK)
            self._has_center = has_center
        kinds = {"servers": SERVER_LOCK, "centers": CENTER_LOCK}
        held = {(int(kind), int(number)) for kind, number in self._connection.execute(_HELD, kinds)}
        there = {number for kind, number in held if kind == SERVER_LOCK}
        self.others = frozenset(there - {self.me})
        self.center_elsewhere = any((CENTER_LOCK, number) in held for number in self.others)

    def _lock(self, what: object, kind: int) -> bool:
        assert self._connection is not None  # noqa: S101 - as above
        values = {"kind": kind, "number": self.me}
        return bool(self._connection.execute(what, values).scalar_one())  # type: ignore[call-overload]

    def close(self) -> None:
        """Be there no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()


def _setting(name: str, value: int) -> dict[str, str]:
    return {"name": name, "value": str(value)}
