"""What MCUboot can tell apart of its headers, marks and trailers, in the build `pr2100-fixed`.

docs/mcuboot.md says what a search with this form rests on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbrick.target.form import Fields

BLANK, SET, BAD = 0xFFFF_FFFF, 0xFFFF_FF01, 0xFFFF_FF00
MARKS = range(0x0008_19D0, 0x0008_1FD0, 4)
PINS, CONNECTED = (0x1000_1200, 0x1000_1204), 1 << 31
HEADERS, HEADER_SIZE, IMAGE_MAGIC = (0x0000_C000, 0x0008_2000), 32, 0x96F3_B83D
TRAILER_ENDS = (0x0008_2000, 0x000F_8000)
MAGIC = (0xF395_C277, 0x7FEF_D260, 0x0F50_5235, 0x8079_B62C)


def canonical(fields: Fields) -> None:
    """Of a mark it asks whether it is blank; of flags and magics, whether they are whole or blank.

    Without its magic a header is none. The startup code asks whether the reset pin is connected.
    """
    for mark in MARKS:
        if not fields.may_be(mark, BLANK):
            fields.put(mark, SET)
    for pin in PINS:
        if not fields.weak(pin) & CONNECTED:
            fields.put(pin, BLANK if fields.word(pin) & CONNECTED else 18)
    for end in TRAILER_ENDS:
        count_trailer(fields, end)
    for header in HEADERS:
        if not fields.may_be(header, IMAGE_MAGIC):
            for at in range(header, header + HEADER_SIZE, 4):
                fields.put(at, 0)


def count_trailer(fields: Fields, end: int) -> None:
    """A flag that is neither set nor blank is bad, and so is a magic."""
    for flag in (end - 24, end - 32):
        if not (fields.may_be(flag, BLANK) or fields.may_be(flag, SET)):
            fields.put(flag, BAD)
    words = dict(zip(range(end - 16, end, 4), MAGIC, strict=True))
    is_unset = all(fields.may_be(at, BLANK) for at in words)
    if not is_unset and not all(fields.may_be(at, word) for at, word in words.items()):
        for at in words:
            fields.put(at, 0)
