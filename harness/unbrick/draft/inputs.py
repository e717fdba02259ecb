"""What a firmware file tells by itself: what lies where, its vectors, its MCUboot header.

Sources: the Armv7-M Architecture Reference Manual, B1.5.3 for the vector table and A7.7.76 and
A7.7.79 for MOVW and MOVT; MCUboot's documentation, *Bootloader*, for image headers and trailers.
"""

from __future__ import annotations

import itertools
import re
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from unbrick.errors import SetupError
from unbrick.image.mcuboot import HEADER, MAGIC, format_version, is_trailer
from unbrick.target.files import (
    OtherCoreError,
    Piece,
    read_bytes,
    read_firmware,
    tells_addresses,
)

if TYPE_CHECKING:
    from pathlib import Path

ANY_CORE = "cortex-m33"
"""It runs what was built for any other core that there is a chip with."""

_GIVEN = re.compile(r"(.+)@(0x[0-9a-fA-F_]+|\d+)")

_RAMS = range(0x1000_0000, 0x4000_0000)
"""Where stacks of microcontrollers lie, those of secure code from 0x30000000 on."""

_VECTORS_STEP, _VECTORS_MOST = 0x80, 0x1000
"""A vector table lies at a multiple of 128 bytes; headers before it are not larger than 4 KiB."""

_VECTORS = 16
"""The words that every core has: the stack, and the exceptions of the system."""

_NEAR = 1 << 20
"""Bytes that handlers of one program are from each other, at most."""

_WORD = struct.Struct("<I")
_SAME = 0.9
"""Of the bytes of an ELF file, how many a binary has that was made of it: headers are patched."""


@dataclass(frozen=True)
class Vectors:
    """A vector table.

    Attributes:
        offset: where it is in its file.
        stack: the stack's first value.
        handlers: addresses of code, the first one where the core begins.
    """

    offset: int
    stack: int
    handlers: tuple[int, ...]


@dataclass(frozen=True)
class Input:
    """A file that was named.

    Attributes:
        path: of the file.
        pieces: what lies where; those of a binary file without an address begin at 0.
        at: address that must be said, for the file does not; None: it does, or nobody knows yet.
        placed: whether it is known where it lies.
        fixed: whether it lies nowhere else: it says so itself, or somebody has said it.
        symbols: the ELF file that belongs to it; None: none, or it is one itself.
    """

    path: Path
    pieces: tuple[Piece, ...]
    at: int | None
    placed: bool
    fixed: bool = False
    symbols: Path | None = None

    @cached_property
    def data(self) -> bytes:
        """Its bytes from the first address on; gaps are blank."""
        first, data = self.pieces[0].address, bytearray()
        for piece in self.pieces:
            data = data.ljust(piece.address - first, b"\xff") + piece.data
        return bytes(data)

    @cached_property
    def vectors(self) -> Vectors | None:
        """Its vector table, at its start or behind a header; None: it has none."""
        for offset in range(0, min(_VECTORS_MOST, len(self.data)), _VECTORS_STEP):
            found = _read_vectors(self.data, offset)
            if found is not None:
                return found
        return None

    @cached_property
    def version(self) -> str:
        """The version that its MCUboot header has; empty: it has no such header."""
        if len(self.data) < HEADER.size or not self.data.startswith(MAGIC.to_bytes(4, "little")):
            return ""
        fields = HEADER.unpack_from(self.data)
        return format_version(*fields[6:10])

    @property
    def has_trailer(self) -> bool:
        """Whether it is a whole slot, with the trailer of MCUboot at its end."""
        return is_trailer(self.data)

    @cached_property
    def constants(self) -> frozenset[int]:
        """Numbers that its code may use as addresses."""
        return frozenset(_find_constants(self.data))

    def put(self, at: int) -> Input:
        """A binary file, at an address that was found out."""
        return replace(self, pieces=(Piece(at, self.data),), at=at, placed=True)

    def overlaps(self, other: Input) -> bool:
        """Whether both have bytes at one address."""
        return any(
            one.address < two.end and two.address < one.end
            for one in self.pieces
            for two in other.pieces
        )


def read_input(path: Path, at: int | None = None) -> Input:
    """A file, which says where it lies, or is a binary one.

    Raises:
        SetupError: it cannot be read, is damaged, or is for another kind of core.
    """
    if tells_addresses(path):
        try:
            return Input(path, read_firmware(path, at, ANY_CORE), None, True, True)
        except OtherCoreError:
            raise SetupError(
                f"{path} is no firmware for a Cortex-M", hint="name what is flashed onto the chip"
            ) from None
    given = at is not None
    return Input(path, (Piece(at or 0, read_bytes(path)),), at, given, given)


def split_place(text: str) -> tuple[str, int | None]:
    """``FILE@ADDRESS`` as a name and an address, which may not be there.

    Raises:
        SetupError: the address is none.
    """
    match = _GIVEN.fullmatch(text)
    if match is None:
        return text, None
    at = int(match[2].replace("_", ""), 0)
    if at >= 1 << 32:
        raise SetupError(f"{match[2]} is no address", hint="write it as app.bin@0x08004000")
    return match[1], at


def find_likeness(binary: Input, elf: Input) -> float:
    """How much of an ELF file a file has that may have been made of it: 0.0 to 1.0.

    It may have a header before it or in it. 0.0 stands for too little.
    """
    code = max(elf.pieces, key=lambda piece: len(piece.data)).data
    vectors, best = binary.vectors, 0.0
    for offset in {0, vectors.offset if vectors else 0}:
        there = binary.data[offset : offset + len(code)]
        if len(there) == len(code):
            same = sum(one == other for one, other in zip(there, code, strict=True))
            best = max(best, same / len(code))
    return best if best >= _SAME else 0.0


def _read_vectors(data: bytes, offset: int) -> Vectors | None:
    if offset + 4 * _VECTORS > len(data):
        return None
    stack, *words = struct.unpack_from(f"<{_VECTORS}I", data, offset)
    handlers = [word & ~1 for word in words if word & 1 and word != 0xFFFF_FFFF]
    if stack not in _RAMS or stack % 4 or not all(word & 1 for word in words[:3]):
        return None
    if max(handlers[:3]) - min(handlers[:3]) > _NEAR or handlers[0] in _RAMS:
        return None
    near = tuple(one for one in handlers if abs(one - handlers[0]) <= _NEAR)
    return Vectors(offset, stack, near)


def _find_constants(data: bytes) -> set[int]:
    """Words of the data, and what MOVW and MOVT load one soon after the other."""
    whole = data[: len(data) // 4 * 4]
    found = {word for (word,) in _WORD.iter_unpack(whole)}
    halves = struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
    low: dict[int, int] = {}
    for first, second in itertools.pairwise(halves):
        kind = first & 0xFBF0
        if kind not in {0xF240, 0xF2C0} or second & 0x8000:
            continue
        register = second >> 8 & 0xF
        value = (first & 0xF) << 12 | (first >> 10 & 1) << 11
        value |= (second >> 12 & 7) << 8 | second & 0xFF
        if kind == 0xF240:
            low[register] = value
        else:
            found.add(value << 16 | low.get(register, 0))
    return found
