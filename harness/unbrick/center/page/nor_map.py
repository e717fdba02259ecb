"""The NOR of a terminal as a map of its blocks, as far as the server knows it.

During a staged update the server knows which blocks differ, and when the terminal began to rewrite
them, but not how far it is. Of a commanded update it knows each erase and each write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from unbrick.layout import reference_layout

KIB = 1024


class BlockMark(Enum):
    """What happens to a block."""

    DUE = "to be rewritten"
    REWRITING = "being rewritten"
    ERASING = "being erased"
    ERASED = "erased"
    WRITING = "being written"
    DONE = "rewritten"
    FAILED = "failed"

    @property
    def name_of_style(self) -> str:
        """Its class in the style sheet."""
        return self.name.lower()


@dataclass(frozen=True)
class Block:
    """A block of the NOR.

    Attributes:
        offset: of its first byte in the NOR.
        size: bytes.
        partition: the name of the partition that it belongs to, or ``spare``.
        filled: per cent that the installed software takes, as far as known.
        mark: what happens to it.
        written: per cent of what is to be written into it that is there.
    """

    offset: int
    size: int
    partition: str
    filled: int
    mark: BlockMark | None
    written: int = 0

    @property
    def bar(self) -> int:
        """Per cent that are drawn: what is written while it is, else what is used."""
        return self.written if self.mark is BlockMark.WRITING else self.filled

    @property
    def words(self) -> str:
        """All of it in words."""
        parts = [f"{self.partition}, {self.offset // KIB} KiB"]
        if self.partition == "application":
            parts.append(f"{self.filled} % used")
        if self.mark:
            parts.append(self.mark.value)
        if self.mark is BlockMark.WRITING:
            parts.append(f"{self.written} %")
        return ", ".join(parts)


def find_blocks(offset: int, length: int) -> range:
    """The numbers of the blocks that a range of the NOR touches."""
    size = reference_layout().board.nor.block_size
    return range(offset // size, -(-(offset + length) // size)) if length > 0 else range(0)


def draw_nor_map(used: int, marks: Mapping[int, tuple[BlockMark, int]]) -> list[Block]:
    """Every block that the engines keep.

    Args:
        used: bytes of the installed software, from the start of the application's partition.
        marks: what happens, by number of the block, and how much is written in per cent.
    """
    layout = reference_layout()
    size, application = layout.board.nor.block_size, layout.partition("application")
    blocks = []
    for number in range(layout.board.nor.modelled // size):
        offset = number * size
        part = next((p.name for p in layout.partitions if p.offset <= offset < p.end), "spare")
        inside = min(max(application.offset + used - offset, 0), size)
        filled = -(-100 * inside // size) if part == application.name else 0
        blocks.append(Block(offset, size, part, filled, *marks.get(number, (None, 0))))
    return blocks
