"""Output for people: tables and lines that fit the window, and are whole where there is none.

Only a window has a width. Into a pipe or a file every line goes as it is, however long it is. So
other programs find in it what they look for.

Rich is slow to import, so it is where something is shown.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
    from rich.table import Table
    from rich.text import Text

UNBOUNDED = 100_000
"""Columns where there is no window: more than any line has."""

GAP = 2
"""Blanks between two columns of a table."""

WRAPPED = 24
"""Columns of the window that a cell with several lines gets at least."""


def open_screen() -> Console:
    """Standard output."""
    from rich.console import Console  # noqa: PLC0415

    return Console(width=None if sys.stdout.isatty() else UNBOUNDED, highlight=False)


def open_status() -> Console:
    """Standard error, for a person who waits."""
    from rich.console import Console  # noqa: PLC0415

    return Console(width=None if sys.stderr.isatty() else UNBOUNDED, highlight=False, stderr=True)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: its first line.
        wraps: whether its cells may take several lines. Words that a person types again may not.
        dispensable: whether it is left out where the window is too narrow. The last one goes first.
        justify: as Rich has it.
    """

    heading: str
    wraps: bool = False
    dispensable: bool = False
    justify: JustifyMethod = "left"


class FittedTable:
    """A table that leaves out dispensable columns before it cuts others.

    Args:
        columns: from left to right.
        rows: the cells of each row, of which there are as many as columns.
        title: a line above it.
    """

    def __init__(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], title: str = ""
    ) -> None:
        self._columns, self._rows, self._title = columns, rows, title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out for a window."""
        from rich.text import Text  # noqa: PLC0415

        del console
        shown = list(range(len(self._columns)))
        left_out: list[str] = []
        while not (fits := self._width(shown) <= options.max_width):
            spare = [number for number in shown if self._columns[number].dispensable]
            if not spare:
                break
            shown.remove(spare[-1])
            left_out.insert(0, self._columns[spare[-1]].heading)
        if self._title:
            yield Text(self._title, style="italic")
        yield self._table(shown, fits=fits)
        if left_out:
            names = ", ".join(left_out)
            yield Text(f"The window is too narrow for: {names}. A pipe gets it all.", style="dim")

    def _width(self, shown: Sequence[int]) -> int:
        """Columns of the window that the table needs at least."""
        return sum(self._column_width(number) + GAP for number in shown) - GAP

    def _column_width(self, number: int) -> int:
        column = self._columns[number]
        cells = [_text(column.heading), *(_text(row[number]) for row in self._rows)]
        widest = max(cell.cell_len for cell in cells)
        return min(widest, WRAPPED) if column.wraps else widest

    def _table(self, shown: Sequence[int], *, fits: bool) -> Table:
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        for column in (self._columns[number] for number in shown):
            table.add_column(
                _text(column.heading),
                justify=column.justify,
                no_wrap=fits and not column.wraps,  # Rich cuts words that neither fit nor may wrap.
                overflow="fold",
            )
        for row in self._rows:
            table.add_row(*(_text(row[number]) for number in shown))
        return table


def _text(cell: str | Text) -> Text:
    from rich.text import Text  # noqa: PLC0415

    return cell if isinstance(cell, Text) else Text(cell)
