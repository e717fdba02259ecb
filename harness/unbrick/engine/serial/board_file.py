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
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.board import BOARD
from unbrick.engine.serial.power import RELAY_CHANNELS, CommandPower, LabgridPower, RelayPower
from unbrick.errors import SetupError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.serial.power import Power

VARIABLE = "UNBRICK_BOARD"
DEFAULT = "board.toml"
PLACEHOLDER = "{file}"
SIZE_LIMIT = 64 * 1024  # bytes


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


def read_board_file(path: Path) -> BoardFile:
    """Read and check a board file.

    Raises:
        SetupError: it is not as it must be; says which entry.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT)
        entries = _Entries(path, "", tomllib.loads(raw.decode()))
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", hint="check --board") from None
    except ValueError as error:
        raise SetupError(f"{path} is not TOML: {error}", hint="correct it") from None
    folder = path.absolute().parent
    nor = entries.table("nor")
    board = BoardFile(
        folder=folder,
        wire=entries.text("wire"),
        modem=entries.text("modem"),
        baud=entries.number("baud", BOARD.baud, 1, 10_000_000),
        make_power=_power(entries.table("power"), folder),
        load=nor.command("load", file=True),
        read=nor.command("read", file=True),
    )
    for table in (entries, nor):
        table.all_used()
    return board


def _power(entries: _Entries, folder: Path) -> Callable[[], Power]:
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
        on, off = entries.command("on"), entries.command("off")
        if on is None or off is None:
            raise entries.wrong("says not how", "give `on` and `off`, or `relay`, or `labgrid`")
        make = lambda: CommandPower(on, off, folder)  # noqa: E731
    entries.all_used()
    return make


class _Entries:
    """A table of the file, whose entries are taken one by one."""

    def __init__(self, path: Path, name: str, values: dict[str, Any]) -> None:
        self._path, self._name, self._left = path, name, dict(values)

    def wrong(self, what: str, hint: str) -> SetupError:
        """The error about this table."""
        where = f"[{self._name}] of {self._path}" if self._name else str(self._path)
        return SetupError(f"{where} {what}", hint=hint)

    def has(self, key: str) -> bool:
        return key in self._left

    def _take(self, key: str, kind: type, words: str, default: object) -> Any:
        value = self._left.pop(key, default)
        if type(value) is not kind:
            what = "is missing" if value is None else f"is not {words}"
            raise self.wrong(f"is wrong: `{key}` {what}", f"give `{key}` as {words}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._take(key, str, "a text", default))

    def flag(self, key: str) -> bool:
        return bool(self._take(key, bool, "true or false", default=False))

    def number(self, key: str, default: int, least: int, most: int) -> int:
        value = int(self._take(key, int, "a number", default))
        if not least <= value <= most:
            raise self.wrong(f"is wrong: `{key}` is {value}", f"choose {least} to {most}")
        return value

    def table(self, key: str) -> _Entries:
        return _Entries(self._path, key, self._take(key, dict, "a table", {}))

    def command(self, key: str, *, file: bool = False) -> tuple[str, ...] | None:
        """A command in words; with ``file`` it must have the place for a file's name."""
        if not self.has(key):
            return None
        try:
            words = tuple(shlex.split(self.text(key)))
        except ValueError as error:
            raise self.wrong(f"is wrong: `{key}`: {error}", "correct the command") from None
        if not words or (file and not any(PLACEHOLDER in word for word in words)):
            raise self.wrong(f"is wrong: `{key}` has no {PLACEHOLDER}", "write where it belongs")
        return words

    def all_used(self) -> None:
        """Complain about an entry that nothing asked for: likely a slip of the pen."""
        if self._left:
            raise self.wrong(f"has an unknown entry `{min(self._left)}`", "correct its name")
