"""Types at U-Boot's prompt: looks for the variable, sets it anew, and saves it."""

from __future__ import annotations

from collections.abc import Generator

from unbrick.target.console import DriverConsole

PROMPT, WITHIN_S = "=> ", 30.0


def update(console: DriverConsole, *_: object) -> Generator[object, bytes, None]:
    """The variable must be there after each power cut: as it was, or as it is to be."""
    console.write("\r")
    yield console.until(PROMPT, within=WITHIN_S)
    console.write("printenv note\r")
    said = yield console.until(PROMPT, within=WITHIN_S)
    if b"note=one" not in said and b"note=two" not in said:
        console.give_up("the environment is lost")
    for line in ("setenv note two", "saveenv", "printenv note"):
        console.write(f"{line}\r")
        yield console.until(PROMPT, within=WITHIN_S)
