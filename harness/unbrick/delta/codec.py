"""Making and applying differential files."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import replace

from unbrick.delta.align import Place, align, rank
from unbrick.delta.compiled import decode, make_small
from unbrick.delta.format import (
    DATA,
    MAX_LENGTH,
    MAX_MEMORY_SIZE,
    REPEATS,
    SEGMENT_MEMORY_SIZE,
    SLOTS,
    VERSION,
    DeltaHeader,
    digest_base,
    digest_new,
)
from unbrick.delta.model import DIGEST
from unbrick.delta.place import MCUBOOT_MAGIC, find_base, find_isa, find_window
from unbrick.delta.plan import DeltaPlan, MadeDelta, Segment
from unbrick.errors import DeltaError

__all__ = ["decode", "encode", "make_delta", "make_plan"]

_TABLES = ((11, 11), (11, 10), (10, 10), (10, 9), (9, 9))
"""Sizes of the decoder's tables, log2, of which the first has room for the fewest segments. It is
taken when that is all of them. Else it is the next one in version 2, which has less room than
version 1: that is best mostly, as measured. The segments to which most addresses point are in the
table then. Where parts of a program only change places, all must be: it is the first with room for
them."""
_FEW_NEW = 16
"""Such a program has a new byte in so many, at most."""


def encode(
    old: bytes, new: bytes, *, base_address: int | None = None, version: int = VERSION
) -> bytes:
    """The differential file that turns ``old`` into ``new``; see :func:`make_delta`."""
    return make_delta(old, new, base_address=base_address, version=version).file


def make_delta(
    old: bytes, new: bytes, *, base_address: int | None = None, version: int = VERSION
) -> MadeDelta:
    """Make the differential file that turns ``old`` into ``new``. The same input, the same file.

    Args:
        old: the installed image, as it lies in the NOR: with header and TLVs.
        new: the wanted image.
        base_address: where both lie when they run; found from their contents when not given.
        version: of the format; 1 for terminals whose software knows no other.

    Raises:
        DeltaError: an image is empty or larger than the format allows.
        SetupError: the library is missing.
    """
    plan = make_plan(old, new, base_address=base_address, version=version)
    return make_small(old, new, plan)


def make_plan(
    old: bytes, new: bytes, *, base_address: int | None = None, version: int = VERSION
) -> DeltaPlan:
    """The plan of a small file, as yet without copies among new bytes; see :func:`make_delta`."""
    for image in (old, new):
        if not 0 < len(image) <= MAX_LENGTH:
            raise DeltaError(
                f"no differential file for an image of {len(image)} bytes",
                hint=f"images have 1 to {MAX_LENGTH} bytes",
            )
    isa = find_isa(old)
    base = find_base(old, isa) if base_address is None else base_address
    if base % 4 or not 0 <= base < 1 << 32 or (isa == DATA and version > 1):
        isa, base = DATA, 0
    window, window_size = find_window(old, isa, base)
    header = DeltaHeader(
        version=version,
        isa=isa,
        slots=SLOTS[0],
        repeats=REPEATS[0],
        base_length=len(old),
        length=len(new),
        segments=0,
        base_address=base,
        window=window,
        window_size=window_size,
        base_digest=digest_base(old, version),
        digest=digest_new(new, version),
    )
    digest = _own_digest(new)
    place = Place(isa, base)
    whole = _around(align(old, new, place), digest)
    best = rank(old, place, whole)
    new_bytes = len(new) - sum(segment.length for segment in whole)
    tried = [replace(header, slots=slots, repeats=repeats) for slots, repeats in _TABLES]
    first = next((i for i, t in enumerate(tried) if len(whole) <= _room(t)), len(tried) - 1)
    few = new_bytes * _FEW_NEW <= len(new)
    chosen = tried[first if few else min(first, version - 1)]
    mapped = frozenset(best[: _room(chosen)])
    return DeltaPlan(replace(chosen, segments=len(mapped)), tuple(whole), mapped, digest)


def _room(header: DeltaHeader) -> int:
    """Segments that the working memory has room for."""
    return (MAX_MEMORY_SIZE - header.memory) // SEGMENT_MEMORY_SIZE


def _own_digest(new: bytes) -> tuple[int, int]:
    """Where an MCUboot image holds its SHA-256, and of how many bytes it is; or zeros."""
    if len(new) < 32:
        return 0, 0
    magic, _, header, protected, body = struct.unpack_from("<IIHHI", new)
    hashed = header + body + protected
    if magic != MCUBOOT_MAGIC or hashed > len(new):
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
