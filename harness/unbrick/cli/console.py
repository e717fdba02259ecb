"""``unbrick console``: a person at the console of a terminal, or of a target's chip."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from unbrick.cli.chip import (
    Lookout,
    find_uarts,
    load_chip_target,
    refuse_chip_options,
    running_chip,
    target_argument,
    uart_option,
)
from unbrick.cli.nor import nor_option
from unbrick.cli.options import firmware_option, live_gdb_option, platform_option, svd_option
from unbrick.cli.run import (
    build_releases,
    engine_option,
    find_symbol_files,
    installed_option,
    open_debugger_port,
    open_port,
    open_uarts,
    serial_option,
    terminal,
    told_to_end,
)
from unbrick.console.commands import ChipCommands, TerminalCommands
from unbrick.console.missed import LatestWords, MissedLines
from unbrick.console.power import PowerSwitch
from unbrick.console.screen import Output, Screen, raw_keyboard
from unbrick.console.session import Session, WireView
from unbrick.console.typist import TypeAfter, Typist
from unbrick.screen import open_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from unbrick.cli.chip import RunningChip
    from unbrick.console.commands import Commands
    from unbrick.console.session import SessionPeer
    from unbrick.engine.base import Engine
    from unbrick.engine.ports import Missed
    from unbrick.target.target import FileTarget


@dataclass(frozen=True)
class _Seat:
    """A person's place at a console.

    Attributes:
        power: of what has the console.
        screen: shows it.
        peers: whoever else talks to it.
        colour: whether colours can be shown.
        raw: whether every key comes as it is typed.
        session: all of them together.
    """

    power: PowerSwitch
    screen: Screen
    peers: list[SessionPeer]
    colour: bool
    raw: bool
    session: Session

    def let_debuggers_in(self, port: int | None, elf_files: Iterable[Path]) -> str:
        """Let debuggers in at a port, if there is to be one, and say how one is started.

        Returns:
            How; empty: there is no port.

        Raises:
            SetupError: nobody can listen there, or the engine knows no debuggers.
        """
        if port is None:
            return ""
        engine, say = self.power.engine, self.screen.say
        return open_debugger_port(engine, port, elf_files, self.session.idle, say)

    def sit(self, commands: Commands) -> None:
        """Switch the power on, and stay until the person leaves."""
        self.session.commands = commands
        if self.raw:
            self.screen.say("C-a is the bench's prompt: `help` lists what it can do, `quit` leaves")
        self.power.on()
        self.session.run()


@click.command(short_help="Sit at the console of a terminal or a chip.")
@target_argument
@engine_option
@firmware_option
@nor_option
@svd_option
@serial_option
@installed_option
@live_gdb_option
@platform_option
@click.option(
    "--pty",
    is_flag=True,
    help="Make the console a pseudo-terminal, for picocom, minicom or tio; here is the bench's "
    "prompt alone.",
)
@click.option(
    "--modem",
    metavar="pty|tcp:PORT",
    help="Make UART1 a port, for `unbrick bridge`. Without it server and link are in this process.",
)
@uart_option
def console(
    target: str | None,
    engine: str,
    firmware: Path,
    nor_file: Path | None,
    svd: Path | None,
    serial: str,
    installed: str,
    gdb_port: int | None,
    platform: Path | None,
    *,
    pty: bool,
    modem: str | None,
    uarts: tuple[str, ...],
) -> None:
    """Run a terminal in real time and sit at its console; a server is there to update it.

    C-a (Ctrl and A) leads to the bench's prompt: cut the power, take down the link, update, look
    at the NOR, quit. `help` there lists it all; C-a twice sends C-a to the terminal.

    What a pipe has typed is typed no faster than the terminal answers, and ends this.

    With a TARGET.toml it is the console of that target's chip (docs/any-firmware.md).
    """
    if target is not None:
        loaded = load_chip_target(target, svd)
        opened = running_chip(loaded, nor_file, engine, platform, debugger=gdb_port is not None)
        _sit_at_chip(loaded, opened, gdb_port, uarts, pty=pty)
        return
    refuse_chip_options(svd, uarts, platform)
    releases = build_releases(firmware, open_status())
    # Server and link, which nobody needs who tests firmware of his own.
    from unbrick.console.air import Air  # noqa: PLC0415

    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        made = stack.enter_context(
            terminal(
                *(engine, releases, nor_file, serial, installed), debugger=gdb_port is not None
            )
        )
        seat = _take_seat(stack, made, Typist(made.wire), MissedLines(), told, pty=pty)
        say = seat.screen.say
        air = None
        if modem is None:
            air = Air(made, releases, say)
            seat.peers.append(air)
        else:
            radio, place = open_port(made.radio, modem, rate=made.board.line_rate)
            stack.callback(radio.close)
            seat.peers.append(radio)
            say(f"modem: {place}")
        files = find_symbol_files(releases, installed)
        debugger = seat.let_debuggers_in(gdb_port, files)
        seat.sit(TerminalCommands(seat.power, air, say, debugger=debugger, colour=seat.colour))


def _sit_at_chip(
    target: FileTarget,
    opened: AbstractContextManager[RunningChip],
    gdb_port: int | None,
    uarts: tuple[str, ...],
    *,
    pty: bool,
) -> None:
    """Sit at the console of a target's chip."""
    found = target.description
    shown = find_uarts(found, uarts)
    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        chip = stack.enter_context(opened)
        rate = chip.engine.board.line_rate
        after = TypeAfter.NOTHING if pty or sys.stdin.isatty() else TypeAfter.FIRST_WORDS
        typist = Typist(chip.engine.wire, rate=rate, after=after)
        seat = _take_seat(stack, chip.engine, typist, LatestWords(), told, pty=pty)
        ports, places = open_uarts(stack, chip, shown)
        for place in places:
            seat.screen.say(place.replace(" ", ": ", 1))
        lookout = Lookout(chip, (one.uart for one in shown), seat.screen.say)
        seat.peers.extend([*ports.values(), lookout])
        seat.sit(
            ChipCommands(
                *(seat.power, found.chip, chip.inner.press_reset, found.partitions),
                seat.screen.say,
                debugger=seat.let_debuggers_in(gdb_port, found.elf_files),
                colour=seat.colour,
            )
        )


def _take_seat(
    stack: ExitStack,
    engine: Engine,
    typist: Typist,
    missed: Missed,
    told: Callable[[], bool],
    *,
    pty: bool,
) -> _Seat:
    """Make ready what a person needs; ``stack`` puts the window in order again."""
    keyboard = sys.stdin.fileno()
    person = sys.stdin.isatty()
    raw = person and not pty
    if raw:
        stack.enter_context(raw_keyboard(keyboard))
    output = Output(sys.stdout.fileno())
    stack.callback(output.close)
    words = output
    if not pty and not (person and sys.stdout.isatty()):
        words = Output(sys.stderr.fileno())
        stack.callback(words.close)
    screen = Screen(output, words, raw=raw)
    peers: list[SessionPeer] = []

    def lost() -> None:
        peers[0].step(engine.now)
        screen.new_line()

    power = PowerSwitch(engine, typist, screen.say, lost)
    session = Session(
        *(power, typist, screen, peers, keyboard), person=person, behind_key=not pty, told=told
    )
    if pty:
        rate = engine.board.line_rate
        port, place = open_port(typist, "pty", rate=rate, missed=missed, room=typist.room)
        stack.callback(port.close)
        peers.append(port)
        screen.say(f"console: {place}")
    else:
        peers.append(WireView(typist, screen))
    return _Seat(power, screen, peers, raw and words is output, raw, session)


COMMANDS: list[click.Command] = [console]
