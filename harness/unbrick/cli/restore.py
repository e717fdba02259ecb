"""The restoration apparatus: ``restore`` and ``restorations``."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from unbrick.cli.options import FromLayout
from unbrick.errors import RestoreError, SetupError
from unbrick.restore.apparatus import ATTEMPTS, RestorationStage
from unbrick.restore.checked import check_file
from unbrick.restore.port import Fleet, Options, PortOutcome, Restoration, list_machine_ports
from unbrick.restore.record import RestorationRecord, find_default_record, make_entry, read_record
from unbrick.restore.words import PROMPT, READ_BACK
from unbrick.screen import Column, FittedTable, open_screen, open_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

_FILE = click.Path(dir_okay=False, path_type=Path)
_LOOK_INTERVAL_S = 0.1  # Between two looks at the ports.
_SECOND_TERMINAL_S = 2.0  # A second terminal would be heard by then: each asks every second.
_GOOD = {PortOutcome.RESTORED, PortOutcome.UP_TO_DATE}
_HARMLESS = {*_GOOD, PortOutcome.RUNS, PortOutcome.NOTHING, PortOutcome.UNUSABLE}
"""What is no failure on a port that nobody named."""

_TYPED = READ_BACK.decode().split()
"""What the apparatus types at a console: its echo is nothing that the terminal says."""

_record_option = click.option(
    "--record",
    type=_FILE,
    help="File in which restorations are recorded; by default restorations.jsonl in the folder "
    "unbrick of XDG_STATE_HOME.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")


@click.command("restore", short_help="Restore a terminal over the wire.")
@click.argument("ports", metavar="[PORT]...", nargs=-1)
@click.argument("file", metavar="IMAGE", type=_FILE)
@click.option("--all", "every", is_flag=True, help="Every port of this machine, at once.")
@click.option(
    "--key", type=_FILE, help="PEM file with the key that boot trusts: check the signature first."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds to wait for a terminal that asks to be restored, at first and after a failure.",
)
@click.option(
    "--baud",
    type=click.IntRange(min=1),
    default=FromLayout(lambda layout: layout.board.baud),
    show_default=True,
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=ATTEMPTS,
    show_default=True,
    help="Transfers at most.",
)
@click.option(
    "--no-read-back",
    is_flag=True,
    help="Believe the terminal when it runs, for software without the command `digest`.",
)
@_record_option
@_json_option
def restore(
    ports: tuple[str, ...],
    file: Path,
    *,
    every: bool,
    key: Path | None,
    wait: float,
    baud: int,
    attempts: int,
    no_read_back: bool,
    record: Path | None,
    as_json: bool,
) -> None:
    """Restore the terminal on PORT with a signed IMAGE (.hex or binary) over the wire.

    PORT is a serial device, a pseudo-terminal, tcp:HOST:PORT or a URL of pyserial. Of several, each
    is restored. Without PORT, the ports of this machine are listened to for the one terminal that
    asks to be restored. The image is checked before it is sent, and success is what was read back.

    Exit codes: 0 restored, or it runs this image already, 1 a terminal was not restored,
    2 the call, the image or a port is wrong, 130 interrupted.
    """
    image = check_file(file, key)
    kept = RestorationRecord(record or find_default_record(os.environ))
    status = open_status()
    if not image.verified:
        status.print("the signature is checked by the terminal alone: give --key", style="yellow")
    named = list(dict.fromkeys(ports))
    found = (
        [port for port in list_machine_ports() if port not in named] if every or not ports else []
    )
    if not named and not found:
        raise SetupError(
            "this machine has no serial port",
            hint="connect the terminal's wire, or name its port: /dev/ttyUSB0, tcp:HOST:PORT, …",
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = partial(Options, wait=wait, baud=baud, attempts=attempts, read_back=not no_read_back)
    choose = not named and not every
    with Display(status, several=len(named) + len(found) > 1) as display:
        over = [
            Restoration(port, image, options(), say=display.listener(port)) for port in named
        ] + [
            Restoration(port, image, options(listen=True, held=choose), say=display.listener(port))
            for port in found
        ]
        interrupted = _restore_all(over, display, choose=choose)
    crashes = []
    for restoration in over:
        entry = make_entry(restoration, datetime.now(timezone.utc))
        if entry is not None:
            kept.append(entry)
        if restoration.crash:
            crashes.append(restoration.crash)
    if crashes:
        raise crashes[0]
    if choose:
        over = [restoration for restoration in over if restoration.asks] or over
    _report(over, as_json=as_json)
    if interrupted:
        raise click.Abort
    _end(over, set(named))


def _restore_all(restorations: Sequence[Restoration], display: Display, *, choose: bool) -> bool:
    """Restore on all ports at once, or choose the one whose terminal asks; returns whether a person
    ended it.

    Raises:
        SetupError: several ask, and one was to be chosen.
    """
    choose_at: float | None = None
    try:
        with Fleet(restorations) as fleet:
            while fleet.running:
                display.show(restorations)
                time.sleep(_LOOK_INTERVAL_S)
                if not choose or not fleet.asking:
                    continue
                choose_at = choose_at or time.monotonic() + _SECOND_TERMINAL_S
                if time.monotonic() >= choose_at:
                    choose = False
                    _choose(fleet)
            display.show(restorations)
    except KeyboardInterrupt:
        return True
    return False


def _choose(fleet: Fleet) -> None:
    asking = fleet.asking
    fleet.stop([restoration for restoration in fleet.restorations if restoration not in asking])
    if len(asking) > 1:
        ports = ", ".join(restoration.port for restoration in asking)
        raise SetupError(
            f"{len(asking)} terminals ask to be restored: on {ports}",
            hint="name the port of one, or restore all of them with --all",
        )
    asking[0].release()


class Display:
    """What a person sees meanwhile: a bar for each port, and what the terminals say above them."""

    def __init__(self, console: Console, *, several: bool) -> None:
        self._several = several
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.fields[port]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # else it leaves an empty line in a log
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def listener(self, port: str) -> Callable[[str], None]:
        """What is called with every line that the terminal on ``port`` says."""
        prefix = f"{port}: " if self._several else ""

        def say(line: str) -> None:
            line = line.removeprefix(PROMPT)
            if line and line not in _TYPED:
                text = escape(prefix + line)
                self._progress.console.print(text, style="dim", highlight=False, soft_wrap=True)

        return say

    def show(self, restorations: Sequence[Restoration]) -> None:
        """Move the bars to where the restorations are."""
        for restoration in restorations:
            port, apparatus = restoration.port, restoration.apparatus
            if port not in self._tasks:
                label = escape(port) if self._several else ""
                self._tasks[port] = self._progress.add_task("", total=None, port=label)
            stage = apparatus.stage if apparatus else RestorationStage.SEARCHING
            over = restoration.outcome is not PortOutcome.RUNNING
            size = len(restoration.image.data)
            sent = apparatus.sent if apparatus else 0
            self._progress.update(
                self._tasks[port],
                description=restoration.outcome.value if over else _what(restoration, stage),
                total=size,
                completed=sent
                if stage in {RestorationStage.SEARCHING, RestorationStage.SENDING}
                else size,
                visible=not over,
            )


def _what(restoration: Restoration, stage: RestorationStage) -> str:
    apparatus = restoration.apparatus
    who = apparatus.terminal.serial if apparatus and apparatus.terminal else ""
    again = f", try {restoration.transfers}" if restoration.transfers > 1 else ""
    return escape(f"{who + ': ' if who else ''}{stage.value}{again}")


def _result(restoration: Restoration) -> dict[str, Any]:
    """One restoration for a script."""
    apparatus = restoration.apparatus
    terminal = apparatus.terminal if apparatus else None
    return {
        "port": restoration.port,
        "outcome": restoration.outcome.name.lower().replace("_", "-"),
        "serial": terminal.serial if terminal else None,
        "hardware": terminal.hardware_id if terminal else None,
        "security_counter": terminal.security_counter if terminal else None,
        "reason": (apparatus.reason if apparatus else "") or None,
        "accepted": apparatus.accepted if apparatus else "",
        "running": apparatus.running if apparatus else "",
        "read_back": (apparatus.digest if apparatus else "") or None,
        "transfers": restoration.transfers,
        "repeats": apparatus.repeats if apparatus else 0,
        "error": str(restoration.error) if restoration.error else None,
    }


def _report(restorations: Sequence[Restoration], *, as_json: bool) -> None:
    if as_json:
        results = [_result(restoration) for restoration in restorations]
        click.echo(json.dumps(results if len(results) > 1 else results[0], indent=2))
    elif len(restorations) > 1:
        _table(restorations)
    elif restorations[0].outcome in _GOOD:
        click.echo(_success(restorations[0]))


def _runs(restoration: Restoration) -> str:
    apparatus, info = restoration.apparatus, restoration.image.info
    return (apparatus.running if apparatus else "") or f"{info.name} {info.version}"


def _success(restoration: Restoration) -> str:
    apparatus = restoration.apparatus
    serial = apparatus.terminal.serial if apparatus and apparatus.terminal else ""
    who = f"terminal {serial}" if serial else "the terminal"
    if restoration.outcome is PortOutcome.UP_TO_DATE:
        return f"{who} runs {_runs(restoration)} already: nothing was sent"
    return f"{who} is restored, it runs {_runs(restoration)}"


def _table(restorations: Sequence[Restoration]) -> None:
    rows = []
    for restoration in restorations:
        apparatus, outcome = restoration.apparatus, restoration.outcome
        seen = str(restoration.error) if restoration.error else _runs(restoration)
        style = (
            "green" if outcome in _GOOD else "red" if outcome is PortOutcome.FAILED else "yellow"
        )
        rows.append(
            (
                restoration.port,
                apparatus.terminal.serial if apparatus and apparatus.terminal else "",
                Text(outcome.value, style=style),
                str(restoration.transfers),
                seen,
            )
        )
    columns = (
        *(Column("port"), Column("terminal"), Column("result")),
        *(Column("transfers", dispensable=True), Column("what was seen", wraps=True)),
    )
    open_screen().print(FittedTable(columns, rows))


def _end(restorations: Sequence[Restoration], named: set[str]) -> None:
    """Say what is left to do.

    Raises:
        UnbrickError: a terminal was not restored; on one port, what happened there.
    """
    first = restorations[0]
    if len(restorations) == 1 and first.error and (named or first.outcome not in _HARMLESS):
        raise first.error
    failed = sum(
        restoration.outcome not in (_GOOD if restoration.port in named else _HARMLESS)
        for restoration in restorations
    )
    if failed:
        raise RestoreError(
            f"{failed} of {len(restorations)} ports failed",
            hint="start it again: those that are restored are left as they are",
        )
    if not any(restoration.outcome in _GOOD for restoration in restorations):
        raise RestoreError(
            "no terminal asked to be restored on "
            + ", ".join(restoration.port for restoration in restorations),
            hint="power-cycle it while this waits; when its port is not among them, name it: "
            "`python -m serial.tools.list_ports` lists those that there are",
        )


@click.command(short_help="List the restorations so far.")
@click.option("--serial", help="Only of this terminal.")
@_record_option
@_json_option
def restorations(serial: str | None, record: Path | None, *, as_json: bool) -> None:
    """List the restorations that were recorded, oldest first."""
    path = record or find_default_record(os.environ)
    entries = list(read_record(path))
    wanted = [e for e in entries if e is not None and (serial is None or e.serial == serial)]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in wanted], indent=2))
    elif not wanted:
        click.echo(f"no restorations are recorded in {path}")
    else:
        columns = (
            *(Column("ended"), Column("terminal"), Column("image"), Column("result")),
            *(Column(name, dispensable=True) for name in ("digest", "transfers", "s")),
            Column("why", wraps=True),
        )
        rows = [
            (
                entry.ended,
                entry.serial or entry.port,
                f"{entry.software} {entry.version}",
                entry.outcome,
                entry.digest[:16],
                str(entry.transfers),
                f"{entry.seconds:.0f}",
                entry.error or entry.reason,
            )
            for entry in wanted
        ]
        open_screen().print(FittedTable(columns, rows))
    if unreadable := entries.count(None):
        click.echo(f"unbrick: {unreadable} lines of {path} are no entries", err=True)


COMMANDS: list[click.Command] = [restore, restorations]
