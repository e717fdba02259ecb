"""``unbrick console``: a person at the console of a terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from unbrick.cli.nor import nor_option
from unbrick.cli.options import firmware_option
from unbrick.cli.run import (
    build_releases,
    engine_option,
    installed_option,
    open_port,
    serial_option,
    terminal,
    told_to_end,
)
from unbrick.console.air import Air
from unbrick.console.commands import Commands
from unbrick.console.missed import MissedLines
from unbrick.console.power import PowerSwitch
from unbrick.console.screen import Output, Screen, raw_keyboard
from unbrick.console.session import Session, WireView
from unbrick.console.typist import Typist
from unbrick.engine.inprocess.gdbstub import gdb_command
from unbrick.screen import open_status

if TYPE_CHECKING:
    from pathlib import Path

    from unbrick.console.session import SessionPeer
    from unbrick.firmware.signed import Releases


@click.command(short_help="Sit at a terminal's console.")
@engine_option
@firmware_option
@nor_option
@serial_option
@installed_option
@click.option(
    "--gdb",
    "gdb_port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Let debuggers in on this port of the loopback interface (0: any), and say how.",
)
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
def console(
    engine: str,
    firmware: Path,
    nor_file: Path | None,
    serial: str,
    installed: str,
    gdb_port: int | None,
    *,
    pty: bool,
    modem: str | None,
) -> None:
    """Run a terminal in real time and sit at its console; a server is there to update it.

    C-a (Ctrl and A) leads to the bench's prompt: cut the power, take down the link, update, look
    at the NOR, quit. `help` there lists it all; C-a twice sends C-a to the terminal.

    What a pipe has typed is typed no faster than the terminal answers, and ends this.
    """
    releases = build_releases(firmware, open_status())
    keyboard = sys.stdin.fileno()
    person = sys.stdin.isatty()
    raw = person and not pty
    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        made = stack.enter_context(
            terminal(
                *(engine, releases, nor_file, serial, installed), debugger=gdb_port is not None
            )
        )
        if raw:
            stack.enter_context(raw_keyboard(keyboard))
        output = Output(sys.stdout.fileno())
        stack.callback(output.close)
        words = output
        if not pty and not (person and sys.stdout.isatty()):
            words = Output(sys.stderr.fileno())
            stack.callback(words.close)
        screen = Screen(output, words, raw=raw)
        typist = Typist(made.wire)
        peers: list[SessionPeer] = []

        def lost() -> None:
            peers[0].step(made.now)
            screen.new_line()

        power = PowerSwitch(made, typist, screen.say, lost)
        session = Session(
            *(power, typist, screen, peers, keyboard),
            person=person,
            behind_key=not pty,
            told=told,
        )
        if pty:
            port, place = open_port(
                typist, "pty", rate=made.board.line_rate, missed=MissedLines(), room=typist.room
            )
            stack.callback(port.close)
            peers.append(port)
            screen.say(f"console: {place}")
        else:
            peers.append(WireView(typist, screen))
        air = None
        if modem is None:
            air = Air(made, releases, screen.say)
            peers.append(air)
        else:
            radio, place = open_port(made.radio, modem, rate=made.board.line_rate)
            stack.callback(radio.close)
            peers.append(radio)
            screen.say(f"modem: {place}")
        debugger = ""
        if gdb_port is not None:
            port_number = made.gdb_server(gdb_port, session.idle)
            debugger = gdb_command(find_symbol_files(releases, installed), port_number)
            screen.say(f"debug it with: {debugger}")
        session.commands = Commands(
            *(power, air, screen.say), debugger=debugger, colour=raw and words is output
        )
        if raw:
            screen.say("C-a is the bench's prompt: `help` lists what it can do, `quit` leaves")
        power.on()
        session.run()


def find_symbol_files(releases: Releases, installed: str) -> list[Path]:
    """The ELF files of what every terminal has and of the release that is installed."""
    return [*releases.common_elf_files, releases.firmware.applications[installed].elf]


COMMANDS: list[click.Command] = [console]
