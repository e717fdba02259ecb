"""Writes values at the store's console, and demands each one that was ever acknowledged or read.

What the store has acknowledged is remembered over power cuts, as the number of values.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from unbrick.target.console import DriverConsole, Wait

BEFORE = {"name": "Ada", "motto": "slow and sure, " * 8 + "slow"}
"""What the store holds before; `build.py` puts it there."""

WANTED = (("name", "Bob"), ("note", "n" * 100), ("name", "Carol"))
"""What is written, in this order."""


def ask(console: DriverConsole, line: str) -> Generator[Wait, Any, str]:
    """Type a request when the store waits for one; the answer."""
    yield console.until("> ", within=10.0)
    console.write(f"{line}\r")
    answer = yield console.until("\r\n", within=10.0)
    return answer.decode(errors="replace").removesuffix("\r\n")


def read(console: DriverConsole, key: str) -> Generator[Wait, Any, str | None]:
    """What the store has for a key; None: nothing."""
    answer = yield from ask(console, f"get {key}")
    return answer.removeprefix("is ") if answer != "nothing" else None


def update(console: DriverConsole, *_: object) -> Generator[Wait, Any, None]:
    """Look at all that must be there, and write what is not acknowledged yet."""
    if (yield console.until("\r\n")) != b"the store is open\r\n":
        console.give_up("the store does not open")
    done = int(console.remembered or 0)
    held = {**BEFORE, **dict(WANTED[:done])}
    coming_key, coming = WANTED[done] if done < len(WANTED) else ("", "")
    for key in dict.fromkeys([*BEFORE, *dict(WANTED)]):
        found = yield from read(console, key)
        if key == coming_key and found == coming:
            done += 1
            console.remember(str(done))
        elif found != held.get(key):
            console.give_up(f"{key} is {found!r}, and must be {held.get(key)!r}")
    for key, value in WANTED[done:]:
        if (yield from ask(console, f"put {key} {value}")) != "ok":
            console.give_up(f"the store does not take {key}")
        done += 1
        console.remember(str(done))
    yield console.until("> ", within=10.0)
    console.write("bye\r")
