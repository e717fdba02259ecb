"""A book of partial states (``c/book.c``): what some units of a flash must hold, and where it does.

A unit is 4 bytes. Sets of units are integers: bit n stands for unit n.
"""

from __future__ import annotations

import ctypes as c
from functools import cache
from itertools import compress
from operator import is_not
from typing import TYPE_CHECKING, Any

from unbrick.flash.cells import Cells
from unbrick.library import Signatures, load_library

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp

UNIT = 4
"""Bytes."""

_PAGE = 64  # units
NONE = 0xFFFF_FFFF
"""The number of no entry."""

WEAK, LAST = 1, 2
"""Marks of an entry for a behaviour: a weak cell has a say; what follows it is not searched."""


class GraphEdge(c.Structure):
    """See ``c/graph.h``."""

    _fields_ = (
        ("user", c.c_uint32),
        ("node", c.c_uint32),
        ("first", c.c_uint32),
        ("count", c.c_uint32),
        ("ops", c.c_void_p),
    )


def count_set_bytes(geometry: FlashGeometry) -> int:
    """How long a set of all units is, as the library sees it: whole pages."""
    return -(-geometry.size // (UNIT * _PAGE)) * _PAGE // 8


@cache
def load_book() -> Any:
    """The library of the campaign."""
    book, u32 = c.c_void_p, c.c_uint32
    graph, edge = c.c_void_p, c.POINTER(GraphEdge)
    signatures: Signatures = {
        "book_new": (book, [u32]),
        "book_free": (None, [book]),
        "book_write": (None, [book, u32, u32, c.c_char_p, c.c_char_p]),
        "book_has_say": (c.c_bool, [book, u32, u32]),
        "book_change": (None, [book, u32, u32, c.c_char_p]),
        "book_add": (u32, [book, u32, c.c_void_p]),
        "book_find": (u32, [book, u32, u32]),
        "book_drop": (None, [book, u32]),
        "book_mark": (None, [book, u32, u32]),
        "walk_new": (c.c_void_p, [book, u32, c.c_void_p]),
        "walk_free": (None, [c.c_void_p]),
        "walk_add_shapes": (None, [c.c_void_p, c.c_bool, u32, u32, u32, c.c_char_p]),
        "walk_add_form": (None, [c.c_void_p, c.c_char_p, c.c_char_p]),
        "walk_asked": (c.c_void_p, [c.c_void_p]),
        "walk_on": (c.c_int, [c.c_void_p, c.c_void_p, c.c_void_p]),
        "walk_unknown_count": (u32, [c.c_void_p]),
        "walk_unknown": (c.c_void_p, [c.c_void_p]),
        "graph_new": (graph, [u32, c.c_char_p]),
        "graph_free": (None, [graph]),
        "graph_add": (u32, [graph, u32, u32, c.c_char_p, u32, c.c_void_p]),
        "graph_needs": (c.c_void_p, [graph, u32]),
        "graph_version": (u32, [graph, u32]),
        "graph_note": (None, [graph, u32, u32, u32, c.c_char_p]),
        "graph_settle": (None, [graph]),
        "graph_leads_at": (c.c_bool, [graph, u32, u32, u32]),
        "graph_take": (c.c_uint64, [graph, u32, c.c_void_p, c.c_bool]),
        "graph_take_count": (c.c_uint64, [graph, u32]),
        "graph_lean": (None, [graph, u32, u32, u32, u32]),
        "graph_live": (None, [graph, u32, u32, c.c_void_p]),
        "graph_find_erasing": (u32, [graph, u32, c.c_char_p, u32]),
        "graph_first": (u32, [graph, u32, u32]),
        "graph_user_count": (u32, [graph, u32]),
        "graph_user": (edge, [graph, u32, u32]),
        "graph_led_count": (u32, [graph, u32]),
        "graph_led": (edge, [graph, u32, u32]),
        "graph_list_grown": (u32, [graph, c.c_void_p]),
        "graph_list_leaners": (u32, [graph, c.c_void_p]),
    }
    return load_library("campaign", signatures)


class Book:
    """Entries, and one flash that they are held against.

    Args:
        geometry: of the flash; it is blank at first.

    Attributes:
        version: another one whenever entries have come or gone.

    Raises:
        MemoryError: there is no room for it.
        SetupError: the library is missing.
    """

    def __init__(self, geometry: FlashGeometry) -> None:
        self._library, size = load_book(), geometry.size
        self._set_size = count_set_bytes(geometry)
        self._book = self._library.book_new(-(-size // UNIT))
        if not self._book:
            raise MemoryError
        self._cells = Cells.of(b"", geometry)
        self._find_cells: Callable[[], Cells] | None = None
        self._changed: frozenset[int] | None = None  # blocks since _cells; None: not known
        self.version = 0

    def __del__(self) -> None:
        if getattr(self, "_book", None):
            self._library.book_free(self._book)

    @property
    def cells(self) -> Cells:
        """What the flash holds now."""
        if self._find_cells is not None:
            self._cells, self._find_cells = self._find_cells(), None
        return self._cells

    def change(self, op: FlashOp, find_cells: Callable[[], Cells]) -> None:
        """The flash takes an operation that does not fail, and has no check cells.

        Args:
            op: the operation.
            find_cells: what the flash then holds, if somebody asks for it.
        """
        data = None if op.kind == "erase" else op.data
        self._library.book_change(self._book, op.offset, op.length, data)
        self._find_cells, self._changed = find_cells, None

    def has_passed(self, find_cells: Callable[[], Cells], blocks: frozenset[int]) -> None:
        """The library itself has changed the flash (:mod:`unbrick.campaign.walk`).

        Args:
            find_cells: what the flash now holds, if somebody asks for it.
            blocks: the numbers of those that it may have changed.
        """
        known = self._changed if self._find_cells else frozenset[int]()
        self._find_cells = find_cells
        self._changed = None if known is None else known | blocks

    @property
    def handle(self) -> Any:
        """Of the library."""
        return self._book

    def has_say(self, offset: int, length: int) -> bool:
        """Whether the flash could agree with other entries by what a range holds, in bytes."""
        return bool(self._library.book_has_say(self._book, offset, length))

    def show(self, cells: Cells) -> None:
        """The flash now holds these cells."""
        changed = self._changed if self._find_cells else frozenset[int]()
        before = self.cells if changed is None else self._cells
        self._cells, self._find_cells = cells, None
        starts, sizes = cells.geometry.starts, cells.geometry.block_sizes
        for number in changed or ():
            self._write(cells, starts[number], sizes[number])
        others = map(is_not, cells.blocks, before.blocks)
        for number in compress(range(len(cells.blocks)), others):
            block, old = cells.blocks[number], before.blocks[number]
            if block != old:
                self._write(cells, starts[number], max(len(block), len(old)))
        for offset, mask in {*before.weak} ^ {*cells.weak}:
            self._write(cells, offset, len(mask))

    def show_range(self, cells: Cells, offset: int, length: int) -> None:
        """The flash now holds these cells, which differ from the last ones in a range at most."""
        self._cells, self._find_cells = cells, None
        for number, start, size in cells.geometry.split(offset, length):
            self._write(cells, cells.geometry.starts[number] + start, size)

    def _write(self, cells: Cells, offset: int, length: int) -> None:
        first, end = offset // UNIT * UNIT, -(-(offset + length) // UNIT) * UNIT
        weak = cells.read_weak(first, end - first) if cells.weak else None
        values = cells.read(first, end - first)
        self._library.book_write(self._book, first // UNIT, (end - first) // UNIT, values, weak)

    def add(self, group: int, units: int) -> int:
        """A new entry: the flash must hold in ``units`` what it holds now. Returns its number."""
        return self._add(group, units.to_bytes(self._set_size, "little"))

    def add_from(self, group: int, address: int) -> int:
        """The same, of units that lie in memory (:meth:`unbrick.campaign.graph.Graph.find_needs`).

        The library reads them there before this returns.
        """
        return self._add(group, address)

    def _add(self, group: int, units: bytes | int) -> int:
        self.version += 1
        return int(self._library.book_add(self._book, group, units))

    def mark(self, entry: int, marks: int) -> None:
        """Mark an entry with :data:`WEAK` and :data:`LAST`, or none of them."""
        self._library.book_mark(self._book, entry, marks)

    def find(self, group: int) -> int | None:
        """The first entry of a group that the flash agrees with."""
        found = self._library.book_find(self._book, group, 0)
        return None if found == NONE else int(found)

    def drop(self, entry: int) -> None:
        """The entry agrees with nothing any more."""
        self.version += 1
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


def _list_words(block: bytes) -> memoryview:
    return memoryview(block).cast("I")


def find_difference(one: Cells, other: Cells) -> int:
    """The units in which two flashes of one kind may differ, as a set."""
    units = 0
    for number, (here, there) in enumerate(zip(one.blocks, other.blocks, strict=True)):
        if here != there:
            size = one.geometry.block_sizes[number]
            words = zip(
                *(_list_words(block.ljust(size, b"\xff")) for block in (here, there)), strict=True
            )
            flags = "".join("1" if old != new else "0" for old, new in words)
            units |= int(flags[::-1], 2) << one.geometry.starts[number] // UNIT
    for offset, mask in set(one.weak) ^ set(other.weak):
        units |= find_units(offset, len(mask))
    return units
