"""The board file: where a real board's ports are, and how its power is switched.

``docs/real-boards.md`` explains it::

    wire = "/dev/ttyUSB0"
    modem = "/dev/ttyUSB1"

    [power]
    on = "uhubctl -l 1-1 -p 2 -a on"
    off = "uhubctl -l 1-1 -p 2 -a off"

    [nor]
    load = "flash-my-board write {file}"
    read = "flash-my-board read {file}"
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.engine.serial.power import RELAY_CHANNELS, CommandPower, LabgridPower, RelayPower
from unbrick.errors import SetupError
from unbrick.tables import Entries, read_toml

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.serial.power import Power

VARIABLE = "UNBRICK_BOARD"
DEFAULT = "board.toml"
PLACEHOLDER = "{file}"


@dataclass(frozen=True)
class BoardFile:
    """What a board file says.

    Attributes:
        folder: of the file; commands run there.
        wire, modem: ports of UART0 and UART1, as :class:`~unbrick.engine.serial.engine.SerialLine`
            takes them.
        baud: bits a second.
        make_power: makes what switches the power.
        load, read: commands, in words, that write the NOR from a file and the other way; or None.
    """

    folder: Path
    wire: str
    modem: str
    baud: int
    make_power: Callable[[], Power]
    load: tuple[str, ...] | None
    read: tuple[str, ...] | None


def find_board_file(given: Path | None = None) -> Path:
    """The board file: ``given``, or ``$UNBRICK_BOARD``, or ``board.toml`` in this folder.

    Raises:
        SetupError: there is none.
    """
    path = given or Path(os.environ.get(VARIABLE) or DEFAULT)
    if not path.is_file():
        raise SetupError(
            f"there is no board file {path}",
            hint=f"name one with --board or {VARIABLE}; docs/real-boards.md says what is in it",
        )
    return path


def read_board_file(path: Path, baud: int) -> BoardFile:
    """Read and check a board file.

    Args:
        path: of the file.
        baud: bits a second of the lines, if the file does not say it.

    Raises:
        SetupError: it is not as it must be; says which entry.
    """
    entries = read_toml(path, "check --board")
    folder = path.absolute().parent
    nor = entries.table("nor")
    board = BoardFile(
        folder=folder,
        wire=entries.text("wire"),
        modem=entries.text("modem"),
        baud=entries.number("baud", baud, 1, 10_000_000),
        make_power=_power(entries.table("power"), folder),
        load=_command(nor, "load", file=True),
        read=_command(nor, "read", file=True),
    )
    for table in (entries, nor):
        table.all_used()
    return board


def _power(entries: Entries, folder: Path) -> Callable[[], Power]:
    """The one of the three ways that the table describes."""
    make: Callable[[], Power]
    if entries.has("relay"):
        port, channel = entries.text("relay"), entries.number("channel", 1, 1, RELAY_CHANNELS)
        inverted = entries.flag("inverted")
        make = lambda: RelayPower(port, channel, inverted=inverted)  # noqa: E731
    elif entries.has("labgrid"):
        environment, target = folder / entries.text("labgrid"), entries.text("target", "main")
        make = lambda: LabgridPower(environment, target)  # noqa: E731
    else:
        on, off = _command(entries, "on"), _command(entries, "off")
        if on is None or off is None:
            raise entries.wrong("says not how", "give `on` and `off`, or `relay`, or `labgrid`")
        make = lambda: CommandPower(on, off, folder)  # noqa: E731
    entries.all_used()
    return make


def _command(entries: Entries, key: str, *, file: bool = False) -> tuple[str, ...] | None:
    """A command in words; with ``file`` it must have the place for a file's name."""
    if not entries.has(key):
        return None
    try:
        words = tuple(shlex.split(entries.text(key)))
    except ValueError as error:
        raise entries.wrong(f"is wrong: `{key}`: {error}", "correct the command") from None
    if not words or (file and not any(PLACEHOLDER in word for word in words)):
        raise entries.wrong(f"is wrong: `{key}` has no {PLACEHOLDER}", "write where it belongs")
    return words
