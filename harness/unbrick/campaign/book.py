"""A book of partial states (``c/book.c``): what some units of a flash must hold, and where it does.

A unit is 4 bytes. Sets of units are integers: bit n stands for unit n.
"""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.errors import SetupError
from unbrick.flash.cells import Cells

if TYPE_CHECKING:
    from unbrick.flash.geometry import FlashGeometry

UNIT = 4
"""Bytes."""

_PAGE = 64  # units
_NONE = 0xFFFF_FFFF


def _load() -> c.CDLL:
    # Here, so that `python -m unbrick.compile` finds itself not imported yet.
    from unbrick.compile import LIBRARIES  # noqa: PLC0415

    path = Path(__file__).with_name(LIBRARIES["campaign"])
    if not path.exists():
        raise SetupError(
            "the book of partial states is not compiled",
            hint="run: python -m unbrick.compile (or install the package again)",
        )
    library = c.CDLL(str(path))
    book, u32 = c.c_void_p, c.c_uint32
    library.book_new.restype, library.book_new.argtypes = book, (u32,)
    library.book_free.restype, library.book_free.argtypes = None, (book,)
    library.book_write.restype = None
    library.book_write.argtypes = (book, u32, u32, c.c_char_p, c.c_char_p)
    library.book_add.restype, library.book_add.argtypes = u32, (book, u32, c.c_char_p)
    library.book_find.restype, library.book_find.argtypes = u32, (book, u32, u32)
    library.book_drop.restype, library.book_drop.argtypes = None, (book, u32)
    return library


class Book:
    """Entries, and one flash that they are held against.

    Args:
        geometry: of the flash; it is blank at first.

    Attributes:
        cells: what it holds now.

    Raises:
        MemoryError: there is no room for it.
        SetupError: the library is missing.
    """

    def __init__(self, geometry: FlashGeometry) -> None:
        self._library, size = _load(), geometry.size
        self._pages = -(-size // (UNIT * _PAGE))
        self._book = self._library.book_new(-(-size // UNIT))
        if not self._book:
            raise MemoryError
        self.cells = Cells.of(b"", geometry)

    def __del__(self) -> None:
        if getattr(self, "_book", None):
            self._library.book_free(self._book)

    def show(self, cells: Cells) -> None:
        """The flash now holds these cells."""
        before, self.cells = self.cells, cells
        for number, block in enumerate(cells.blocks):
            old = before.blocks[number]
            if block is not old:
                self._write(cells, cells.geometry.starts[number], max(len(block), len(old)))
        for weak in (before.weak, cells.weak):
            for offset, mask in weak:
                self._write(cells, offset, len(mask))

    def show_range(self, cells: Cells, offset: int, length: int) -> None:
        """The flash now holds these cells, which differ from the last ones in a range at most."""
        self.cells = cells
        for number, start, size in cells.geometry.split(offset, length):
            self._write(cells, cells.geometry.starts[number] + start, size)

    def _write(self, cells: Cells, offset: int, length: int) -> None:
        first, end = offset // UNIT * UNIT, -(-(offset + length) // UNIT) * UNIT
        weak = None
        if any(start < end and start + len(mask) > first for start, mask in cells.weak):
            marks = bytearray(end - first)
            for start, mask in cells.weak:
                for at in range(max(start, first), min(start + len(mask), end)):
                    marks[at - first] = mask[at - start]
            weak = bytes(marks)
        values = cells.read(first, end - first)
        self._library.book_write(self._book, first // UNIT, (end - first) // UNIT, values, weak)

    def add(self, group: int, units: int) -> int:
        """A new entry: the flash must hold in ``units`` what it holds now. Returns its number."""
        return int(
            self._library.book_add(self._book, group, units.to_bytes(8 * self._pages, "little"))
        )

    def find(self, group: int) -> int | None:
        """The first entry of a group that the flash agrees with."""
        found = self._library.book_find(self._book, group, 0)
        return None if found == _NONE else int(found)

    def drop(self, entry: int) -> None:
        """The entry agrees with nothing any more."""
        self._library.book_drop(self._book, entry)


def find_units(offset: int, length: int) -> int:
    """The units of a range, as a set; ``offset`` and ``length`` in bytes."""
    first, end = offset // UNIT, -(-(offset + length) // UNIT)
    return ((1 << (end - first)) - 1) << first


def find_weak_units(cells: Cells) -> int:
    """The units with a weak bit, as a set."""
    units = 0
    for offset, mask in cells.weak:
        for at, bits in enumerate(mask, offset):
            if bits:
                units |= 1 << at // UNIT
    return units
