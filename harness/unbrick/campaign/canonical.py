"""Canonical forms: cells that no run of the firmware can tell apart count as one state.

Without them a search over power cuts would never meet a state again: the record logs grow with
every write, and every torn operation leaves other cells behind. What is left out, and why that is
sound:

- **Record logs** (journal, phonebook). The firmware asks of a slot whether it is blank, all zero,
  valid, or none of these (*torn*), and of a header whether it is valid. A slot counts as the answer
  to that question, with its payload when it is valid. Cleared (all-zero) slots are passed over, so
  how many there are is left out; so are, in the journal, records older than the newest, which is
  the whole state. Of generations only the order of the halves counts. How many slots are free is
  left out while they are more than ``PLENTY``; scenarios that begin with a nearly full log search
  compaction. A half whose header is not valid is erased before it is used: its slots are left out.
- **Application.** Boot asks whether it is valid, and the rewrite erases a block that differs at
  all. A valid image counts as its digest, anything else as *damaged*.
- **Weak cells.** Each of these answers is taken in every way in which weak cells may read.

Everything else counts as it is.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

from unbrick.board import BOARD
from unbrick.errors import ImageError
from unbrick.image.format import inspect
from unbrick.nor.cells import BLOCK, RESOLUTIONS, Cells

HEADER = 64
HEADER_USED = 20
SLOT = 64
PLENTY = 12
IMAGE_MAGIC = 0x96F3B83D

_JOURNAL = BOARD.partition("journal")
_USERDATA = BOARD.partition("userdata")
_APPLICATION = BOARD.partition("application")
_APPLICATION_BLOCKS = range(_APPLICATION.offset // BLOCK, _APPLICATION.end // BLOCK)
_PLAIN_BLOCKS = [
    number
    for number in range(BOARD.nor.modelled // BLOCK)
    if number not in _APPLICATION_BLOCKS
    and not any(part.offset <= number * BLOCK < part.end for part in (_JOURNAL, _USERDATA))
]


def _generation(half: bytes) -> int | None:
    """The generation of a half with a valid header, else None."""
    header = half[:HEADER_USED].ljust(HEADER_USED, b"\xff")
    magic, _, generation, _, crc = struct.unpack("<5I", header)
    valid = crc == zlib.crc32(header[:16]) and magic not in {0, 0xFFFFFFFF}
    return int(generation) if valid else None


def _slot(raw: bytes) -> bytes | str:
    if not raw.strip(b"\xff"):
        return "blank"
    if not raw.strip(b"\0"):
        return "zero"
    if zlib.crc32(raw[:-4]) == struct.unpack_from("<I", raw, SLOT - 4)[0]:
        return raw
    return "torn"


@lru_cache(maxsize=4096)
def _half(half: bytes, *, newest_only: bool) -> tuple[object, ...]:
    """The slots of a half with a valid header, up to the first blank one and what may follow it."""
    raw = half + b"\xff" * (-len(half) % SLOT)
    slots = [_slot(raw[at : at + SLOT]) for at in range(HEADER, len(raw), SLOT)]
    used = slots.index("blank") if "blank" in slots else len(slots)
    free = (BLOCK - HEADER) // SLOT - used
    beyond = tuple(slots[used:])
    kept = [slot for slot in slots[:used] if slot != "zero"]
    if newest_only:
        records = [i for i, slot in enumerate(kept) if isinstance(slot, bytes)]
        kept = kept[records[-1] :] if records else kept
    return (tuple(kept), min(free, PLENTY), beyond)


def _log(cells: Cells, offset: int, *, newest_only: bool) -> tuple[object, ...]:
    first, second = (cells.blocks[(offset + at) // BLOCK] for at in (0, BLOCK))
    generations = _generation(first), _generation(second)
    forms = [
        ("none", _slot(half[:HEADER].ljust(HEADER, b"\xff")) in {"blank", "zero"})
        if generation is None
        else ("log", _half(half, newest_only=newest_only))
        for half, generation in zip((first, second), generations, strict=True)
    ]
    swapped = generations[0] is None or (
        generations[1] is not None and (generations[1] - generations[0]) % 2**32 < 2**31
    )
    return tuple(forms[::-1] if swapped else forms)


@lru_cache(maxsize=4096)
def _image(blocks: tuple[bytes, ...]) -> bytes:
    """What names a valid image: its header, size and the digest in it; empty when damaged.

    Checked as far as cells go: the hash that the image carries over the bytes that it covers.
    """
    first = blocks[0]
    if len(first) < HEADER or struct.unpack_from("<I", first)[0] != IMAGE_MAGIC:
        return b""
    whole = b"".join(block.ljust(BLOCK, b"\xff") for block in blocks)
    try:
        return inspect(whole, trailing=True).digest
    except ImageError:
        return b""


def _form(cells: Cells) -> tuple[object, ...]:
    application = tuple(cells.blocks[number] for number in _APPLICATION_BLOCKS)
    return (
        tuple(cells.blocks[number] for number in _PLAIN_BLOCKS),
        _image(application),
        _log(cells, _JOURNAL.offset, newest_only=True),
        _log(cells, _USERDATA.offset, newest_only=False),
    )


def canonical(cells: Cells) -> tuple[object, ...]:
    """What two states of the NOR share exactly when they count as one; hashable."""
    if not cells.weak:
        return _form(cells)
    return tuple(_form(cells.readable(resolution)) for resolution in range(RESOLUTIONS))
