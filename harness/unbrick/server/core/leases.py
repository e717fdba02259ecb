"""Which server speaks with which terminal, when several share a database (docs/deployment.md).

A terminal's record names the server that holds it: the one that the terminal has spoken with last.
Whoever changes that does so in a transaction, and transactions that write follow one another. So no
two servers hold one terminal, whatever they take each other for.

A server sends nothing to a terminal that has not spoken with it. The endpoint at which another
server has heard it may be another terminal's by now. Without input or output.
"""

from __future__ import annotations

from typing import Protocol

NOBODY = 0
"""Holds the terminals of a server that is alone, and those that no server has spoken with."""


class Leases(Protocol):
    """What a server knows of itself and of the others.

    Attributes:
        me: its number; numbers grow with every server that starts, and never come back.
        others: the numbers of the others that are there.
        center_elsewhere: whether another one has the customer center.
    """

    me: int
    others: frozenset[int]
    center_elsewhere: bool


class Alone:
    """The one server of a database that nobody else may use."""

    me = NOBODY
    others: frozenset[int] = frozenset()
    center_elsewhere = False


def is_first(leases: Leases) -> bool:
    """Whether this server has been there longest: it does what one of them has to do."""
    return all(leases.me < other for other in leases.others)
