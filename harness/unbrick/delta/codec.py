"""Making and applying differential files."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unbrick.delta.align import Place, align, rank
from unbrick.delta.compiled import decode, write
from unbrick.delta.format import (
    ARM,
    DATA,
    MAX_LENGTH,
    MAX_MEMORY_SIZE,
    REPEATS,
    SEGMENT_MEMORY_SIZE,
    SLOTS,
    THUMB,
    WINDOW_UNIT,
    DeltaHeader,
    digest_base,
    digest_new,
)
from unbrick.delta.model import DIGEST
from unbrick.delta.plan import DeltaPlan, Segment
from unbrick.errors import DeltaError

_MCUBOOT_MAGIC = 0x96F3B83D
__all__ = ["decode", "encode", "make_plans"]

_DENSE = 400
"""Code has a call in so many bytes, at least."""
_TABLES = ((11, 11), (11, 10), (10, 10), (10, 9), (9, 9))
"""Sizes of the decoder's tables, log2. The first is best nearly always, as measured: the addresses
that most point to are in its 139 segments. The others are for programs whose parts only change
places: of these, the first with room for all segments is tried, too."""
_FEW_NEW = 16
"""Such a program has a new byte in so many, at most."""


def encode(old: bytes, new: bytes, *, base_address: int | None = None) -> bytes:
    """Make the differential file that turns ``old`` into ``new``. The same input, the same file.

    Args:
        old: the installed image, as it lies in the NOR: with header and TLVs.
        new: the wanted image.
        base_address: where both lie when they run; found from their contents when not given.

    Raises:
        DeltaError: an image is empty or larger than the format allows.
        SetupError: the library is missing.
    """
    plans = make_plans(old, new, base_address=base_address)
    return min((write(old, new, plan) for plan in plans), key=len)


def make_plans(old: bytes, new: bytes, *, base_address: int | None = None) -> list[DeltaPlan]:
    """Plans of which one leads to the smallest file; see :func:`encode`."""
    for image in (old, new):
        if not 0 < len(image) <= MAX_LENGTH:
            raise DeltaError(
                f"no differential file for an image of {len(image)} bytes",
                hint=f"images have 1 to {MAX_LENGTH} bytes",
            )
    isa = _isa(old)
    base = _base(old) if base_address is None else base_address
    if base % 4 or not 0 <= base < 1 << 32:
        isa, base = DATA, 0
    window, window_size = _window(old, isa, base)
    header = DeltaHeader(
        isa=isa,
        slots=SLOTS[0],
        repeats=REPEATS[0],
        base_length=len(old),
        length=len(new),
        segments=0,
        base_address=base,
        window=window,
        window_size=window_size,
        base_digest=digest_base(old),
        digest=digest_new(new),
    )
    digest = _own_digest(new)
    place = Place(isa, base)
    whole = _around(align(old, new, place), digest)
    best = rank(old, place, whole)
    new_bytes = len(new) - sum(segment.length for segment in whole)
    tried = [replace(header, slots=slots, repeats=repeats) for slots, repeats in _TABLES]
    first = next((i for i, t in enumerate(tried) if len(whole) <= _room(t)), len(tried) - 1)
    few = new_bytes * _FEW_NEW <= len(new)
    plans = []
    for table in (tried[0], tried[first])[: 2 if few and first else 1]:
        mapped = frozenset(best[: _room(table)])
        sized = replace(table, segments=len(mapped))
        plans.append(DeltaPlan(sized, tuple(whole), mapped, digest))
    return plans


def _room(header: DeltaHeader) -> int:
    """Segments that the working memory has room for."""
    return (MAX_MEMORY_SIZE - header.memory) // SEGMENT_MEMORY_SIZE


def _isa(old: bytes) -> int:
    """The instruction set that the image seems to have."""
    words = np.frombuffer(old[: len(old) & ~3], "<u4").astype(np.int64)
    calls = np.flatnonzero(words & 0xFF000000 == 0xEB000000)
    target = calls * 4 + 8 + ((words[calls] & 0xFFFFFF ^ 0x800000) - 0x800000) * 4
    arm = int(np.count_nonzero((target >= 0) & (target < len(old))))
    half = np.frombuffer(old[: len(old) & ~1], "<u2").astype(np.int64)
    at = np.flatnonzero((half[:-1] & 0xF800 == 0xF000) & (half[1:] & 0xD000 == 0xD000))
    s = half[at] >> 10 & 1
    # I1 = I2 = S: calls within 4 MiB, as those of an image of this size are.
    near = (half[at + 1] >> 13 & 1 == 1) & (half[at + 1] >> 11 & 1 == 1)
    target = at * 2 + 4 + ((half[at] & 0x3FF) << 12 | (half[at + 1] & 0x7FF) << 1) - (s << 22)
    thumb = int(np.count_nonzero(near & (target >= 0) & (target < len(old))))
    if max(arm, thumb) * _DENSE < len(old):
        return DATA
    return ARM if arm > thumb else THUMB


def _base(old: bytes) -> int:
    """Where the image lies: as its header says, or so that most of its pointers point into it."""
    if len(old) >= 8:
        magic, load = struct.unpack_from("<II", old)
        if magic == _MCUBOOT_MAGIC and load:
            return int(load)
    words = np.frombuffer(old[: len(old) & ~3], "<u4").astype(np.int64)
    unit = 4096
    pages, counts = np.unique(words[(words & 1) == 1] // unit, return_counts=True)
    span = -(-len(old) // unit)
    best, found = 0, 0
    for page in pages[np.argsort(-counts, kind="stable")[:64]]:
        start = int(np.searchsorted(pages, page))
        end = int(np.searchsorted(pages, page + span))
        total = int(counts[start:end].sum())
        if total > found and page:
            best, found = int(page) * unit, total
    return best


def _window(old: bytes, isa: int, base: int) -> tuple[int, int]:
    """The range of the image's variables.

    Most constants that code loads lie in it, and they are no places in the image.
    """
    if isa == DATA:
        return 0, 0
    values = _constants(old, isa)
    values = values[(values < base) | (values > base + len(old))]
    pages, counts = np.unique(values // WINDOW_UNIT, return_counts=True)
    likely = (pages > 0) & (pages < 0xFF00) & (counts >= 8)
    pages, counts = pages[likely], counts[likely]
    if not len(pages):
        return 0, 0
    first = last = int(np.argmax(counts))
    while first and pages[first - 1] == pages[first] - 1:
        first -= 1
    while last + 1 < len(pages) and pages[last + 1] == pages[last] + 1:
        last += 1
    count = min(int(pages[last] - pages[first]) + 1, 255)
    return int(pages[first]) * WINDOW_UNIT, count * WINDOW_UNIT


def _constants(old: bytes, isa: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The constants that code loads from literals, or by MOVW and MOVT right after each other."""
    words = np.frombuffer(old[: len(old) & ~3], "<u4").astype(np.int64)
    half = np.frombuffer(old[: len(old) & ~1], "<u2").astype(np.int64)
    if isa == ARM:
        at = np.flatnonzero(words & 0x0FFF0000 == 0x059F0000)
        target = at + 2 + ((words[at] & 0xFFF) >> 2)
        pair = np.flatnonzero(
            (words[:-1] & 0x0FF00000 == 0x03000000) & (words[1:] & 0x0FF00000 == 0x03400000)
        )
        low, high = words[pair], words[pair + 1]
        moved = (low >> 4 & 0xF000 | low & 0xFFF) | (high >> 4 & 0xF000 | high & 0xFFF) << 16
    else:
        at = np.flatnonzero(half & 0xF800 == 0x4800)
        target = (at * 2 + 4 >> 2) + (half[at] & 0xFF)
        pair = np.flatnonzero((half[:-3] & 0xFBF0 == 0xF240) & (half[2:-1] & 0xFBF0 == 0xF2C0))
        moved = np.zeros(len(pair), np.int64)
        for shift, here in ((0, pair), (16, pair + 2)):
            one, two = half[here], half[here + 1]
            value = (one & 0xF) << 12 | (one >> 10 & 1) << 11 | (two >> 12 & 7) << 8 | two & 0xFF
            moved |= value << shift
    loaded = words[target[target < len(words)]]
    return np.concatenate((loaded, moved))


def _own_digest(new: bytes) -> tuple[int, int]:
    """Where an MCUboot image holds its SHA-256, and of how many bytes it is; or zeros."""
    if len(new) < 32:
        return 0, 0
    magic, _, header, protected, body = struct.unpack_from("<IIHHI", new)
    hashed = header + body + protected
    if magic != _MCUBOOT_MAGIC or hashed > len(new):
        return 0, 0
    place = new.find(hashlib.sha256(new[:hashed]).digest(), hashed)
    return (place, hashed) if place > 0 else (0, 0)


def _around(segments: Sequence[Segment], digest: tuple[int, int]) -> list[Segment]:
    """The segments such that none begins or ends in the digest, which the decoder calculates."""
    start, end = digest[0], digest[0] + DIGEST
    made = []
    for segment in segments:
        here = segment
        if start and start < here.new < end:
            skip = min(end - here.new, here.length)
            here = Segment(here.new + skip, here.length - skip, here.old + skip)
        if start and start < here.end < end:
            here = Segment(here.new, max(start - here.new, 0), here.old)
        if here.length:
            made.append(here)
    return made
