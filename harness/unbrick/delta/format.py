"""The header of a differential file, and the bounds of its fields (docs/delta-format.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from unbrick.errors import DeltaError

MAGIC = b"UB\x01"
_HEADER = struct.Struct("<3sBB3s3sHIHB16s8s")
HEADER_SIZE = _HEADER.size
MAX_LENGTH = (1 << 24) - 1
MAX_MEMORY_SIZE = 16384
"""Bytes of working memory that a file may ask for."""

DATA, THUMB, ARM = 0, 1, 2
"""The contents of an image: nothing in particular, Thumb-2 code, ARM code."""

FIXED_MEMORY_SIZE = 6656
SEGMENT_MEMORY_SIZE = 11
SLOTS = range(8, 13)
"""log2 of the number of slots of two bytes."""
REPEATS = range(8, 13)
WINDOW_UNIT = 1 << 16


@dataclass(frozen=True)
class DeltaHeader:
    """The header of a differential file.

    Attributes:
        isa: DATA, THUMB or ARM.
        slots: log2 of the number of slots.
        repeats: log2 of the number of bytes that are remembered.
        base_length: bytes of the installed image that it was made against.
        length: bytes of the new image.
        segments: entries of its table.
        base_address: where both images lie when they run.
        window: first address of a range with variables, a multiple of WINDOW_UNIT.
        window_size: bytes of that range, a multiple of WINDOW_UNIT.
        base_digest: SHA-256 of the installed image, all of it, its first 16 bytes.
        digest: SHA-256 of the new image, all of it, its first 8 bytes.
    """

    isa: int
    slots: int
    repeats: int
    base_length: int
    length: int
    segments: int
    base_address: int
    window: int
    window_size: int
    base_digest: bytes
    digest: bytes

    @property
    def memory(self) -> int:
        """Bytes of working memory that the terminal needs besides file and new image."""
        tables = (2 << self.slots) + (2 << self.repeats) + SEGMENT_MEMORY_SIZE * self.segments
        return FIXED_MEMORY_SIZE + tables + 7 & ~7

    def pack(self) -> bytes:
        """As it stands at the start of the file."""
        return _HEADER.pack(
            MAGIC,
            self.isa,
            self.slots | self.repeats << 4,
            self.base_length.to_bytes(3, "little"),
            self.length.to_bytes(3, "little"),
            self.segments,
            self.base_address,
            self.window // WINDOW_UNIT,
            self.window_size // WINDOW_UNIT,
            self.base_digest,
            self.digest,
        )


def digest_base(old: bytes) -> bytes:
    """The digest of the installed image in the header."""
    return hashlib.sha256(old).digest()[:16]


def digest_new(new: bytes) -> bytes:
    """The digest of the new image in the header."""
    return hashlib.sha256(new).digest()[:8]


def malformed(what: str) -> DeltaError:
    """The error for a file that cannot be right."""
    return DeltaError(
        f"the differential file is malformed: {what}", hint="get it again, or make it anew"
    )


def truncated() -> DeltaError:
    """The error for a file that ends too early."""
    return DeltaError("the differential file is truncated", hint="get it again, or make it anew")


def check_base(header: DeltaHeader, old: bytes) -> None:
    """Refuse an image that a file was not made against.

    Raises:
        DeltaError: it is another one.
    """
    base = old[: header.base_length]
    if len(base) < header.base_length or digest_base(base) != header.base_digest:
        raise DeltaError(
            "the differential file was made against another image",
            hint="make it anew, against the image that is installed",
        )


def read_header(file: bytes) -> DeltaHeader:
    """Read and check the header of a differential file.

    Raises:
        DeltaError: it is no differential file, or its header is malformed.
    """
    if len(file) < HEADER_SIZE:
        raise malformed(f"{len(file)} bytes are no header")
    magic, isa, tables, old, new, segments, base, window, pages, base_hash, digest = (
        _HEADER.unpack_from(file)
    )
    if magic != MAGIC:
        raise DeltaError(
            "not a differential file of this format version",
            hint="make it with the same release of Unbrick as the terminal's software",
        )
    header = DeltaHeader(
        isa=isa,
        slots=tables & 15,
        repeats=tables >> 4,
        base_length=int.from_bytes(old, "little"),
        length=int.from_bytes(new, "little"),
        segments=segments,
        base_address=base,
        window=window * WINDOW_UNIT,
        window_size=pages * WINDOW_UNIT,
        base_digest=base_hash,
        digest=digest,
    )
    if (
        isa > ARM
        or header.slots not in SLOTS
        or header.repeats not in REPEATS
        or not header.base_length
        or not header.length
        or base & 3
    ):
        raise malformed("a field of its header is out of bounds")
    if header.memory > MAX_MEMORY_SIZE:
        raise malformed(f"it asks for {header.memory} bytes of working memory")
    return header
