"""The header of a differential file, and the bounds of its fields (docs/delta-format.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from unbrick.errors import DeltaError

MAGIC = b"UB"
VERSION = 2
"""The format version of new files; files of version 1 are read, too."""
VERSIONS = (1, 2)
_FIRST = struct.Struct("<2sBBB3s3sHIHB16s8s")
"""The header of version 1."""
_OTHER_LENGTH, _MANY_SEGMENTS, _HAS_ADDRESS, _HAS_WINDOW, _UNKNOWN = 4, 8, 16, 32, 192
"""What the fourth byte of version 2 says beside the instruction set: which fields follow."""
MIN_HEADER_SIZE, MAX_HEADER_SIZE = 17, 44
"""Bytes of any header."""
_DIGESTS = {1: (16, 8), 2: (4, 4)}
"""Bytes of the digests, of the old image and the new one, by version."""
MAX_LENGTH = (1 << 24) - 1
MAX_MEMORY_SIZE = 16384
"""Bytes of working memory that a file may ask for."""

DATA, THUMB, ARM = 0, 1, 2
"""The contents of an image: nothing in particular, Thumb-2 code, ARM code."""

FIXED_MEMORY_SIZE = {1: 6656, 2: 7360}
"""By version."""
SEGMENT_MEMORY_SIZE = 11
SLOTS = range(8, 13)
"""log2 of the number of slots of two bytes."""
REPEATS = range(8, 13)
WINDOW_UNIT = 1 << 16


@dataclass(frozen=True)
class DeltaHeader:
    """The header of a differential file.

    Attributes:
        version: of the format.
        isa: DATA, THUMB or ARM.
        slots: log2 of the number of slots.
        repeats: log2 of the number of bytes that are remembered.
        base_length: bytes of the installed image that it was made against.
        length: bytes of the new image.
        segments: entries of its table.
        base_address: where both images lie when they run.
        window: first address of a range with variables, a multiple of WINDOW_UNIT.
        window_size: bytes of that range, a multiple of WINDOW_UNIT.
        base_digest: SHA-256 of the installed image, all of it: its first bytes.
        digest: SHA-256 of the new image, all of it: its first bytes.
    """

    version: int
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
        return FIXED_MEMORY_SIZE[self.version] + tables + 7 & ~7

    @property
    def size(self) -> int:
        """Bytes of the header itself."""
        return len(self.pack())

    def pack(self) -> bytes:
        """As it stands at the start of the file."""
        old, new = (length.to_bytes(3, "little") for length in (self.base_length, self.length))
        tables = self.slots | self.repeats << 4
        window = (self.window // WINDOW_UNIT, self.window_size // WINDOW_UNIT)
        digests = (self.base_digest, self.digest)
        if self.version == 1:
            return _FIRST.pack(
                *(MAGIC, 1, self.isa, tables, old, new),
                *(self.segments, self.base_address, *window, *digests),
            )
        fields, made = self.isa, b""
        if self.length != self.base_length:
            fields, made = fields | _OTHER_LENGTH, new
        made += bytes((self.segments & 255,))
        if self.segments > 255:
            fields, made = fields | _MANY_SEGMENTS, made + bytes((self.segments >> 8,))
        if self.base_address:
            fields, made = fields | _HAS_ADDRESS, made + struct.pack("<I", self.base_address)
        if self.window_size:
            fields, made = fields | _HAS_WINDOW, made + struct.pack("<HB", *window)
        return MAGIC + bytes((2, fields, tables)) + old + made + b"".join(digests)


def digest_base(old: bytes, version: int) -> bytes:
    """The digest of the installed image in the header."""
    return hashlib.sha256(old).digest()[: _DIGESTS[version][0]]


def digest_new(new: bytes, version: int) -> bytes:
    """The digest of the new image in the header."""
    return hashlib.sha256(new).digest()[: _DIGESTS[version][1]]


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
    if len(base) < header.base_length or digest_base(base, header.version) != header.base_digest:
        raise DeltaError(
            "the differential file was made against another image",
            hint="make it anew, against the image that is installed",
        )


def read_header(file: bytes) -> DeltaHeader:
    """Read and check the header of a differential file.

    Raises:
        DeltaError: it is no differential file, or its header is malformed.
    """
    if len(file) < MIN_HEADER_SIZE:
        raise malformed(f"{len(file)} bytes are no header")
    if not file.startswith(MAGIC) or file[2] not in VERSIONS:
        raise DeltaError(
            "not a differential file of this format version",
            hint="make it with the same release of Unbrick as the terminal's software",
        )
    try:
        header = _read_first(file) if file[2] == 1 else _read_second(file)
    except (struct.error, IndexError):
        raise malformed(f"{len(file)} bytes are no header") from None
    if (
        header.isa > ARM
        or header.slots not in SLOTS
        or header.repeats not in REPEATS
        or not header.base_length
        or not header.length
        or header.base_address & 3
        or header.pack() != file[: header.size]
    ):
        raise malformed("a field of its header is out of bounds")
    if header.memory > MAX_MEMORY_SIZE:
        raise malformed(f"it asks for {header.memory} bytes of working memory")
    return header


def _read_first(file: bytes) -> DeltaHeader:
    _, version, isa, tables, old, new, segments, base, window, pages, base_digest, digest = (
        _FIRST.unpack_from(file)
    )
    lengths = (int.from_bytes(old, "little"), int.from_bytes(new, "little"))
    return DeltaHeader(
        *(version, isa, tables & 15, tables >> 4, *lengths),
        *(segments, base, window * WINDOW_UNIT, pages * WINDOW_UNIT, base_digest, digest),
    )


def _read_second(file: bytes) -> DeltaHeader:
    fields, tables = file[3:5]
    base_length = length = int.from_bytes(file[5:8], "little")
    at, base, window, pages = 8, 0, 0, 0
    if fields & _OTHER_LENGTH:
        length, at = int.from_bytes(file[at : at + 3], "little"), at + 3
    segments, at = file[at], at + 1
    if fields & _MANY_SEGMENTS:
        segments, at = segments | file[at] << 8, at + 1
    if fields & _HAS_ADDRESS:
        (base,), at = struct.unpack_from("<I", file, at), at + 4
    if fields & _HAS_WINDOW:
        (window, pages), at = struct.unpack_from("<HB", file, at), at + 3
    digests = struct.unpack_from("<4s4s", file, at)
    isa = fields & 3 if not fields & _UNKNOWN else _UNKNOWN
    return DeltaHeader(
        *(2, isa, tables & 15, tables >> 4, base_length, length),
        *(segments, base, window * WINDOW_UNIT, pages * WINDOW_UNIT, *digests),
    )
