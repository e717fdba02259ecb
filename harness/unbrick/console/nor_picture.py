"""A picture of the NOR for a person: partitions, how full they are, and changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from unbrick.errors import ImageError
from unbrick.image.factory import read_identity
from unbrick.image.format import inspect
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from unbrick.flash.partition import Partition

CELL = 8192  # bytes that one character stands for
SHADES = "·░▒▓█"  # blank, then by quarters
WHAT_WIDTH = 26
"""Columns of a window of 80 that are left for a partition's contents."""

_COLOURS = {
    "boot": "cyan",
    "identity": "magenta",
    "journal": "yellow",
    "application": "green",
    "userdata": "blue",
}


def draw_nor_picture(nor: bytes, before: bytes | None = None) -> Table:
    """One line for each erase block. Differences from ``before`` are shown in reverse.

    Texts that are too long for it are in :func:`list_picture_notes`.
    """
    table = Table(
        title=f"NOR, one character for {CELL // 1024} KiB: {SHADES[0]} blank, {SHADES[-1]} written",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in ("offset", "partition", "contents", "what"):
        table.add_column(name, no_wrap=True)
    layout = reference_layout()
    size = layout.board.nor.block_size
    for offset in range(0, len(nor), size):
        block = nor[offset : offset + size]
        part = next((p for p in layout.partitions if p.offset <= offset < p.end), None)
        name = part.name if part else "spare"
        style = _COLOURS.get(name, "dim")
        cells = Text(style=style)
        for at in range(0, len(block), CELL):
            cell = block[at : at + CELL]
            changed = before is not None and before[offset + at : offset + at + CELL] != cell
            cells.append(_shade(cell), style="reverse" if changed else "")
        first = part is not None and part.offset == offset
        what = _what(nor, part) if part is not None and first else ""
        what = what if len(what) <= WHAT_WIDTH else "see below"
        table.add_row(f"{offset:#08x}", Text(name, style=style), cells, Text(what))
    return table


def list_picture_notes(nor: bytes) -> list[str]:
    """Texts for which the picture has no room, line by line."""
    found = {part.name: _what(nor, part) for part in reference_layout().partitions}
    return [f"{name}: {what}" for name, what in found.items() if len(what) > WHAT_WIDTH]


def _shade(cell: bytes) -> str:
    written = len(cell) - cell.count(0xFF)
    return SHADES[-(-written * (len(SHADES) - 1) // len(cell))]


def _what(nor: bytes, part: Partition) -> str:
    """A partition's contents, in a few words."""
    area = nor[part.offset : part.end]
    if not area.rstrip(b"\xff"):
        return "blank"
    try:
        if part.name == "identity":
            return read_identity(nor).serial
        if part.name == "application":
            info = inspect(area, trailing=True)
            return f"{info.name} {info.version}"
    except ImageError as error:
        return str(error)
    return ""
