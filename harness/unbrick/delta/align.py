"""Which part of the new image corresponds to which part of the old one."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import bsdiff4.core
import numpy as np
import numpy.typing as npt

from unbrick.delta import arm
from unbrick.delta.model import AddressMap, Layout, Segment

Halfwords = npt.NDArray[np.uint16]


def bsdiff_segments(old: bytes, new: bytes) -> list[Segment]:
    """The alignment that bsdiff finds."""
    if not old or not new:
        return []
    control, _, _ = bsdiff4.core.diff(old, new)
    segments = []
    at = source = 0
    for copied, extra, seek in struct.iter_unpack("<qqq", control):
        copied, extra, seek = (v if v >= 0 else -(v & (1 << 63) - 1) for v in (copied, extra, seek))
        if copied:
            segments.append(Segment(at, copied, source))
        at += copied + extra
        source += copied + seek
    return segments


def _halfwords(data: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(data[: len(data) & ~1], "<u2").astype(np.int64)


def translated(old: bytes, layout: Layout, segments: Sequence[Segment]) -> bytes:
    """The old image with the addresses that the segments imply: what is left to differ does differ.

    Branches and words are recognised wherever they could be, without following the code.
    """
    out = bytearray(old)
    starts = np.array([s.old for s in sorted(segments, key=lambda s: s.old)], np.int64)
    deltas = np.array([s.new - s.old for s in sorted(segments, key=lambda s: s.old)], np.int64)

    def moved(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        at = np.searchsorted(starts, offsets, "right") - 1
        return offsets + deltas[np.maximum(at, 0)]

    if not segments or layout.isa == 0:
        return old
    size = len(old)
    if layout.isa == arm.THUMB:
        hw = _halfwords(old)
        at = np.flatnonzero((hw[:-1] & 0xF800 == 0xF000) & (hw[1:] & 0xD000 == 0xD000))
        first, second = hw[at], hw[at + 1]
        s = first >> 10 & 1
        i1, i2 = 1 ^ (second >> 13 & 1) ^ s, 1 ^ (second >> 11 & 1) ^ s
        offset = (s * -1 << 24) | i1 << 23 | i2 << 22 | (first & 0x3FF) << 12 | (second & 0x7FF) << 1
        place = at * 2
        target = place + 4 + offset
        good = (target >= 0) & (target <= size)
        at, place, target, first, second = (v[good] for v in (at, place, target, first, second))
        offset = moved(target) - moved(place) - 4
        s = offset >> 24 & 1
        j1, j2 = 1 ^ (offset >> 23 & 1) ^ s, 1 ^ (offset >> 22 & 1) ^ s
        made = hw.copy()
        made[at] = 0xF000 | s << 10 | offset >> 12 & 0x3FF
        made[at + 1] = second & 0xD000 | j1 << 13 | j2 << 11 | offset >> 1 & 0x7FF
        out[: len(hw) * 2] = made.astype("<u2").tobytes()
    words = np.frombuffer(old[: size & ~3], "<u4").astype(np.int64)
    fresh = np.frombuffer(bytes(out[: size & ~3]), "<u4").astype(np.int64)
    if layout.isa == arm.ARM:
        at = np.flatnonzero(words & 0x0E000000 == 0x0A000000)
        word = words[at]
        target = at * 4 + 8 + ((word & 0xFFFFFF ^ 0x800000) - 0x800000) * 4
        good = (target >= 0) & (target <= size)
        at, word, target = at[good], word[good], target[good]
        offset = moved(target) - moved(at * 4) - 8
        fresh[at] = word & 0xFF000000 | offset >> 2 & 0xFFFFFF
    at = np.flatnonzero((words >= layout.base) & (words <= layout.base + size))
    fresh[at] = moved(words[at] - layout.base) + layout.base & 0xFFFFFFFF
    out[: size & ~3] = fresh.astype("<u4").tobytes()
    return bytes(out)


def align(old: bytes, new: bytes, layout: Layout, rounds: int = 2) -> list[Segment]:
    """Segments in the order of the new image, chosen so that little is left to be said."""
    segments = bsdiff_segments(old, new)
    for _ in range(rounds if layout.isa else 0):
        segments = choose(translated(old, layout, segments), new, segments)
        segments = bsdiff_segments(translated(old, layout, segments), new)
    segments = choose(translated(old, layout, segments), new, segments)
    return choose(translated(old, layout, segments), new, segments)


# What things cost, in bits, about.
_SEGMENT = 34.0
_JUMP_BIT = 1.0
_MISSED = 9.0
_RUN = 4.0
_NEW = 6.5


def choose(source: bytes, new: bytes, segments: Sequence[Segment]) -> list[Segment]:
    """The cheapest way through the pieces that the segments cut the new image into: each piece goes
    on with what was before, begins with what follows, or is new."""
    borders = sorted({0, len(new), *(s.new for s in segments), *(s.new + s.length for s in segments)})
    left = np.frombuffer(source, np.uint8)
    right = np.frombuffer(new, np.uint8)
    owner = {s.new: s.old - s.new for s in segments}
    deltas = [owner.get(b) for b in borders[:-1]]

    def cost(start: int, end: int, delta: int) -> float:
        if start + delta < 0 or end + delta > len(source):
            return float("inf")
        wrong = left[start + delta : end + delta] != right[start:end]
        count = int(np.count_nonzero(wrong))
        if not count:
            return 0.0
        return count * _MISSED + _RUN * int(np.count_nonzero(wrong[1:] & ~wrong[:-1]) + 1)

    # State: the delta of a piece (None: new) and, for a new one, the delta before it.
    State = tuple["int | None", "int | None"]
    best: dict[State, tuple[float, tuple[object, ...] | None]] = {(None, None): (0.0, None)}
    pieces = list(zip(borders, borders[1:], deltas))
    for number, (start, end, own) in enumerate(pieces):
        near = {d for _, _, d in pieces[max(0, number - 3) : number + 4] if d is not None}
        near |= {s[0] for s in best if s[0] is not None} | {s[1] for s in best if s[1] is not None}
        if own is not None:
            near.add(own)
        following: dict[State, tuple[float, tuple[object, ...] | None]] = {}

        def offer(state: State, price: float, back: tuple[object, ...] | None) -> None:
            if state not in following or price < following[state][0]:
                following[state] = (price, (state[0], back))

        costs = {d: cost(start, end, d) for d in near}
        for (delta, last), (price, back) in best.items():
            offer((None, last if delta is None else delta), price + _NEW * (end - start), back)
            for d, here in costs.items():
                total = price + here
                if d != delta:
                    reference = last if delta is None else delta
                    total += _SEGMENT - (10.0 if reference == d else 0.0)
                offer((d, None), total, back)
        ranked = sorted(following.items(), key=lambda item: item[1][0])[:12]
        best = dict(ranked)
    chosen: list[int | None] = []
    node = min(best.values(), key=lambda v: v[0])[1]
    while node is not None:
        chosen.append(node[0])  # type: ignore[arg-type]
        node = node[1]  # type: ignore[assignment]
    chosen.reverse()
    made: list[Segment] = []
    for (start, end, _), delta in zip(pieces, chosen):
        if delta is None:
            continue
        if made and made[-1].new + made[-1].length == start and made[-1].old - made[-1].new == delta:
            made[-1] = Segment(made[-1].new, end - made[-1].new, made[-1].old)
        else:
            made.append(Segment(start, end - start, start + delta))
    return made
