"""How a flash is divided into erase blocks."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True)
class FlashGeometry:
    """The erase blocks of a flash, one after the other.

    Attributes:
        block_sizes: bytes of each block, from offset 0 on.
    """

    block_sizes: tuple[int, ...]

    @classmethod
    def of_blocks(cls, size: int, block_size: int) -> FlashGeometry:
        """Blocks that are all of one size; ``size`` is in bytes, of them all."""
        return cls((block_size,) * (size // block_size))

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
