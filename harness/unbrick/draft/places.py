"""Where in the flash a file may lie: by its vectors, and by what was read of the flash.

A chip may have its main flash at two addresses. `base` is the one at which the files have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.board.mcu import McuChip
    from unbrick.draft.inputs import Input

VECTORS_SIZE = 64
"""Bytes of the vectors that every core has; code lies behind them."""


def find_base(chip: McuChip, files: Sequence[Input]) -> int:
    """Where the files have the main flash: at its base, or only at its second address.

    What counts is where they lie, and where their vectors lead.
    """
    main = chip.main
    seen = {piece.address for one in files if one.placed for piece in one.pieces}
    seen |= {one.vectors.handlers[0] for one in files if one.vectors}
    if main.alias is None or any(main.base <= at < main.base + main.size for at in seen):
        return main.base
    second = any(main.alias <= at < main.alias + main.size for at in seen)
    return main.alias if second else main.base


def has_start(chip: McuChip, files: Sequence[Input]) -> bool:
    """Whether something lies where the chip starts, at whichever address."""
    starts = [at for at in (chip.main.base, chip.main.alias) if at is not None]
    return any(
        piece.address <= start < piece.end
        for one in files
        for piece in one.pieces
        for start in starts
    )


def list_places(chip: McuChip, base: int, one: Input) -> list[int]:
    """Starts of erase blocks where a binary file could lie by its vectors, the highest first."""
    vectors = one.vectors
    if vectors is None:
        return []
    first, last = min(vectors.handlers), max(vectors.handlers)
    starts = [base + start for start in _list_starts(chip)]
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
    chip: McuChip, base: int, files: Sequence[Input], reads: Sequence[tuple[int, int]]
) -> list[int]:
    """Where blocks of the main flash begin that were read, and in which no file lies."""
    found: dict[int, None] = {}
    for first, end in reads:
        start = first
        while start < end and base <= start < base + chip.main.size:
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


def list_ends(chip: McuChip, base: int, first: int, last: int) -> list[int]:
    """Ends of erase blocks of the main flash that a read went up to."""
    ends = (base + start for start in [*_list_starts(chip)[1:], chip.main.size])
    return [end for end in ends if first < end <= last]
