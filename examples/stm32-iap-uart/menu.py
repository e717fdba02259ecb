"""Works with the menu of stm32-iap-uart-boot: has it take a program by YMODEM, or something else.

The option ``command`` is what is typed at the menu (``update``).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from unbrick.target.console import DriverConsole, Wait
from unbrick.target.description import FirmwareFile
from unbrick.target.drivers import ymodem

MENU_END, INVITATION, STARTED = b"runapp\r\n", b"C", b"Run to app."
SILENT_S = 5.0
KEY_S = 0.002
"""Between two keys: the bootloader echoes, and loses what comes meanwhile."""


def update(
    console: DriverConsole, payload: FirmwareFile, options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Have the program taken; nothing, if one is started already."""
    command = options.get("command", "update")
    heard = yield from _listen(console)
    if heard.endswith(MENU_END):
        yield from _type(console, command)
        if command != "update":
            yield from _listen(console)
            return
    if STARTED not in heard:
        yield from ymodem.update(console, payload, {})


def _listen(console: DriverConsole) -> Generator[Wait, Any, bytes]:
    """What it says, until it starts a program or wants something."""
    heard = b""
    while not heard.endswith((MENU_END, INVITATION, STARTED)):
        came = yield console.read(1, SILENT_S)
        if not came:
            console.give_up(f"the bootloader says nothing for {SILENT_S:g} s")
        heard += came
    return heard


def _type(console: DriverConsole, command: str) -> Generator[Wait, Any, None]:
    for key in f"{command}\r\n":
        console.write(key)
        yield console.pause(KEY_S)
