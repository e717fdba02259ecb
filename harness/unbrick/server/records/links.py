"""The keys of the links between terminals and the server, and what must never be forgotten of each.

A message bears a number that was never used before with its key (``unbrick.wire.oscore``). The
server keeps how far its own numbers are reserved, and in which of its starts a terminal spoke last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unbrick.server.records.people import Actor, AuditAction, AuditEntry
from unbrick.server.records.tables import Record, Store, Table


@dataclass(frozen=True)
class LinkKey(Record):
    """The key that a terminal and the server share.

    Attributes:
        serial: of the terminal, which may not have registered yet.
        key: OSCORE's Master Secret.
        reserved: all numbers of the server below may have been used.
        start: the count of the terminal's starts when it spoke last; 0: it never did.
        holder: the number of the server that knows which of its numbers have come.
    """

    KEY = ("serial",)
    serial: str
    key: bytes = field(repr=False)
    reserved: int = 0
    start: int = 0
    holder: int = 0


class LinkKeys:
    """The link keys that there are.

    Args:
        store: keeps them.
        audit: says who has brought them.
    """

    def __init__(self, store: Store, audit: Table[AuditEntry]) -> None:
        self._store = store
        self._keys = store.table(LinkKey)
        self._audit = audit

    def find(self, serial: str) -> LinkKey | None:
        """That of a terminal."""
        return self._keys.get(serial)

    def look_ahead(self, serials: list[str]) -> None:
        """Those of these terminals will be asked for: they are read together."""
        self._keys.look_ahead("serial", serials)

    def serials(self) -> set[str]:
        """The terminals that have one."""
        return set(self._keys.tally("serial"))

    def save(self, link: LinkKey) -> None:
        """Keep what has changed of one."""
        self._keys.change(link)

    def enrol(self, serial: str, key: bytes, actor: Actor) -> bool:
        """Keep the key of a terminal; gives whether it is another one than before.

        With another key all numbers are new. With the same one nothing is forgotten.
        """
        with self._store.together():
            known = self._keys.get(serial)
            if known is not None and known.key == key:
                return False
            self._keys.put(LinkKey(serial, key))
            entry = AuditEntry(
                0, actor.now, actor.name, AuditAction.TERMINAL_ENROLLED, serial, 0, actor.why
            )
            self._audit.append(entry)
        return True
