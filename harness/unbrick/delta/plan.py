"""What the encoder decides before it writes: header, segments, and which are in the table."""

from __future__ import annotations

from dataclasses import dataclass

from unbrick.delta.format import DeltaHeader


@dataclass(frozen=True)
class Segment:
    """``length`` bytes at ``new`` in the new image, which were those at ``old`` in the old one."""

    new: int
    length: int
    old: int

    @property
    def end(self) -> int:
        """In the new image."""
        return self.new + self.length

    @property
    def old_end(self) -> int:
        """In the old image."""
        return self.old + self.length


@dataclass(frozen=True)
class Copy:
    """New bytes at ``new`` that came before: ``length`` bytes at ``start`` of an image.

    Attributes:
        new: a multiple of the instruction set's unit, as the others are.
        length: not 0.
        start: in the old image, or in the new one, where it is less than ``new``.
        old: whether in the old one.
    """

    new: int
    length: int
    start: int
    old: bool


@dataclass(frozen=True)
class DeltaPlan:
    """All that a file's bytes follow from, beside the two images.

    Attributes:
        header: of the file.
        segments: in the order of the new image; none overlaps another.
        mapped: those of them that are in the table, as many as the header says.
        digest: where the new image holds the SHA-256 of its beginning, and of how many bytes; or
            zeros.
        copies: among the new bytes, in order; none before format version 2.
    """

    header: DeltaHeader
    segments: tuple[Segment, ...]
    mapped: frozenset[Segment]
    digest: tuple[int, int] = (0, 0)
    copies: tuple[Copy, ...] = ()

    def parted(self) -> tuple[list[Segment], list[Segment]]:
        """The segments of the table, and the others."""
        table = [segment for segment in self.segments if segment in self.mapped]
        return table, [segment for segment in self.segments if segment not in self.mapped]


@dataclass(frozen=True)
class MadeDelta:
    """A differential file, and what became of the bytes of the new image.

    Attributes:
        file: its bytes.
        header: of it.
        length: bytes of the new image.
        copied: those that are as in the old one.
        fresh: those that the file has to say.
    """

    file: bytes
    header: DeltaHeader
    length: int
    copied: int
    fresh: int

    @property
    def predicted(self) -> int:
        """Bytes that differ from the old image, and that the file need not say."""
        return self.length - self.copied - self.fresh
