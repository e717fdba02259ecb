"""The operations of a flash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SPOILT = 4
"""Bit of ``FlashOp.failed`` that stands for the first chip, when it spoils cells besides."""


class FlashOp(NamedTuple):
    """One operation of a flash: ``kind`` is word, buffer or erase; offset and length in bytes.

    ``lanes`` has bit 0 set for the first chip, bit 1 for one beside it; times are in seconds.
    ``data`` is what was to be programmed, 0xFF where nothing was given; empty for an erase. The
    ``failed`` lanes end it with an error: they carry out the first half of their words alone. Those
    lanes with bit ``SPOILT`` and up set, too, clear the next word besides.
    """

    index: int  # type: ignore[assignment]  # nobody needs the one of tuples
    kind: str
    offset: int
    length: int
    lanes: int
    start: float
    end: float
    data: bytes = b""
    failed: int = 0


@dataclass(frozen=True)
class Worn:
    """Cells on which operations end with an error, and half done.

    Attributes:
        offset, length: bytes; operations that begin there fail.
        erase: whether erases fail, or programs.
        good: so many of them go well before.
        bad: so many fail then; ``None``: all.
        lanes: the chips that fail, bit 0 for the low one.
        silent: whether no error bit tells it.
        spoils: whether a program that fails clears the word at which it ends.
        times: all operations there last so many times as long as they typically do.
    """

    offset: int
    length: int
    erase: bool
    good: int = 0
    bad: int | None = None
    lanes: int = 3
    silent: bool = False
    spoils: bool = False
    times: int = 1
