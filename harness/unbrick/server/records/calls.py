"""Calls to the customer center, and the terminal's end of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from unbrick.server.records.tables import Record

CALLER = "terminal"
"""Who makes a call from a terminal, in its record."""


@dataclass(frozen=True)
class Call(Record):
    """A call to the customer center, while it lasts (``ended`` None) and afterwards.

    ``caller`` is ``terminal``, or the operator who made the call; ``keys`` are those pressed, in
    their order; ``outcome`` is the center's word for how it ended.
    """

    id: int
    serial: str
    caller: str
    keys: str
    outcome: str
    text: str
    started: float
    ended: float | None


class LineState(Enum):
    """How it is with the line between a terminal's user and the customer center.

    A line that is closing has lost one of the two; the last text waits until the terminal has it.
    """

    OPEN = "open"
    CLOSING = "closing"
    OVER = "over"


@dataclass(frozen=True)
class TerminalCall(Record):
    """The terminal's end of call ``call_id``, which its user makes.

    Attributes:
        number: the terminal's own, which counts up from its last start.
        keys: those that came, in their order; the center may not have looked at all of them yet.
    """

    KEY = ("call_id",)
    call_id: int
    serial: str
    number: int
    keys: str = ""
    state: LineState = LineState.OPEN


@dataclass(frozen=True)
class Saying(Record):
    """Text ``count`` (from 0) of a call that a terminal's user hears; the call ends with ``final``.

    Attributes:
        heard: the terminal has it.
    """

    KEY = ("call_id", "count")
    call_id: int
    count: int
    text: str
    final: bool
    heard: bool = False
