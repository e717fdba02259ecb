"""The commands of the bench's prompt, for the reference terminal and for chips."""

from __future__ import annotations

import cmd
import io
import shlex
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from unbrick.console.nor_picture import (
    draw_chip_picture,
    draw_nor_picture,
    list_picture_notes,
)
from unbrick.console.state import check_place, read_nor, read_terminal_nor, write_nor
from unbrick.errors import NotKnownHereError, SetupError, UnbrickError
from unbrick.lock import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from unbrick.board.mcu import McuChip
    from unbrick.console.air import Air
    from unbrick.console.power import PowerSwitch
    from unbrick.flash.partition import Partition

DOWNGRADE = "--downgrade"
PICTURE_SIZE = 80, 25  # characters: what every window has
_ARGUMENTS = {
    "cut": "[next [N]]",
    "help": "[COMMAND]",
    "link": "up|down",
    "load": "FILE",
    "message": "TEXT",
    "save": "FILE",
    "update": "VERSION",
}


class Commands(cmd.Cmd, ABC):
    """The commands for whatever has power and a NOR, one method each, whose docstring is its help.

    Args:
        power: of the terminal.
        say: called with lines for a person.
        debugger: how to start a debugger; empty when there is no server for one.
        colour: whether colours can be shown.

    Attributes:
        ended: whether the person wants to leave.
        not_saved: what the NOR does not keep.
    """

    not_saved = "RAM, CPU, what is on the lines"

    def __init__(
        self,
        power: PowerSwitch,
        say: Callable[[str], None],
        *,
        debugger: str = "",
        colour: bool = False,
    ) -> None:
        super().__init__(stdin=io.StringIO(), stdout=io.StringIO())
        self._power, self._say, self._colour = power, say, colour
        self._debugger = debugger
        self._seen: bytes | None = None
        self.ended = False

    def run(self, line: str) -> None:
        """Carry out one line. Errors are said, not raised."""
        try:
            self.onecmd(line)
        except UnbrickError as error:
            message = str(error).partition("\n")[0]
            self._say(f"{message}: {error.hint}" if error.hint else message)

    def onecmd(self, line: str) -> bool:
        """As :meth:`cmd.Cmd.onecmd`. A command may be shortened as long as it is the only one."""
        word, _, rest = line.strip().partition(" ")
        fits = [name for name in self._names() if name.startswith(word)]
        if word and len(fits) == 1:
            word = fits[0]
        super().onecmd(f"{word} {rest}".strip())
        return self.ended

    def _names(self) -> list[str]:
        return _list_commands(type(self))

    def emptyline(self) -> bool:
        """Do nothing."""
        return False

    def default(self, line: str) -> None:
        """Say that there is no such command."""
        self._say(f"no command {line.partition(' ')[0]!r}: type help")

    def do_help(self, arg: str) -> None:
        """List what can be done."""
        for name in [arg] if arg in self._names() else self._names():
            purpose = (getattr(self, f"do_{name}").__doc__ or "").rstrip(".")
            usage = f"{name} {_ARGUMENTS.get(name, '')}"
            self._say(f"{usage:<16} {purpose[:1].lower()}{purpose[1:]}")
        if not arg:
            self._say("C-a twice sends it to the terminal; Ctrl-C leaves this prompt")

    def do_cut(self, arg: str) -> None:
        """Cut the power now, or at the next (the N-th next) flash operation."""
        match arg.split():
            case []:
                self._power.cut()
            case ["next", *number] if len(number) <= 1:
                self._power.arm(_count(number[0]) if number else 1)
                how = "just before" if self._power.exact else "as soon as this engine sees"
                self._say(f"the power goes {how} it; `cut never` takes that back")
            case ["never"]:
                self._power.disarm()
            case _:
                raise SetupError(f"cannot cut {arg!r}", hint="type cut, cut next, or cut next 3")

    def do_on(self, arg: str) -> None:
        """Give the power back."""
        del arg
        self._power.on()

    def do_restart(self, arg: str) -> None:
        """Cut the power and give it back."""
        del arg
        self._power.cut(then="")
        self._power.on()

    def do_nor(self, arg: str) -> None:
        """Show a picture of the NOR; what has changed since the last one is in reverse."""
        del arg
        cells = self._power.engine.read_nor()
        width, height = PICTURE_SIZE
        console = Console(
            file=io.StringIO(),
            width=width,
            height=height,
            force_terminal=self._colour,
            color_system="standard" if self._colour else None,
            legacy_windows=False,
        )
        picture, notes = self._picture(cells)
        with console.capture() as drawn:
            console.print(picture)
        self._seen = cells
        self._say("\n".join([*(line.rstrip() for line in drawn.get().splitlines()), *notes]))

    def do_save(self, arg: str) -> None:
        """Write the NOR's contents as they are now."""
        path = _file(arg)
        check_place(path, self._power.engine.board.nor.modelled)
        with owned(path, hint="choose another file"):
            write_nor(path, self._power.engine.read_nor())
        self._say(f"saved the NOR to {path} (not saved: {self.not_saved})")

    def do_load(self, arg: str) -> None:
        """Cut the power, replace the NOR's contents, and start."""
        path = _file(arg)
        cells = self._read(path)
        self._power.cut(then="")
        try:
            self._power.engine.load_nor(cells)
        finally:
            self._power.on()
        self._say(f"loaded the NOR from {path}")

    def do_gdb(self, arg: str) -> None:
        """Say how to start a debugger."""
        del arg
        if not self._debugger:
            raise SetupError("there is no debugger's port", hint="start this with --gdb PORT")
        self._say(self._debugger)

    def do_quit(self, arg: str) -> None:
        """Switch the terminal off and leave."""
        del arg
        self.ended = True

    @abstractmethod
    def _picture(self, cells: bytes) -> tuple[Table, list[str]]:
        """The contents of the NOR as a picture, and texts for which that has no room."""

    @abstractmethod
    def _read(self, path: Path) -> bytes:
        """A file with such contents, checked."""


