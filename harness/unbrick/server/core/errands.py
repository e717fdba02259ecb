"""What terminals are to be told or asked, and what of it is under way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Errand:
    """Something to tell or ask a terminal: ``subject`` is an update's, message's or call's id."""

    kind: str
    subject: int
    serial: str


class Errands:
    """Each errand is due, or under way with a ticket, or both: when it came up again meanwhile."""

    def __init__(self) -> None:
        self._due: dict[Errand, None] = {}
        self._tickets: dict[int, Errand] = {}
        self._under_way: dict[str, dict[Errand, int]] = {}
        self._last_ticket = 0

    def add(self, errand: Errand) -> None:
        """Make it due."""
        self._due[errand] = None

    def due(self) -> Iterator[Errand]:
        """Every errand that is due, in the order of their coming up; they may be dropped."""
        return iter(list(self._due))

    def drop(self, errand: Errand) -> None:
        """It is not due any more."""
        self._due.pop(errand, None)

    def is_under_way(self, errand: Errand) -> bool:
        """Whether a ticket for it is out."""
        return errand in self._under_way.get(errand.serial, ())

    def start(self, errand: Errand) -> int:
        """It is under way; gives the ticket."""
        self._last_ticket += 1
        self._tickets[self._last_ticket] = errand
        self._under_way.setdefault(errand.serial, {})[errand] = self._last_ticket
        return self._last_ticket

    def end(self, ticket: int) -> Errand | None:
        """What a ticket was for, if it is still out."""
        errand = self._tickets.pop(ticket, None)
        if errand is not None:
            of_terminal = self._under_way[errand.serial]
            del of_terminal[errand]
            if not of_terminal:
                del self._under_way[errand.serial]
        return errand

    def give_up(self, serial: str) -> None:
        """What is under way to a terminal will not arrive."""
        for ticket in self._under_way.pop(serial, {}).values():
            del self._tickets[ticket]
