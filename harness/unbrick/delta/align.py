"""Finds the parts of the new image that correspond to parts of the old one (``c/align.c``)."""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from unbrick.delta.compiled import SegmentStruct
from unbrick.delta.format import ARM, THUMB
from unbrick.delta.plan import Segment
from unbrick.library import Signatures, load_library

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """The meaning of addresses in an image: its instruction set and where it lies."""

    isa: int
    base: int


class _Images(c.Structure):
    """``struct align_images``."""

    _fields_ = (
        ("old", c.c_char_p),
        ("old_length", c.c_uint32),
        ("new", c.c_char_p),
        ("new_length", c.c_uint32),
        ("isa", c.c_uint32),
        ("base", c.c_uint32),
    )


class _Segments(c.Structure):
    """``struct align_segments``."""

    _fields_ = (
        ("of", c.POINTER(SegmentStruct)),
        ("count", c.c_size_t),
        ("room", c.c_size_t),
    )


@cache
def _load() -> Any:
    segments = c.POINTER(_Segments)
    signatures: Signatures = {
        "align_images": (segments, [c.POINTER(_Images)]),
        "align_free": (None, [segments]),
    }
    return load_library("delta", signatures)


def align(old: bytes, new: bytes, place: Place) -> list[Segment]:
    """Segments in the order of the new image, chosen so that the file is small.

    Args:
        old: the installed image; not empty.
        new: the wanted one; not empty.
        place: of both.

    Raises:
        MemoryError: there is no room for it.
        SetupError: the library is missing.
    """
    library = _load()
    images = _Images(old, len(old), new, len(new), place.isa, place.base)
    found = library.align_images(c.byref(images))
    if not found:
        raise MemoryError
    try:
        segments = found.contents
        return [Segment(s.new, s.length, s.old) for s in segments.of[: segments.count]]
    finally:
        library.align_free(found)


def rank(old: bytes, place: Place, segments: Sequence[Segment]) -> list[Segment]:
    """The segments: first those to which most addresses of the old image point, then the long."""
    size = len(old) & ~3
    words = np.frombuffer(old[:size], "<u4").astype(np.int64)
    targets = [words[(words >= place.base) & (words < place.base + len(old))] - place.base]
    if place.isa == THUMB:
        targets.append(_calls(_halfwords(old))[1])
    elif place.isa == ARM:
        targets.append(_arm_branches(words)[1])
    pointed = np.sort(np.concatenate(targets))

    borders = np.array([(s.old, s.old_end) for s in segments], np.int64).reshape(-1, 2)
    first, last = np.searchsorted(pointed, borders).T
    worth = zip(
        (first - last).tolist(),
        (-s.length for s in segments),
        (s.new for s in segments),
        segments,
        strict=True,
    )
    return [segment for *_, segment in sorted(worth, key=itemgetter(0, 1, 2))]


def _halfwords(data: bytes | bytearray) -> Numbers:
    return np.frombuffer(bytes(data[: len(data) & ~1]), "<u2").astype(np.int64)


def _arm_branches(words: Numbers) -> tuple[Numbers, Numbers]:
    """Which words are branches within the image, and their targets."""
    at = np.flatnonzero(words & 0x0E000000 == 0x0A000000)
    target = at * 4 + 8 + ((words[at] & 0xFFFFFF ^ 0x800000) - 0x800000) * 4
    good = (target >= 0) & (target <= len(words) * 4)
    return at[good], target[good]


def _calls(half: Numbers) -> tuple[Numbers, Numbers]:
    """Which halfwords begin BL, BLX or B.W of Thumb within the image, and their targets."""
    at = np.flatnonzero((half[:-1] & 0xF800 == 0xF000) & (half[1:] & 0xD000 == 0xD000))
    s = half[at] >> 10 & 1
    i1, i2 = 1 ^ half[at + 1] >> 13 & 1 ^ s, 1 ^ half[at + 1] >> 11 & 1 ^ s
    fields = (half[at] & 0x3FF) << 12 | (half[at + 1] & 0x7FF) << 1
    target = at * 2 + 4 + (i1 << 23 | i2 << 22 | fields) - (s << 24)
    good = (target >= 0) & (target <= len(half) * 2)
    return at[good], target[good]