class TerminalCommands(Commands):
    """What there is at the reference terminal's console, too.

    Args:
        power: of the terminal.
        air: its link and server; None when the modem is a port for others.
        say: called with lines for a person.
        debugger: how to start a debugger; empty when there is no server for one.
        colour: whether colours can be shown.
    """

    not_saved = "SRAM, CPU, what is on the lines, what the server knows"

    def __init__(
        self,
        power: PowerSwitch,
        air: Air | None,
        say: Callable[[str], None],
        *,
        debugger: str = "",
        colour: bool = False,
    ) -> None:
        super().__init__(power, say, debugger=debugger, colour=colour)
        self._air = air

    def do_link(self, arg: str) -> None:
        """Let the wireless link carry everything, or nothing."""
        if arg not in {"up", "down"}:
            raise SetupError("up or down?", hint="type link up, or link down")
        self._need_air().set_up(up=arg == "up")
        self._say(f"the link is {arg}")

    def do_message(self, arg: str) -> None:
        """Have the server send a text message to the terminal's user."""
        self._need_air().send_text(arg)

    def do_update(self, arg: str) -> None:
        """Publish a release, update the terminal to it; to an older one with --downgrade."""
        words = arg.split()
        downgrade = DOWNGRADE in words
        version = " ".join(word for word in words if word != DOWNGRADE)
        number = self._need_air().update(version, downgrade=downgrade)
        self._say(f"server: update {number} to {version} is announced")

    def _need_air(self) -> Air:
        if self._air is None:
            raise SetupError(
                "the modem is a port: link and server are elsewhere",
                hint="use `unbrick bridge` and `unbrick server`, or leave out --modem",
            )
        return self._air

    def _picture(self, cells: bytes) -> tuple[Table, list[str]]:
        return draw_nor_picture(cells, self._seen), list_picture_notes(cells)

    def _read(self, path: Path) -> bytes:
        return read_terminal_nor(path)


class ChipCommands(Commands):
    """What there is at the console of a target's chip.

    Args:
        power: of the chip.
        chip: what it is.
        press_reset: resets it by its pin.
        partitions: of its flash, for the picture.
        say: called with lines for a person.
        debugger: how to start a debugger; empty when there is no server for one.
        colour: whether colours can be shown.
    """

    def __init__(
        self,
        power: PowerSwitch,
        chip: McuChip,
        press_reset: Callable[[], None],
        partitions: Sequence[Partition],
        say: Callable[[str], None],
        *,
        debugger: str = "",
        colour: bool = False,
    ) -> None:
        super().__init__(power, say, debugger=debugger, colour=colour)
        self._chip, self._press_reset, self._partitions = chip, press_reset, partitions

    def default(self, line: str) -> None:
        """Say that there is no such command, or not here."""
        word = line.partition(" ")[0]
        others = {*_list_commands(TerminalCommands)} - {*self._names()}
        meant = [name for name in others if name.startswith(word)]
        if len(meant) == 1:
            raise NotKnownHereError(
                f"`{meant[0]}` is not known for this target",
                hint="only the reference terminal has it",
            )
        super().default(line)

    def do_reset(self, arg: str) -> None:
        """Press the reset button: the RAM keeps what it holds."""
        del arg
        self._power.reset(self._press_reset)

    def _picture(self, cells: bytes) -> tuple[Table, list[str]]:
        return draw_chip_picture(cells, self._chip, self._partitions, self._seen), []

    def _read(self, path: Path) -> bytes:
        return read_nor(path, self._chip.geometry.size)


def _list_commands(kind: type[Commands]) -> list[str]:
    return [name[3:] for name in dir(kind) if name.startswith("do_")]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:10]) < 1 << 32:
        raise SetupError(f"{text!r} is no number of operations", hint="type cut next 3")
    return int(text)


def _file(arg: str) -> Path:
    try:
        words = shlex.split(arg)
    except ValueError:
        words = []
    if len(words) != 1:
        raise SetupError("which file?", hint="give one name; in quotes, if it has blanks")
    return Path(words[0]).expanduser()
