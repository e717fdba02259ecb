"""Where in the flash a file may lie: by its vectors, and by what was read of the flash."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.board.mcu import McuChip
    from unbrick.draft.inputs import Input

VECTORS_SIZE = 64
"""Bytes of the vectors that every core has; code lies behind them."""


def list_places(chip: McuChip, one: Input) -> list[int]:
    """Starts of erase blocks where a binary file could lie by its vectors, the highest first."""
    vectors = one.vectors
    if vectors is None:
        return []
    first, last = min(vectors.handlers), max(vectors.handlers)
    starts = [chip.main.base + start for start in _list_starts(chip)]
    return [
        at
        for at in reversed(starts)
        if at + vectors.offset + VECTORS_SIZE <= first and last < at + len(one.data)
    ]


def _list_starts(chip: McuChip) -> list[int]:
    starts, at = [], 0
    for size in chip.main.block_sizes:
        starts.append(at)
        at += size
    return starts


def list_blank_reads(
    chip: McuChip, files: Sequence[Input], reads: Sequence[tuple[int, int]]
) -> list[int]:
    """Where blocks of the main flash begin that were read, and in which no file lies."""
    found: dict[int, None] = {}
    for first, end in reads:
        start = first
        while start < end and chip.main.base <= start < chip.main.base + chip.main.size:
            at = _find_block(chip, start)
            if not any(piece.address <= start < piece.end for one in files for piece in one.pieces):
                found[at] = None
            start = _find_end(chip, at)
    return list(found)


def _find_end(chip: McuChip, block: int) -> int:
    """The first address after an erase block of the main flash."""
    number, _ = chip.geometry.find_block(chip.image_offset(block))
    return block + chip.geometry.block_sizes[number]


def _find_block(chip: McuChip, address: int) -> int:
    """The address where the erase block of an address begins."""
    offset = chip.image_offset(address)
    number, _ = chip.geometry.find_block(offset)
    return address - offset + chip.geometry.starts[number]


def list_ends(chip: McuChip, first: int, last: int) -> list[int]:
    """Ends of erase blocks of the main flash that a read went up to."""
    ends = (chip.main.base + start for start in [*_list_starts(chip)[1:], chip.main.size])
    return [end for end in ends if first < end <= last]
