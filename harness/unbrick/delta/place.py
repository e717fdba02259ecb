"""What an image tells of itself: its instruction set, where it runs, where its variables lie."""

from __future__ import annotations

import math
import re
import struct

import numpy as np
import numpy.typing as npt

from unbrick.delta.format import ARM, DATA, THUMB, WINDOW_UNIT

Numbers = npt.NDArray[np.int64]

MCUBOOT_MAGIC = 0x96F3B83D
_DENSE = 400
"""Code has a call in so many bytes, at least."""

_UNITS = (1 << 16, 1 << 12, 1 << 8)
"""Images begin at a multiple of one of these, more likely of a large one."""
_LEAD = 3
"""Votes by which an address must lead those that are multiples of the same unit."""
_PAIRS = 1 << 16
"""Pairs that are looked at in each of 256 groups, about; images of a megabyte have half as many."""
_TEXT = re.compile(rb"(?<=\0)[\t\n\r -~]{4,}(?=\0)")
"""A string of C, behind another or behind what else ends with 0."""


def find_isa(old: bytes) -> int:
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


def find_base(old: bytes, isa: int) -> int:
    """Where the image lies when it runs; 0 when nothing tells.

    An MCUboot header may say it. Otherwise pointers vote: vector tables, other tables, and the
    constants that code loads. A pointer to code leads to the beginning of a function, others lead
    to the beginning of a string: every such pair is a vote for one address.
    """
    if len(old) >= 8:
        magic, load = struct.unpack_from("<II", old)
        if magic == MCUBOOT_MAGIC and load:
            return int(load)
    if isa == DATA:
        return 0
    pointers = _pointers(old, isa)
    code = pointers[pointers % 2 == 1] - 1 if isa == THUMB else pointers[pointers % 4 == 0]
    strings = np.array([found.start() for found in _TEXT.finditer(old)], np.int64)
    votes = [_differences(code, _functions(old, isa)), _differences(pointers, strings)]
    bases, counts = np.unique(np.concatenate(votes), return_counts=True)
    return _elect(bases, counts)


def _elect(bases: Numbers, counts: Numbers) -> int:
    """The address that leads most clearly among the multiples of one of the units."""
    best, found = 0, _LEAD - 1
    for unit in _UNITS:
        fits = bases % unit == 0
        here, votes = bases[fits], counts[fits]
        if not len(votes):
            continue
        first = int(np.argmax(votes))
        second = max(votes[:first].max(initial=0), votes[first + 1 :].max(initial=0))
        if votes[first] - second > found:
            best, found = int(here[first]), int(votes[first] - second)
    return best


def _pointers(old: bytes, isa: int) -> Numbers:
    """What may point into the image: constants of code, and words beside similar ones."""
    words = np.frombuffer(old[: len(old) & ~3], "<u4").astype(np.int64)
    near = np.abs(np.diff(words)) < len(old)
    tables = np.concatenate((near, [False])) | np.concatenate(([False], near))
    return np.unique(np.concatenate((words[tables[: len(words)]], _constants(old, isa))))


def _functions(old: bytes, isa: int) -> Numbers:
    """Where functions seem to begin: what they are called with is pushed with the link register."""
    if isa == ARM:
        words = np.frombuffer(old[: len(old) & ~3], "<u4")
        return np.flatnonzero(words & 0xFFFF0000 == 0xE92D0000) * 4
    half = np.frombuffer(old[: len(old) & ~1], "<u2")
    return np.flatnonzero((half & 0xFF00 == 0xB500) | (half == 0xE92D)) * 2


def _differences(pointers: Numbers, places: Numbers) -> Numbers:
    """Of all pairs, as far as they are addresses where an image may begin."""
    unit = _UNITS[-1]
    made = [np.zeros(0, np.int64)]
    pointers = pointers[np.argsort(pointers % unit, kind="stable")]
    places = places[np.argsort(places % unit, kind="stable")]
    borders = np.arange(unit + 1)
    first = np.searchsorted(pointers % unit, borders)
    second = np.searchsorted(places % unit, borders)
    for low in range(unit):
        left = pointers[first[low] : first[low + 1]]
        right = places[second[low] : second[low + 1]]
        thin = 1 + math.isqrt(len(left) * len(right) // _PAIRS)
        differences = left[::thin, None] - right[None, ::thin]
        made.append(differences[differences >= 0])
    return np.concatenate(made)


def find_window(old: bytes, isa: int, base: int) -> tuple[int, int]:
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


def _constants(old: bytes, isa: int) -> Numbers:
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
