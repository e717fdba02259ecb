"""Intel HEX in and out: a signed image at the application's address."""

from __future__ import annotations

import io
import re
from pathlib import Path

from intelhex import IntelHex, IntelHexError

from unbrick.errors import ImageError
from unbrick.image.examine import identify_other_file
from unbrick.image.format import read_bounded
from unbrick.layout import reference_layout

_RECORD_BYTES = 16
_GAP = 0xFF
_END_RECORD = re.compile(r":00[0-9A-F]{4}01[0-9A-F]{2}", re.IGNORECASE)
_FILLERS = " \t\0\x1a"
"""What stands around lines and behind the end of files that other systems or XMODEM have padded."""

_HEX_LIMIT = 8 * 1024 * 1024


def to_hex(image: bytes) -> str:
    """The image as Intel HEX, at the address of the application partition.

    Raises:
        ImageError: it does not fit in the partition.
    """
    layout = reference_layout()
    part = layout.partition("application")
    if len(image) > part.size:
        raise ImageError(
            f"the image is too large for the partition: {len(image)} of {part.size} bytes",
            hint="make the software smaller",
        )
    hexfile = IntelHex()
    hexfile.frombytes(image, offset=layout.board.nor.base + part.offset)
    text = io.StringIO()
    hexfile.write_hex_file(text, byte_count=_RECORD_BYTES)
    return text.getvalue()


def from_hex(text: str) -> bytes:
    """The image that an Intel HEX file holds; gaps in it are filled with 0xFF.

    Raises:
        ImageError: it is no Intel HEX, is damaged, is empty, or has bytes outside of the
            application partition.
    """
    lines = [line.strip(_FILLERS) for line in text.splitlines()]
    end = next((at for at, line in enumerate(lines) if _END_RECORD.fullmatch(line)), None)
    hexfile = IntelHex()
    try:
        hexfile.loadhex(io.StringIO("\n".join(lines)))
    except IntelHexError as error:
        raise ImageError(
            f"the file is not Intel HEX, or is damaged: {error}", hint="get or convert it again"
        ) from None
    if end is None:
        raise ImageError(
            "the HEX file is truncated: it does not close with an end record",
            hint="get or convert it again",
        )
    for number, line in enumerate(lines[end + 1 :], end + 2):
        if line:
            what = "another HEX file" if line.startswith(":") else "text"
            raise ImageError(
                f"{what} follows the end record of the HEX file, in line {number}",
                hint=f"give the signed application alone: cut off what follows line {end + 1}",
            )
    nor, part = reference_layout().board.nor, reference_layout().partition("application")
    start = nor.base + part.offset
    first, last = hexfile.minaddr(), hexfile.maxaddr()
    if first is None or last is None:
        raise ImageError("the HEX file is empty", hint="get or convert it again")
    hint = (
        f"use a file with the signed application, at 0x{start:08x}: "
        "`unbrick image convert` makes one"
    )
    if first >= nor.base + nor.size:
        raise ImageError(
            f"the HEX file is not for this board: it begins at 0x{first:08x}, "
            "where the terminal has no NOR",
            hint=hint,
        )
    if first < start or last >= start + part.size:
        raise ImageError(
            f"the HEX file reaches out of the application partition: "
            f"0x{first:08x} to 0x{last:08x}, not in 0x{start:08x} to 0x{start + part.size - 1:08x}",
            hint=hint,
        )
    if first != start:
        raise ImageError(f"the HEX file begins at 0x{first:08x}, not at 0x{start:08x}", hint=hint)
    hexfile.padding = _GAP
    return bytes(hexfile.tobinarray(start=start, end=last))


def read_image(path: Path) -> bytes:
    """The image in a file: Intel HEX when it is named ``.hex`` or ``.ihex`` or begins with a
    colon, otherwise binary. It is not inspected.

    Raises:
        SetupError: it cannot be read.
        ImageError: see ``from_hex``.
    """
    data = read_bounded(path)
    if path.suffix.lower() not in {".hex", ".ihex"} and not data.startswith(b":"):
        return data
    other = None if data.startswith(b":") else identify_other_file(data)
    if other is not None:
        raise ImageError(f"{path} is {other}", hint=other.hint)
    if len(data) > _HEX_LIMIT:
        raise ImageError(
            f"{path} is too large for an application: {len(data)} bytes of HEX",
            hint="convert the application alone, not a whole NOR",
        )
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise ImageError(
            f"{path} is not Intel HEX: it holds bytes that are no text",
            hint="give a HEX file, or rename a binary image to .bin",
        ) from None
    return from_hex(text)
