"""Keywords: what is in the NOR, and harm that is done to it."""

from __future__ import annotations

from robot.api import logger

from unbrick.errors import ExpectError, NotKnownHereError
from unbrick.flash.partition import Partition
from unbrick.layout import reference_layout
from unbrick.robot.base import Keywords, expect, keyword
from unbrick.robot.picture import draw_nor_picture, name_block


def _partition(name: str) -> Partition:
    return reference_layout().partition(name)


STARTS = "starts"
"""The partition that counts the starts."""


def _list_blocks(part: Partition) -> range:
    return range(part.offset // _block_size(), part.end // _block_size())


def _block_size() -> int:
    return reference_layout().board.nor.block_size


class NorKeywords(Keywords):
    """The NOR's cells. Engines that cannot show them skip the test."""

    @keyword
    def get_nor(self) -> bytes:
        """The contents of the NOR, to be compared with later."""
        return self._terminal.engine.read_nor()

    @keyword
    def nor_should_equal(self, expected: bytes, partition: str | None = None) -> None:
        """The NOR, or one partition of it, holds what it held at a `Get Nor` before.

        The whole NOR is all of it but the partition `starts`, which every start changes. When it
        does not hold that, a picture of what differs is in the log.
        """
        nor = self._terminal.engine.read_nor()
        part = _partition(partition) if partition else Partition("NOR", 0, len(nor))
        passed_over = () if partition else _list_blocks(_partition(STARTS))
        differ = [
            n
            for n in _list_blocks(part)
            if n not in passed_over and _block(nor, n) != _block(expected, n)
        ]
        if differ:
            logger.write(draw_nor_picture(nor, expected), html=True)
            names = ", ".join(f"{name_block(n)} at {_first(nor, expected, n):#x}" for n in differ)
            raise ExpectError(f"the NOR is not as it was: {names}")

    @keyword
    def nor_should_hold_image(self, version: str) -> None:
        """The application's partition holds a release, byte for byte, and nothing else."""
        part = _partition("application")
        nor = self._terminal.engine.read_nor()
        wanted = self._image(version).ljust(part.size, b"\xff")
        expected = nor[: part.offset] + wanted + nor[part.end :]
        if nor != expected:
            logger.write(draw_nor_picture(nor, expected), html=True)
            raise ExpectError(f"the application's partition does not hold {version}")

    @keyword
    def nor_block_should_be_blank(self, number: int) -> None:
        """A block (256 KiB, the first is 0) is erased."""
        block = _block(self._terminal.engine.read_nor(), _known(number))
        used = len(block.rstrip(b"\xff"))
        expect(not used, f"block {number} ({name_block(number)}) is used up to {used:#x}")

    @keyword
    def nor_block_should_not_be_blank(self, number: int) -> None:
        """Something is in a block (256 KiB, the first is 0)."""
        block = _block(self._terminal.engine.read_nor(), _known(number))
        expect(block.strip(b"\xff"), f"block {number} ({name_block(number)}) is blank")

    @keyword
    def nor_block_should_equal(self, number: int, expected: bytes) -> None:
        """A block (256 KiB, the first is 0) is as it was at a `Get Nor` before."""
        nor = self._terminal.engine.read_nor()
        if _block(nor, _known(number)) != _block(expected, number):
            where = _first(nor, expected, number)
            raise ExpectError(f"block {number} ({name_block(number)}) differs at {where:#x}")

    @keyword
    def flip_nor_bit(self, partition: str, offset: int, bit: int = 0) -> None:
        """Damages one bit of a partition, while the power is off.

        | `Cut Power`    |             |        |
        | `Flip Nor Bit` | application | 0x1234 |
        | `Power On`     |             |        |
        """
        part, engine = _partition(partition), self._terminal.engine
        expect(0 <= offset < part.size, f"{partition} has {part.size:#x} bytes")
        expect(0 <= bit < 8, "a byte has the bits 0 to 7")
        nor = bytearray(engine.read_nor())
        nor[part.offset + offset] ^= 1 << bit
        engine.load_nor(bytes(nor))

    @keyword
    def put_image_into_nor(self, version: str) -> None:
        """Writes a release into the application's partition, as a programmer on the chip would.

        The power must be off.
        """
        part, engine = _partition("application"), self._terminal.engine
        nor, image = engine.read_nor(), self._image(version)
        engine.load_nor(nor[: part.offset] + image.ljust(part.size, b"\xff") + nor[part.end :])

    @keyword
    def get_flash_operation_count(self) -> int:
        """How many erases and programs the NOR was told since the terminal was started.

        The test is skipped on engines that do not count.
        """
        engine = self._terminal.engine
        count = getattr(engine, "op_count", None)
        if count is None:
            raise NotKnownHereError(
                f"the engine {engine.name} does not count flash operations",
                hint="--variable ENGINE:inprocess does",
            )
        return int(count)

    @keyword
    def log_nor_map(self) -> None:
        """Puts a picture of the NOR into the log, compared with how it left the factory."""
        logger.write(self._terminal.picture(), html=True)


def _known(number: int) -> int:
    blocks = len(reference_layout().board.nor.geometry.block_sizes)
    expect(0 <= number < blocks, f"there are blocks 0 to {blocks - 1}")
    return number


def _block(nor: bytes, number: int) -> bytes:
    size = _block_size()
    return nor[number * size : (number + 1) * size]


def _first(nor: bytes, expected: bytes, number: int) -> int:
    """The offset of the first byte of a block that differs."""
    pairs = zip(_block(nor, number), _block(expected, number), strict=True)
    return number * _block_size() + next(i for i, (a, b) in enumerate(pairs) if a != b)
