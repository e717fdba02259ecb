"""What the cells of a flash hold while nobody looks: values, and cells that are weak.

A weak cell is one that power was lost on: it may read as 0 or as 1, and differently after the next
power-on. A program that clears it or an erase makes it sure again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from unbrick.flash.bits import intersect, invert, strip_ones, unite
from unbrick.flash.ops import SPOILT
from unbrick.flash.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp

FEW_OPS = 64
"""Operations up to which it is faster to change block by block."""

RESOLUTIONS = 3
"""How weak cells may read at a power-on: all as 1, all as 0, or each as a hash of its address."""


@dataclass(frozen=True)
class Cells:
    """A flash, block by block.

    Attributes:
        geometry: its erase blocks.
        blocks: each block without the 0xFF at its end; a weak cell is a 1 here.
        weak: (offset, mask) of weak cells, sorted by offset and not overlapping; mask bit 1: weak.
    """

    geometry: FlashGeometry = field(repr=False, compare=False)
    blocks: tuple[bytes, ...]
    weak: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def of(cls, image: bytes, geometry: FlashGeometry) -> Cells:
        """The cells of a flash image; what is missing at the end is blank."""
        spans = zip(geometry.starts, geometry.block_sizes, strict=True)
        pieces = (image[start : start + size] for start, size in spans)
        return cls(geometry, tuple(map(strip_ones, pieces)))

    def image(self, resolution: int = 0) -> bytes:
        """What reads as the flash after a power-on, with weak cells read as ``resolution`` says."""
        blocks = zip(self.readable(resolution).blocks, self.geometry.block_sizes, strict=True)
        return b"".join(block.ljust(size, b"\xff") for block, size in blocks)

    def reads_as(self, nor: bytes) -> bool:
        """Whether these cells, none of them weak, are what was read: ``image() == nor``, faster."""
        geometry = self.geometry
        return len(nor) == geometry.size and all(
            _holds(nor, start, size, block)
            for start, size, block in zip(
                geometry.starts, geometry.block_sizes, self.blocks, strict=True
            )
        )

    def readable(self, resolution: int) -> Cells:
        """These cells as they read after a power-on: none of them weak."""
        if not self.weak:
            return self
        cells = Cells(self.geometry, self.blocks)
        for offset, mask in self.weak if resolution else ():
            zeros = _reading_zero(offset, len(mask), resolution)
            old = cells.read(offset, len(mask))
            cells = cells.with_range(offset, intersect(old, invert(intersect(mask, zeros))))
        return cells

    def readings(self) -> Iterator[Cells]:
        """These cells in every way in which weak ones may read."""
        for resolution in range(RESOLUTIONS if self.weak else 1):
            yield self.readable(resolution)

    def read(self, offset: int, length: int) -> bytes:
        """Cells as values, weak ones as 1."""
        number, start = self.geometry.find_block(offset)
        if start + length <= self.geometry.block_sizes[number]:
            return _part(self.blocks[number], start, length)
        parts = self.geometry.split(offset, length)
        return b"".join(_part(self.blocks[number], start, size) for number, start, size in parts)

    def read_weak(self, offset: int, length: int) -> bytes:
        """Which cells of a range are weak, as a mask."""
        if not self.weak:
            return bytes(length)
        found = bytearray(length)
        for start, mask in self.weak:
            first, end = max(start, offset), min(start + len(mask), offset + length)
            if first < end:
                found[first - offset : end - offset] = mask[first - start : end - start]
        return bytes(found)

    def after(self, ops: Iterable[FlashOp]) -> Cells:
        """The cells after whole operations. A cell stays weak until it is erased or cleared."""
        if isinstance(ops, Trace) and len(ops) > FEW_OPS and self._can_apply(ops):
            return self._after_trace(ops)
        blocks, weak = list(self.blocks), self.weak
        programmed: dict[int, bytearray] = {}  # blocks that one operation after the other changes
        for op in self.geometry.list_all_parts(ops):
            if op.failed:
                _close(blocks, programmed)
                left = _after_failed(Cells(self.geometry, tuple(blocks), weak), op)
                blocks, weak = list(left.blocks), left.weak
            elif op.kind == "erase":
                for number, start, size in self.geometry.split(op.offset, op.length):
                    block = programmed.pop(number, blocks[number])
                    whole = size == self.geometry.block_sizes[number]
                    blocks[number] = b"" if whole else _replaced(block, start, _blank(size))
                weak = drop_range(weak, op.offset, op.length) if weak else weak
            else:
                number, start = self.geometry.find_block(op.offset)
                if number not in programmed:
                    programmed[number] = bytearray(blocks[number])
                _clear(programmed[number], start, op.data)
                weak = drop_cleared(weak, op.offset, op.data) if weak else weak
        _close(blocks, programmed)
        return Cells(self.geometry, tuple(blocks), weak)

    def _can_apply(self, trace: Trace) -> bool:
        return not self.geometry.checks and trace.is_plain

    def _after_trace(self, trace: Trace) -> Cells:
        """The cells after operations none of which failed: as :meth:`after`, faster.

        There must be no check cells: a trace does not name them.
        """
        geometry, weak, blocks = self.geometry, self.weak, list(self.blocks)
        touched = trace.find_blocks(geometry)
        image = bytearray(geometry.size)  # the other blocks are never looked at
        for number in touched:
            start, size = geometry.starts[number], geometry.block_sizes[number]
            image[start : start + size] = blocks[number].ljust(size, b"\xff")
        trace.apply(image)
        for number in touched:
            start, size = geometry.starts[number], geometry.block_sizes[number]
            if not _holds(image, start, size, blocks[number]):
                blocks[number] = strip_ones(image[start : start + size])
        spans = {at for start, mask in weak for at in trace.find_touching(start, len(mask))}
        for number in sorted(spans):
            op = trace[number]
            if not weak:
                break
            if op.kind == "erase":
                weak = drop_range(weak, op.offset, op.length)
            else:
                weak = drop_cleared(weak, op.offset, op.data)
        return Cells(geometry, tuple(blocks), weak)

    def with_range(self, offset: int, values: bytes, mask: bytes = b"") -> Cells:
        """These cells with ``values`` at ``offset``, the cells of ``mask`` weak."""
        values = unite(values, mask) if mask else values
        blocks, done = list(self.blocks), 0
        for number, start, size in self.geometry.split(offset, len(values)):
            blocks[number] = _replaced(blocks[number], start, values[done : done + size])
            done += size
        weak = drop_range(self.weak, offset, len(values))
        if mask.strip(b"\0"):
            first = len(mask) - len(mask.lstrip(b"\0"))
            weak = tuple(sorted((*weak, (offset + first, mask.strip(b"\0")))))
        return Cells(self.geometry, tuple(blocks), weak)


def _after_failed(cells: Cells, op: FlashOp) -> Cells:
    """The cells after an operation, in one block, that ends with an error."""
    old, left_out = cells.read(op.offset, op.length), _left_out(op, cells.geometry)
    if op.kind == "erase":
        new, kept = unite(old, invert(left_out)), left_out
    else:
        kept = intersect(unite(op.data, left_out), invert(_spoilt(op, cells.geometry)))
        new = intersect(old, kept)
    number, start = cells.geometry.find_block(op.offset)
    blocks = list(cells.blocks)
    blocks[number] = _replaced(blocks[number], start, new)
    return Cells(cells.geometry, tuple(blocks), drop_cleared(cells.weak, op.offset, kept))


def _left_out(op: FlashOp, geometry: FlashGeometry) -> bytes:
    """The cells that an operation does not change because it fails, as a mask."""
    word = _word_of_lanes(op.failed, geometry)
    words = op.length // len(word)
    return bytes(words // 2 * len(word)) + word * (words - words // 2)


def _spoilt(op: FlashOp, geometry: FlashGeometry) -> bytes:
    """The cells that a failing operation clears though they were not meant, as a mask."""
    word = _word_of_lanes(op.failed >> SPOILT, geometry)
    return (bytes(op.length // len(word) // 2 * len(word)) + word).ljust(op.length, b"\0")


def _word_of_lanes(lanes: int, geometry: FlashGeometry) -> bytes:
    """A word of all chips side by side, as a mask of those among ``lanes``."""
    chips = range(geometry.chips)
    return b"".join((b"\xff" if lanes & 1 << chip else b"\0") * geometry.unit for chip in chips)


@lru_cache(maxsize=16)
def _blank(size: int) -> bytes:
    """Blank cells."""
    return b"\xff" * size


def _holds(image: bytes | bytearray, start: int, size: int, block: bytes) -> bool:
    """Whether a block of an image is one whose 0xFF at the end are left out."""
    return image.startswith(block, start) and image.startswith(
        _blank(size - len(block)), start + len(block)
    )


def _part(block: bytes, start: int, length: int) -> bytes:
    """Cells of a block whose 0xFF at the end are left out."""
    return block[start : start + length].ljust(length, b"\xff")


def _replaced(block: bytes | bytearray, start: int, values: bytes) -> bytes:
    """Such a block with some cells replaced."""
    view = memoryview(block)
    blank = _blank(max(0, start - len(block)))
    return strip_ones(b"".join((view[:start], blank, values, view[start + len(values) :])))


def _clear(block: bytearray, start: int, data: bytes) -> None:
    """Program cells of such a block."""
    end = start + len(data)
    if end > len(block):
        block += _blank(end - len(block))
    block[start:end] = intersect(bytes(block[start:end]), data)


def _close(blocks: list[bytes], programmed: dict[int, bytearray]) -> None:
    """Put back the blocks that were taken out to be programmed."""
    for number, block in programmed.items():
        blocks[number] = strip_ones(block)
    programmed.clear()


_PATTERN = hashlib.shake_128(b"weak cells").digest(4093)


def _reading_zero(offset: int, length: int, resolution: int) -> bytes:
    """Which cells read as 0 if they are weak, as a mask."""
    if resolution == 1:
        return b"\xff" * length
    start = offset % len(_PATTERN)
    return (_PATTERN * (2 + length // len(_PATTERN)))[start : start + length]


def drop_range(
    weak: tuple[tuple[int, bytes], ...], offset: int, length: int
) -> tuple[tuple[int, bytes], ...]:
    """Weak cells without those in a range."""
    kept = []
    for start, mask in weak:
        end = start + len(mask)
        if end <= offset or start >= offset + length:
            kept.append((start, mask))
            continue
        before = mask[: max(0, offset - start)]
        after = mask[max(0, offset + length - start) :]
        kept += [(at, part) for at, part in ((start, before), (end - len(after), after)) if part]
    return tuple(kept)


def drop_cleared(
    weak: tuple[tuple[int, bytes], ...], offset: int, data: bytes
) -> tuple[tuple[int, bytes], ...]:
    """Weak cells without those that programming ``data`` at ``offset`` clears."""
    kept = []
    for start, mask in weak:
        left, low, high = mask, max(start, offset), min(start + len(mask), offset + len(data))
        if low < high:
            cleared = intersect(
                mask[low - start : high - start], data[low - offset : high - offset]
            )
            left = mask[: low - start] + cleared + mask[high - start :]
        if left.strip(b"\0"):
            kept.append((start, left))
    return tuple(kept)
