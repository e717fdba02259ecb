"""How a flash is divided: into erase blocks, and into what it programs at once."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from unbrick.flash.check import find_check_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unbrick.flash.ops import FlashOp


@dataclass(frozen=True)
class CheckCells:
    """Cells of ECC: a byte for each unit of a range; see :mod:`unbrick.flash.check`.

    Attributes:
        start, size: the range that they are for, in bytes.
        first: offset of the first of them.
        unit: bytes that one of them is for; what is programmed is whole units.
    """

    start: int
    size: int
    first: int
    unit: int

    def find(self, offset: int) -> int:
        """The offset of the check cells of the unit at an offset."""
        return self.first + (offset - self.start) // self.unit


@dataclass(frozen=True)
class WordPart:
    """A part of a flash that programs other words than the rest: a chip of its own, or several.

    Attributes:
        start, size: bytes.
        unit: bytes that one chip of it programs at once.
        chips: how many are side by side.
    """

    start: int
    size: int
    unit: int
    chips: int = 1


@dataclass(frozen=True)
class FlashGeometry:
    """The erase blocks of a flash, one after the other.

    Attributes:
        block_sizes: bytes of each block, from offset 0 on.
        unit: bytes that one chip programs at once; a longer program goes unit by unit.
        chips: how many are side by side, and program their units at the same time.
        checks: the blocks, or parts of them, that are check cells of others. Operations name the
            others alone, and change both.
        parts: those that have a unit and chips side by side of their own.
    """

    block_sizes: tuple[int, ...]
    unit: int
    chips: int = 1
    checks: tuple[CheckCells, ...] = ()
    parts: tuple[WordPart, ...] = ()

    def find_word(self, offset: int) -> tuple[int, int]:
        """Bytes that a chip programs at once at an offset, and how many are side by side there."""
        for part in self.parts:
            if part.start <= offset < part.start + part.size:
                return part.unit, part.chips
        return self.unit, self.chips

    @cached_property
    def size(self) -> int:
        """Bytes of the flash."""
        return sum(self.block_sizes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The offset of each block."""
        return (0, *accumulate(self.block_sizes))[:-1]

    def find_block(self, offset: int) -> tuple[int, int]:
        """Number of the block at an offset, and how far into it that is."""
        number = bisect_right(self.starts, offset) - 1
        return number, offset - self.starts[number]

    def split(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The part of a range in each block: number of the block, how far into it, and bytes."""
        while length > 0:
            number, start = self.find_block(offset)
            size = min(length, self.block_sizes[number] - start)
            yield number, start, size
            offset += size
            length -= size

    def list_parts(self, op: FlashOp) -> tuple[FlashOp, ...]:
        """An operation, and what it does to the check cells, as one of its own."""
        for check in self.checks:
            if check.start <= op.offset < check.start + check.size:
                cells = find_check_cells(op.data, check.unit)
                place = check.find(op.offset)
                length = op.length // check.unit
                return op, op._replace(offset=place, length=length, data=cells)
        return (op,)

    def list_all_parts(self, ops: Iterable[FlashOp]) -> Iterable[FlashOp]:
        """Operations in order, each with what it does to check cells."""
        if not self.checks:
            return ops
        return (part for op in ops for part in self.list_parts(op))

    def set_checks(self, image: bytearray, offset: int, length: int) -> None:
        """Make the check cells right that belong to a range of an image."""
        for check in self.checks:
            start, end = max(offset, check.start), min(offset + length, check.start + check.size)
            if start < end:
                start -= (start - check.start) % check.unit
                end += (check.start - end) % check.unit
                cells = find_check_cells(bytes(image[start:end]), check.unit)
                place = check.find(start)
                image[place : place + len(cells)] = cells
