"""The codec in C (``c/codec.c``): what ``unbrick.delta.reference`` does, sixty times as fast.

Most of it is the terminal's decoder, compiled for both directions.
"""

from __future__ import annotations

import ctypes as c
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from unbrick.delta.format import DeltaHeader, check_base, malformed, read_header, truncated
from unbrick.delta.plan import Copy, DeltaPlan, MadeDelta, Segment
from unbrick.errors import DeltaError
from unbrick.library import Signatures, load_library

ROOM = 4096
"""Bytes of a file beyond the length of its image, for which room is made at first."""

_TRUNCATED, _TRAILING, _WRONG_DIGEST = -90, -96, -97
"""Of ``enum delta_error``."""


class SegmentStruct(c.Structure):
    """``struct codec_segment``."""

    _fields_ = (("new", c.c_uint32), ("length", c.c_uint32), ("old", c.c_uint32))


class _Copy(c.Structure):
    """``struct codec_copy``."""

    _fields_ = (
        ("new", c.c_uint32),
        ("length", c.c_uint32),
        ("start", c.c_uint32),
        ("old", c.c_uint32),
    )


class _Plan(c.Structure):
    """``struct codec_plan``."""

    _fields_ = (
        ("header", c.c_char_p),
        ("header_length", c.c_size_t),
        ("old", c.c_char_p),
        ("old_length", c.c_uint32),
        ("new", c.c_char_p),
        ("new_length", c.c_uint32),
        ("table", c.POINTER(SegmentStruct)),
        ("local", c.POINTER(SegmentStruct)),
        ("locals", c.c_uint32),
        ("copies", c.POINTER(_Copy)),
        ("copy_count", c.c_uint32),
        ("digest", c.c_uint32),
        ("hashed", c.c_uint32),
    )


class _Counts(c.Structure):
    """``struct codec_counts``."""

    _fields_ = (("copied", c.c_uint32), ("fresh", c.c_uint32))


_Sha256 = c.CFUNCTYPE(None, c.c_void_p, c.c_void_p, c.c_uint32)


def _digest(out: int, data: int, length: int) -> None:
    c.memmove(out, hashlib.sha256(c.string_at(data, length)).digest(), 32)


_sha256 = _Sha256(_digest)


@cache
def _load() -> Any:
    data, u32, size = c.c_char_p, c.c_uint32, c.c_size_t
    signatures: Signatures = {
        "codec_encode": (c.c_int64, [c.POINTER(_Plan), _Sha256, data, size, c.POINTER(_Counts)]),
        "parse_copies": (c.c_int64, [c.POINTER(_Plan), c.POINTER(c.POINTER(_Copy))]),
        "parse_free": (None, [c.POINTER(_Copy)]),
        "codec_decode": (c.c_int, [data, u32, data, size, _Sha256, data, u32]),
    }
    return load_library("delta", signatures)


def make(old: bytes, new: bytes, plan: DeltaPlan) -> MadeDelta:
    """The file that a plan leads to, and what it saved.

    Raises:
        SetupError: the library is missing.
    """
    return _write(_tell(old, new, plan), plan.header)


def make_small(old: bytes, new: bytes, plan: DeltaPlan) -> MadeDelta:
    """The file of a plan with copies: ``make`` after ``choose_copies``, which stay in C here.

    Raises:
        SetupError: the library is missing.
    """
    told = _tell(old, new, plan)
    with _find_copies(told, plan.header) as (copies, count):
        told.copies, told.copy_count = copies, count
        return _write(told, plan.header)


def choose_copies(old: bytes, new: bytes, plan: DeltaPlan) -> DeltaPlan:
    """The plan with copies among the new bytes that make its file small.

    Raises:
        SetupError: the library is missing.
    """
    with _find_copies(_tell(old, new, plan), plan.header) as (found, count):
        copies = tuple(Copy(s.new, s.length, s.start, bool(s.old)) for s in found[:count])
    return replace(plan, copies=copies)


@contextmanager
def _find_copies(told: _Plan, header: DeltaHeader) -> Iterator[tuple[Any, int]]:
    """Copies, and how many; none for version 1."""
    found = c.POINTER(_Copy)()
    count = _load().parse_copies(c.byref(told), c.byref(found)) if header.version > 1 else 0
    try:
        if count < 0:
            raise MemoryError(f"the encoder gave up: {count}")
        yield found, count
    finally:
        _load().parse_free(found)


def _write(told: _Plan, header: DeltaHeader) -> MadeDelta:
    counts = _Counts()
    room = told.new_length + ROOM
    while True:
        out = c.create_string_buffer(room)
        count = _load().codec_encode(c.byref(told), _sha256, out, room, c.byref(counts))
        if count < 0:
            raise MemoryError(f"the encoder gave up: {count}")
        if count <= room:
            file = header.pack() + out.raw[:count]
            return MadeDelta(file, header, told.new_length, counts.copied, counts.fresh)
        room = count


def _tell(old: bytes, new: bytes, plan: DeltaPlan) -> _Plan:
    header = plan.header.pack()
    table, local = plan.parted()
    copies = (_Copy(copy.new, copy.length, copy.start, copy.old) for copy in plan.copies)
    return _Plan(
        *(header, len(header), old, len(old), new, len(new)),
        *(_array(table), _array(local), len(local)),
        *((_Copy * len(plan.copies))(*copies), len(plan.copies)),
        *plan.digest,
    )


def _array(segments: Sequence[Segment]) -> c.Array[SegmentStruct]:
    return (SegmentStruct * len(segments))(
        *(SegmentStruct(s.new, s.length, s.old) for s in segments)
    )


def decode(old: bytes, file: bytes) -> bytes:
    """Rebuild the new image.

    Raises:
        DeltaError: the file is for another image, malformed, or gives another image than it says.
        SetupError: the library is missing.
    """
    header: DeltaHeader = read_header(file)
    check_base(header, old)
    image = c.create_string_buffer(header.length)
    error = _load().codec_decode(old, len(old), file, len(file), _sha256, image, header.length)
    if error:
        raise _error(error)
    return image.raw


def _error(error: int) -> DeltaError:
    """What is wrong, in the words of the reference decoder where the terminal knows as much."""
    if error == _TRUNCATED:
        return truncated()
    if error == _TRAILING:
        return malformed("bytes follow its end")
    if error == _WRONG_DIGEST:
        return malformed("what it gives is not the image that it names")
    return malformed("it contradicts itself")
