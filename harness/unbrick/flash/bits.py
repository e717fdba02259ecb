"""Strings of bits, such as the cells of a flash, combined bit by bit (``c/bits.c``).

A search does this for every way in which every operation can be torn.
"""

from __future__ import annotations

import ctypes as c
from functools import cache
from typing import Any

from unbrick.library import Signatures, load_library

FEW = 256
"""Bytes below which Python's integers are as fast as a call of the library: as measured."""

_ONES = tuple(b"\xff" * size for size in (65536, 4096, 256, 16, 1))


@cache
def _load() -> Any:
    signatures: Signatures = {
        "bits_and": (None, [c.c_char_p, c.c_char_p, c.c_char_p, c.c_size_t]),
        "bits_or": (None, [c.c_char_p, c.c_char_p, c.c_char_p, c.c_size_t]),
        "bits_not": (None, [c.c_char_p, c.c_char_p, c.c_size_t]),
    }
    return load_library("flash", signatures)


def intersect(a: bytes, b: bytes) -> bytes:
    """Bitwise and of two strings of the same length.

    Raises:
        ValueError: their lengths differ.
        SetupError: the library is missing.
    """
    size = _find_size(a, b)
    if size < FEW:
        value = int.from_bytes(a, "little") & int.from_bytes(b, "little")
        return value.to_bytes(size, "little")
    out = c.create_string_buffer(size)
    _load().bits_and(out, a, b, size)
    return out.raw


def unite(a: bytes, b: bytes) -> bytes:
    """Bitwise or of two strings of the same length.

    Raises:
        ValueError: their lengths differ.
        SetupError: the library is missing.
    """
    size = _find_size(a, b)
    if size < FEW:
        value = int.from_bytes(a, "little") | int.from_bytes(b, "little")
        return value.to_bytes(size, "little")
    out = c.create_string_buffer(size)
    _load().bits_or(out, a, b, size)
    return out.raw


def invert(a: bytes) -> bytes:
    """Every bit the other way round.

    Raises:
        SetupError: the library is missing.
    """
    size = len(a)
    if size < FEW:
        value = int.from_bytes(a, "little") ^ ((1 << 8 * size) - 1)
        return value.to_bytes(size, "little")
    out = c.create_string_buffer(size)
    _load().bits_not(out, a, size)
    return out.raw


def strip_ones(a: bytes | bytearray) -> bytes:
    """A string without the 0xFF at its end: ``a.rstrip(b"\\xff")``, faster for those with many."""
    end = len(a)
    for ones in _ONES:
        while a.endswith(ones, 0, end):
            end -= len(ones)
    return bytes(a[:end])


def _find_size(a: bytes, b: bytes) -> int:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} bytes cannot be combined")
    return len(a)
