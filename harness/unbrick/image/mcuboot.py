"""MCUboot's image format: its numbers, its TLVs, and what they stand for.

Source: MCUboot's documentation, *Bootloader*, "Image format", and ``bootutil/image.h``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from unbrick.errors import ImageError

MAGIC = 0x96F3B83D
HEADER = struct.Struct("<IIHHIIBBHII")

FLAG_ROM_FIXED = 0x100
_ENCRYPTED = 0x4 | 0x8
_NON_BOOTABLE = 0x10
_RAM_LOAD = 0x20
_COMPRESSED = 0x200 | 0x400 | 0x800

TLV_KEY_HASH = 0x01
TLV_PUBLIC_KEY = 0x02
TLV_SHA256 = 0x10
TLV_ED25519 = 0x24
TLV_PURE = 0x25
TLV_DEPENDENCY = 0x40
TLV_SECURITY_COUNTER = 0x50
TLV_HARDWARE_ID = 0x00A0
TLV_NAME = 0x00A1
TLV_BUILD_TIME = 0x00A2
TLV_USERDATA_FORMAT = 0x00A3
TLV_DELTA_VERSION = 0x00A4

PROTECTED = frozenset(
    {
        TLV_SECURITY_COUNTER,
        TLV_HARDWARE_ID,
        TLV_NAME,
        TLV_BUILD_TIME,
        TLV_USERDATA_FORMAT,
        TLV_DELTA_VERSION,
    }
)
"""TLVs that stand where the hash covers them, and nowhere else."""

UNPROTECTED = frozenset({TLV_KEY_HASH, TLV_SHA256, TLV_ED25519})
"""TLVs that stand where the hash does not cover them. A terminal takes no others there."""

KEY_HASH_SIZE = 32
"""Bytes of the hash of a key, where it is of the same kind as the image's: SHA-256."""

_FIXED_SIZES = {
    TLV_SHA256: 32,
    TLV_ED25519: 64,
    TLV_SECURITY_COUNTER: 4,
    TLV_USERDATA_FORMAT: 4,
    TLV_DELTA_VERSION: 4,
}

HASHES = {TLV_SHA256: "SHA-256", 0x11: "SHA-384", 0x12: "SHA-512"}
"""TLVs that hold a hash of the image, the terminals' own first."""

SIGNATURES = {TLV_ED25519: "Ed25519", 0x20: "RSA-2048", 0x22: "ECDSA", 0x23: "RSA-3072"}
"""TLVs that hold a signature, the terminals' own first."""

TLV_HEAD = struct.Struct("<HH")
TLV_INFO_MAGIC = 0x6907
TLV_PROTECTED_MAGIC = 0x6908

_DEPENDENCY = struct.Struct("<B3xBBHI")
TRAILER_MAGIC = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
_TRAILER_MAGIC_V2 = bytes.fromhex("2de15d29410b8d77679c110f1f8a")  # Behind 2 bytes of alignment.


class Flag(NamedTuple):
    """What a flag of the header says, and which option of imgtool sets it."""

    bits: int
    what: str
    option: str


STRANGE_FLAGS = (
    Flag(_ENCRYPTED, "encrypted", "--encrypt"),
    Flag(_NON_BOOTABLE, "not bootable", "--non-bootable"),
    Flag(_RAM_LOAD, "to be loaded into RAM", "--load-addr"),
    Flag(_COMPRESSED, "compressed", "--compression"),
)
"""Flags that no terminal takes."""


def is_encrypted(flags: int) -> bool:
    """Whether the body is not what was hashed."""
    return bool(flags & _ENCRYPTED)


def is_trailer(data: bytes) -> bool:
    """Whether this is the rest of a slot, with the trailer that imgtool puts at its end."""
    return data.endswith((TRAILER_MAGIC, _TRAILER_MAGIC_V2))


def format_version(major: int, minor: int, revision: int, build: int) -> str:
    """A version as people write it."""
    return f"{major}.{minor}.{revision}+{build}"


def format_dependency(value: bytes) -> str:
    """A dependency as people read it."""
    if len(value) != _DEPENDENCY.size:
        return "something that cannot be read"
    number, *version = _DEPENDENCY.unpack(value)
    return f"image {number} of {format_version(*version)} or newer"


def malformed(what: str) -> ImageError:
    """The error of an image whose structure is not right."""
    return ImageError(what, hint="get the image again, or build and sign it anew")


def read_tlvs(
    data: bytes, start: int, magic: int, expected: int | None, found: list[tuple[int, bytes]]
) -> int:
    """Read the TLVs of the area at ``start`` into ``found``; what was read stays there.

    Args:
        data: the image.
        start: bytes from its start to the area.
        magic: what the area begins with.
        expected: its size in bytes, None when that is not known; 0: there is no such area.
        found: types and values.

    Returns:
        Where the area ends.

    Raises:
        ImageError: the area is truncated or malformed.
    """
    if expected == 0:
        return start
    if start + TLV_HEAD.size > len(data):
        raise malformed(
            f"the image is truncated: {len(data)} bytes, its TLVs would begin at {start}"
        )
    begin, size = TLV_HEAD.unpack_from(data, start)
    if begin != magic:
        raise malformed(f"no TLVs where they must be: 0x{begin:04x} instead of 0x{magic:04x}")
    if size < TLV_HEAD.size or (expected is not None and size != expected):
        raise malformed(f"the TLVs of the image have a wrong size: {size} bytes")
    end = start + int(size)
    if end > len(data):
        raise malformed(f"the image is truncated: {len(data)} of {end} bytes")
    at = start + TLV_HEAD.size
    while at < end:
        if at + TLV_HEAD.size > end:
            raise malformed("a TLV of the image is cut off")
        kind, length = TLV_HEAD.unpack_from(data, at)
        at += TLV_HEAD.size
        if at + length > end:
            raise malformed(f"TLV 0x{kind:04x} of the image is longer than what is left")
        if length != _FIXED_SIZES.get(kind, length):
            raise malformed(f"TLV 0x{kind:04x} of the image has {length} bytes")
        found.append((kind, bytes(data[at : at + length])))
        at += length
    return end
