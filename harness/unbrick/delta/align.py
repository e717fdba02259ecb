"""Finds the parts of the new image that correspond to parts of the old one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import bsdiff4.core
import numpy as np
import numpy.typing as npt

from unbrick.delta.format import ARM, DATA, THUMB
from unbrick.delta.plan import Segment

Numbers = npt.NDArray[np.int64]

_ROUNDS = 2
# Costs in the file, in bits, about.
_SEGMENT = 60.0
_RESUMED = 40.0
_WRONG_BYTE = 10.0
_WRONG_RUN = 4.0
_NEW_BYTE = 5.0
_STATES = 12


@dataclass(frozen=True)
class Place:
    """The meaning of addresses in an image: its instruction set and where it lies."""

    isa: int
    base: int


def align(old: bytes, new: bytes, place: Place) -> list[Segment]:
    """Segments in the order of the new image, chosen so that the file is small.

    Args:
        old: the installed image.
        new: the wanted one.
        place: of both.
    """
    segments = _bsdiff(old, new)
    for _ in range(_ROUNDS if place.isa != DATA else 0):
        segments = _choose(translate(old, place, segments), new, segments)
        segments = _bsdiff(translate(old, place, segments), new)
    segments = _choose(translate(old, place, segments), new, segments)
    return _choose(translate(old, place, segments), new, segments)


def _bsdiff(old: bytes, new: bytes) -> list[Segment]:
    """The alignment that bsdiff finds."""
    control, _, _ = bsdiff4.core.diff(old, new)
    segments = []
    at = source = 0
    for numbers in struct.iter_unpack("<QQQ", control):
        copied, extra, seek = (-(n & (1 << 63) - 1) if n >> 63 else n for n in numbers)
        if copied:
            segments.append(Segment(at, copied, source))
        at += copied + extra
        source += copied + seek
    return segments


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

    def worth(segment: Segment) -> tuple[int, int, int]:
        first, last = np.searchsorted(pointed, (segment.old, segment.old_end))
        return int(first - last), -segment.length, segment.new

    return sorted(segments, key=worth)


def translate(old: bytes, place: Place, segments: Sequence[Segment]) -> bytes:
    """The old image with the addresses that the segments imply. Only real differences are left.

    Everything that could be a branch or a word is taken for one.
    """
    if not segments or place.isa == DATA:
        return old
    ordered = sorted(segments, key=lambda s: s.old)
    starts = np.array([s.old for s in ordered], np.int64)
    ends = np.array([s.old_end for s in ordered], np.int64)
    deltas = np.array([s.new - s.old for s in ordered], np.int64)

    def moved(offsets: Numbers) -> Numbers:
        last = np.maximum(np.searchsorted(starts, offsets, "right") - 1, 0)
        best = last
        for back in range(7, -1, -1):
            at = np.maximum(last - back, 0)
            best = np.where((starts[at] <= offsets) & (offsets < ends[at]), at, best)
        return offsets + deltas[best]

    out = bytearray(old)
    if place.isa == THUMB:
        _move_calls(out, moved)
    size = len(old) & ~3
    words = np.frombuffer(old[:size], "<u4").astype(np.int64)
    fresh = np.frombuffer(bytes(out[:size]), "<u4").astype(np.int64)
    if place.isa == ARM:
        at, target = _arm_branches(words)
        offset = moved(target) - moved(at * 4) - 8
        fresh[at] = words[at] & 0xFF000000 | offset >> 2 & 0xFFFFFF
    at = np.flatnonzero((words >= place.base) & (words <= place.base + len(old)))
    fresh[at] = moved(words[at] - place.base) + place.base & 0xFFFFFFFF
    out[:size] = fresh.astype("<u4").tobytes()
    return bytes(out)


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


def _move_calls(out: bytearray, moved: Callable[[Numbers], Numbers]) -> None:
    """BL, BLX and B.W of Thumb."""
    half = _halfwords(out)
    at, target = _calls(half)
    offset = moved(target) - moved(at * 2) - 4
    s = offset >> 24 & 1
    j1, j2 = 1 ^ offset >> 23 & 1 ^ s, 1 ^ offset >> 22 & 1 ^ s
    made = half.copy()
    made[at] = 0xF000 | s << 10 | offset >> 12 & 0x3FF
    made[at + 1] = half[at + 1] & 0xD000 | j1 << 13 | j2 << 11 | offset >> 1 & 0x7FF
    out[: len(half) * 2] = made.astype("<u2").tobytes()


@dataclass(frozen=True)
class _Way:
    """A way through the pieces so far: its cost, and each piece's delta (None: new)."""

    price: float
    delta: int | None
    last: int | None
    before: _Way | None


def _choose(source: bytes, new: bytes, segments: Sequence[Segment]) -> list[Segment]:
    """The cheapest way through the pieces into which the segments cut the new image.

    Each piece goes on with the segment before, begins with one that is near, or is new.
    """
    borders = sorted({0, len(new), *(s.new for s in segments), *(s.end for s in segments)})
    own = {s.new: s.old - s.new for s in segments}
    deltas = [own.get(border) for border in borders[:-1]]
    left, right = np.frombuffer(source, np.uint8), np.frombuffer(new, np.uint8)

    def wrong(start: int, end: int, delta: int) -> float:
        if start + delta < 0 or end + delta > len(source):
            return inf
        differs = left[start + delta : end + delta] != right[start:end]
        count = int(np.count_nonzero(differs))
        runs = int(np.count_nonzero(differs[1:] & ~differs[:-1])) + 1 if count else 0
        return count * _WRONG_BYTE + runs * _WRONG_RUN

    ways: dict[tuple[int | None, int | None], _Way] = {(None, None): _Way(0.0, None, None, None)}
    pieces = list(pairwise(borders))
    for number, (start, end) in enumerate(pieces):
        near = {d for d in deltas[max(0, number - 3) : number + 4] if d is not None}
        costs = {d: wrong(start, end, d) for d in sorted(near)}
        following: dict[tuple[int | None, int | None], _Way] = {}
        for way in ways.values():
            last = way.last if way.delta is None else way.delta
            offers = [_Way(way.price + _NEW_BYTE * (end - start), None, last, way)]
            for delta in (*near, *{way.delta, last} - near):
                if delta is None:
                    continue
                if delta not in costs:
                    costs[delta] = wrong(start, end, delta)
                cost = costs[delta]
                if delta != way.delta:
                    cost += _RESUMED if delta == last else _SEGMENT
                offers.append(_Way(way.price + cost, delta, None, way))
            for offer in offers:
                state = (offer.delta, offer.last)
                if state not in following or offer.price < following[state].price:
                    following[state] = offer
        ranked = sorted(following.items(), key=lambda item: item[1].price)
        ways = dict(ranked[:_STATES])
    return _joined(pieces, min(ways.values(), key=lambda way: way.price))


def _joined(pieces: Sequence[tuple[int, int]], way: _Way) -> list[Segment]:
    chosen: list[int | None] = []
    here: _Way | None = way
    while here is not None:
        chosen.append(here.delta)
        here = here.before
    made: list[Segment] = []
    for (start, end), delta in zip(pieces, chosen[-2::-1], strict=True):
        if delta is None:
            continue
        if made and made[-1].end == start and made[-1].old - made[-1].new == delta:
            made[-1] = Segment(made[-1].new, end - made[-1].new, made[-1].old)
        else:
            made.append(Segment(start, end - start, start + delta))
    return made
