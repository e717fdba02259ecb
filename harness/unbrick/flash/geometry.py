"""How a flash is divided: into erase blocks, and into what it programs at once."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class FlashGeometry:
    """The erase blocks of a flash, one after the other.

    Attributes:
        block_sizes: bytes of each block, from offset 0 on.
        unit: bytes that one chip programs at once; a longer program goes unit by unit.
        chips: how many are side by side, and program their units at the same time.
    """

    block_sizes: tuple[int, ...]
    unit: int
    chips: int = 1

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
