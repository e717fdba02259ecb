"""What lies in each erase block of a target's flash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbrick.flash.partition import name_partition

if TYPE_CHECKING:
    from unbrick.target.description import Description

BLANK = 0xFF


@dataclass(frozen=True)
class FlashBlock:
    """One erase block of a chip.

    Attributes:
        address: where it begins.
        size: bytes.
        partition: its name: of the target file, or of the chip's region.
        used: bytes up to the last one that is not blank; 0 when the block is blank.
        digest: SHA-256 of the block, hexadecimal; empty when it is blank.
        files: what the target file puts there, by name.
    """

    address: int
    size: int
    partition: str
    used: int
    digest: str
    files: tuple[str, ...]


def list_flash_map(found: Description, image: bytes) -> list[FlashBlock]:
    """The blocks of all regions of a target's flash, in order.

    Args:
        found: the target.
        image: its flash image.
    """
    chip, blocks = found.chip, []
    for part, first in chip.placed_flash:
        offset = first
        for size in part.block_sizes:
            data = image[offset : offset + size]
            used = len(data.rstrip(bytes([BLANK])))
            address = part.base + offset - first
            blocks.append(
                FlashBlock(
                    address,
                    size,
                    name_partition(found.partitions, offset),
                    used,
                    hashlib.sha256(data).hexdigest() if used else "",
                    _list_files(found, offset, size),
                )
            )
            offset += size
    return blocks


def _list_files(found: Description, offset: int, size: int) -> tuple[str, ...]:
    names = [
        program.name
        for program in found.programs
        for piece in program.pieces
        for start in (found.chip.image_offset(piece.address),)
        if start < offset + size and offset < start + len(piece.data)
    ]
    return tuple(dict.fromkeys(names))
