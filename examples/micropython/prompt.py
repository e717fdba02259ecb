"""Types at MicroPython's prompt: writes a file, then reads it and the one that was there before."""

from __future__ import annotations

from collections.abc import Iterator

from unbrick.target.console import DriverConsole

LINES = (
    "f=open('new','w');f.write('x'*200);f.close()",
    "print('ke'+'pt:',open('kept').read(),len(open('new').read()))",
)


def update(console: DriverConsole, *_: object) -> Iterator[object]:
    """Type each line when the prompt is there."""
    for line in LINES:
        console.write(line.encode() + b"\r")
        yield console.until(">>> ", within=10.0)
