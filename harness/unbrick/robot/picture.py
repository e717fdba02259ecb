"""The NOR as a picture: what is in each block, and what has changed. SVG, for ``log.html``."""

from __future__ import annotations

from collections import Counter
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unbrick.flash.ops import FlashOp

CELL = 2048  # bytes that one column stands for
BLANK = b"\xff" * CELL
COLOURS = {
    "as before": "#8fa3b8",
    "written since": "#2a78d6",
    "erased since": "#e09a00",
}

_LEFT, _ROW, _COLUMN, _TOP = 104, 17, 4, 24


def name_block(number: int) -> str:
    """What people call a block: the partition it is in, and which of its blocks it is."""
    layout = reference_layout()
    size = layout.board.nor.block_size
    offset = number * size
    for part in layout.partitions:
        if part.offset <= offset < part.end:
            index = (offset - part.offset) // size
            return part.name if part.size == size else f"{part.name} {index}"
    return f"spare {number}"


def draw_nor_picture(nor: bytes, before: bytes, ops: Iterable[FlashOp] = ()) -> str:
    """The blocks of the NOR, from left to right what is in them, compared with ``before``.

    Args:
        nor: the contents.
        before: the contents to compare with, as long.
        ops: flash operations in between; they are counted for each block.
    """
    size = reference_layout().board.nor.block_size
    done = Counter((op.offset // size, op.kind == "erase") for op in ops)
    width = _LEFT + _COLUMN * (size // CELL)
    rows: list[str] = []
    for number in range(len(nor) // size):
        part = slice(number * size, (number + 1) * size)
        now, then = nor[part], before[part]
        name = name_block(number)
        if name.startswith("spare") and not (now + then).strip(b"\xff"):
            continue
        y = _TOP + _ROW * len(rows)
        counts = ((done[number, True], "erased"), (done[number, False], "programmed"))
        counted = ", ".join(
            f"{word} {count}\N{MULTIPLICATION SIGN}" for count, word in counts if count
        )
        rows.append(
            f"<text x='{_LEFT - 6}' y='{y + 11}' text-anchor='end'>{escape(name)}</text>"
            f"<rect x='{_LEFT}' y='{y}' width='{width - _LEFT}' height='{_ROW - 4}' fill='none' "
            f"stroke='currentColor' stroke-opacity='.35'/>{_cells(now, then, y)}"
            f"<text x='{width + 8}' y='{y + 11}'>{counted}</text>"
        )
    height = _TOP + _ROW * len(rows)
    key = "".join(
        f"<rect x='{_LEFT + 120 * i}' y='4' width='11' height='11' fill='{colour}'/>"
        f"<text x='{_LEFT + 16 + 120 * i}' y='14'>{text}</text>"
        for i, (text, colour) in enumerate(COLOURS.items())
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width + 200}' height='{height}' "
        "role='img' fill='currentColor' font-family='system-ui,sans-serif' font-size='11'>"
        f"<title>the NOR, a row for each block of {size // 1024} KiB</title>{key}{''.join(rows)}"
        "</svg>"
    )


def _cells(now: bytes, then: bytes, y: int) -> str:
    kinds = [
        _kind(now[at : at + CELL], then[at : at + CELL], BLANK) for at in range(0, len(now), CELL)
    ]
    out, column = [], 0
    for kind, run in groupby(kinds):
        length = len(list(run))
        if kind:
            first = column * CELL
            title = f"{kind}: {first:#x} to {first + length * CELL - 1:#x} of the block"
            out.append(
                f"<rect x='{_LEFT + _COLUMN * column}' y='{y + 1}' width='{_COLUMN * length}' "
                f"height='{_ROW - 6}' fill='{COLOURS[kind]}'><title>{title}</title></rect>"
            )
        column += length
    return "".join(out)


def _kind(now: bytes, then: bytes, blank: bytes) -> str:
    if now == then:
        return "" if now == blank else "as before"
    return "erased since" if now == blank else "written since"
