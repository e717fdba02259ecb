"""Which server speaks with which terminal, when several share a database (docs/deployment.md).

A terminal's record names the server that holds it. Whoever changes that does so in a transaction,
and transactions that write follow one another. So no two servers hold one terminal, whatever they
take each other for. Which servers there are is known from elsewhere, and only decides who takes
over. Without input or output.
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


def is_ours(holder: int, leases: Leases) -> bool:
    """Whether a terminal with this holder is this server's to speak with.

    Terminals of servers that are not there any more are the first one's.
    """
    if holder == leases.me:
        return True
    return holder not in leases.others and is_first(leases)
