"""Pictures of a NOR, or a chip's flash, for a person: how full it is, and what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from unbrick.errors import ImageError
from unbrick.image.factory import read_identity
from unbrick.image.format import inspect
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.board.mcu import McuChip
    from unbrick.flash.partition import Partition

CELL = 8192  # bytes that one character stands for
SHADES = "·░▒▓█"  # blank, then by quarters
WHAT_WIDTH = 26
"""Columns of a window of 80 that are left for a partition's contents."""

ROW_CELLS = 32
"""Characters of a line of a chip's picture."""
MOST_CELLS = 256
"""Characters for a chip's main flash at most: it fills eight lines."""

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
    table = _new_table("NOR", CELL, ("offset", "partition", "contents", "what"))
    layout = reference_layout()
    size = layout.board.nor.block_size
    for offset in range(0, len(nor), size):
        part = next((p for p in layout.partitions if p.offset <= offset < p.end), None)
        name = part.name if part else "spare"
        style = _COLOURS.get(name, "dim")
        cells = _draw(nor, before, range(offset, min(offset + size, len(nor)), CELL), style)
        first = part is not None and part.offset == offset
        what = _what(nor, part) if part is not None and first else ""
        what = what if len(what) <= WHAT_WIDTH else "see below"
        table.add_row(f"{offset:#08x}", Text(name, style=style), cells, Text(what))
    return table


def draw_chip_picture(
    image: bytes, chip: McuChip, partitions: Sequence[Partition], before: bytes | None = None
) -> Table:
    """All flash of a chip, by addresses. Differences from ``before`` are shown in reverse.

    Args:
        image: all its flash, one region after the other.
        chip: what has which flash.
        partitions: are named where they begin, by their offsets in the image.
        before: an earlier image; None: there is none.
    """
    cell = 256
    while chip.main.size > cell * MOST_CELLS:
        cell *= 2
    table = _new_table("flash", cell, ("address", "partition", "contents"))
    for region, first in chip.placed_flash:
        end = first + region.size
        for offset in range(first, end, ROW_CELLS * cell):
            row = range(offset, min(offset + ROW_CELLS * cell, end), cell)
            names = [part.name for part in partitions if offset <= part.offset < row.stop]
            address = f"{region.base + offset - first:#010x}"
            table.add_row(address, Text(", ".join(names)), _draw(image, before, row))
    return table


def _new_table(what: str, cell: int, columns: Sequence[str]) -> Table:
    """An empty picture; ``cell``: bytes that one character stands for."""
    size = f"{cell // 1024} KiB" if cell >= 1024 else f"{cell} bytes"
    table = Table(
        title=f"{what}, one character for {size}: {SHADES[0]} blank, {SHADES[-1]} written",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _draw(image: bytes, before: bytes | None, row: range, style: str = "") -> Text:
    """A character for each step of ``row``, in reverse where ``before`` differs."""
    cells = Text(style=style)
    for at in row:
        part = slice(at, min(at + row.step, row.stop))
        changed = before is not None and before[part] != image[part]
        cells.append(_shade(image[part]), style="reverse" if changed else "")
    return cells


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
