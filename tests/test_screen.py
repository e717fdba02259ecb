"""Tables fit a window of 80 columns, and are whole where there is no window."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from unbrick.screen import Column, FittedTable

SERIAL, SOFTWARE, WHY = "UB-000001", "unbrick-terminal 1.0.0+0", "a reason of many words " * 5
TABLE = FittedTable(
    [
        Column("serial"),
        Column("software", dispensable=True),
        Column("why", wraps=True),
        Column("built", dispensable=True),
    ],
    [[SERIAL, SOFTWARE, WHY, "2026-01-12T09:00:00Z"], ["[bold]", SOFTWARE, "", ""]],
    "A title",
)


def shown(width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as text:
        console.print(TABLE)
    return text.get().splitlines()


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40])
def test_a_table_fits_its_window_and_cuts_nothing(width: int) -> None:
    lines = shown(width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert SERIAL in text
    assert "[bold]" in text, "nothing is taken for markup"
    assert text.count("reason") == 5
    left_out = "too narrow for" in text
    for name, cell in (("software", SOFTWARE), ("built", "2026-01-12T09:00:00Z")):
        assert (cell in text) or (left_out and name in text.split("too narrow for")[1])


def test_what_can_be_missed_is_left_out_from_the_right() -> None:
    assert "too narrow" not in "".join(shown(200))
    assert any("The window is too narrow for: built. A pipe" in line for line in shown(70))
    assert any("too narrow for: software, built." in line for line in shown(60))


def test_even_a_window_for_nothing_at_all_shows_every_letter() -> None:
    text = "".join("".join(shown(6)).split())
    assert all(letter in text for letter in set(SERIAL))


SCRIPT = """
from unbrick.screen import Column, FittedTable, open_screen, open_status
for screen in (open_screen(), open_status()):
    screen.print(FittedTable([Column("a"), Column("b", wraps=True)], [["x" * 200, "word " * 100]]))
    screen.print("y" * 300)
"""


def test_what_goes_into_a_pipe_is_one_line_however_long_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    for text in (done.stdout, done.stderr):
        heading, row, line = text.splitlines()
        assert heading.split() == ["a", "b"]
        assert row.split() == ["x" * 200, *["word"] * 100]
        assert line == "y" * 300
