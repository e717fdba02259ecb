"""What turns one image into another: where they differ, and the differential file (row B2).

Offsets and lengths are in bytes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unbrick.delta import encode
from unbrick.delta.format import VERSION
from unbrick.errors import DeltaError, ImageError
from unbrick.image.examine import examine
from unbrick.layout import Layout, reference_layout
from unbrick.server.core.prepared import Prepared
from unbrick.server.records.analysis import Range, RangeKind

WORD = 4
"""What the pair of chips is written in."""

NEAR = 64
"""Ranges that are closer to each other are one: naming another costs about as much."""


def find_ranges(old: bytes, new: bytes, layout: Layout | None = None) -> tuple[Range, ...]:
    """Where two images differ in the NOR, and what a rewrite of that erases and writes.

    Differences and writes are of whole words, erases of whole blocks. A block that is erased has
    to be written wholly, but for what is blank anyway. What lies behind the old image is not
    known, so it is taken to differ.

    Args:
        old: the installed image, with header and TLVs.
        new: the wanted image.
        layout: where the application lies, and in which blocks; by default our firmware's.

    Raises:
        ImageError: the new image is larger than the partition.
    """
    layout = layout or reference_layout()
    application = layout.partition("application")
    if len(new) > application.size:
        raise ImageError(
            f"the image has {len(new)} bytes, the partition {application.size}",
            hint="build a smaller one",
        )
    wanted = _words(new)
    # Of the last word only the image's own bytes count: what follows them is nobody's.
    there = _words(old[: len(new)])
    differs = np.ones(len(wanted), dtype=bool)
    differs[: len(there)] = wanted[: len(there)] != there
    if len(old) < len(new) and len(old) % WORD:
        differs[len(old) // WORD] = True
    per_block = layout.board.nor.block_size // WORD
    blocks = np.unique(np.flatnonzero(differs) // per_block)
    erased = np.isin(np.arange(len(wanted)) // per_block, blocks)
    written = erased & (wanted != 0xFFFF_FFFF)

    def at(kind: RangeKind, spans: list[tuple[int, int]]) -> list[Range]:
        start = application.offset
        return [Range(kind, start + first * WORD, (end - first) * WORD) for first, end in spans]

    erases = [(int(block) * per_block, (int(block) + 1) * per_block) for block in blocks]
    return (
        *at(RangeKind.DIFFERENCE, _spans(differs, len(wanted))),
        *at(RangeKind.ERASE, erases),
        *at(RangeKind.WRITE, _spans(written, per_block)),
    )


def _words(data: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(data + b"\xff" * (-len(data) % WORD), dtype="<u4")


def _spans(marked: npt.NDArray[np.bool_], border: int) -> list[tuple[int, int]]:
    """Runs of marked words, near ones joined unless a multiple of ``border`` is between them."""
    spans: list[tuple[int, int]] = []
    edges = np.flatnonzero(np.diff(np.concatenate(([0], marked.view(np.int8), [0]))))
    for first, end in edges.reshape(-1, 2).tolist():
        for begin, stop in _cut(first, end, border):
            near = spans and (begin - spans[-1][1]) * WORD < NEAR
            if near and spans[-1][0] // border == begin // border:
                spans[-1] = spans[-1][0], stop
            else:
                spans.append((begin, stop))
    return spans


def _cut(first: int, end: int, border: int) -> list[tuple[int, int]]:
    """A run, cut at multiples of ``border``."""
    cuts = [first, *range((first // border + 1) * border, end, border), end]
    return list(pairwise(cuts))


def make_file(old: bytes, new: bytes) -> bytes:
    """The differential file that turns ``old`` into ``new``, as the software in ``old`` reads it.

    Raises:
        DeltaError: an image is empty or larger than the format allows.
    """
    reads = examine(old).delta_version or 1
    return encode(old, new, version=min(reads, VERSION))


def prepare(old: bytes, new: bytes, layout: Layout | None = None) -> Prepared:
    """Everything for a pair of images.

    Raises:
        ImageError: the new image is larger than the partition.
    """
    ranges = find_ranges(old, new, layout)
    try:
        file = make_file(old, new)
    except DeltaError as error:
        return Prepared(ranges, None, f"no differential file: {error}")
    if len(file) >= len(new):
        return Prepared(ranges, file, "the full image is smaller than the differential file")
    return Prepared(ranges, file, "")
