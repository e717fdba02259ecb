"""Commands that run a terminal: ``run``, ``console`` and ``hil-test``."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import termios
import threading
import tty
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unbrick.bench.bench import Bench
from unbrick.bench.hil import HilTest
from unbrick.engine.create import ENGINES, create_engine
from unbrick.engine.ports import PtyPort, TcpPort
from unbrick.errors import SetupError, UnbrickError
from unbrick.image.factory import factory_image
from unbrick.image.release import make_releases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.bench.hil import Step
    from unbrick.engine.base import Engine, Line
    from unbrick.engine.ports import Port
    from unbrick.image.release import Releases

ESCAPE = b"\x1d"  # Ctrl-]
QUIET = 2.0  # seconds: longer than any command is silent, erasing a block included

_engine_option = click.option(
    "--engine", type=click.Choice(ENGINES), default="inprocess", show_default=True
)
_firmware_option = click.option(
    "--firmware",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/firmware"),
    show_default=True,
    help="Where the firmware is built and kept.",
)
_nor_option = click.option(
    "--nor",
    "nor_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="NOR image: read at the start, written back at the end. Without it a terminal fresh "
    "from the factory is made and forgotten.",
)
_serial_option = click.option(
    "--serial", default="UB-000001", show_default=True, help="Of a terminal made new."
)
_installed_option = click.option(
    "--installed", default="1.0.0", show_default=True, help="Release on a terminal made new."
)


def _releases(folder: Path, status: Console) -> Releases:
    with status.status("building the firmware"):
        return make_releases(folder)


@contextmanager
def _terminal(
    engine: str, releases: Releases, nor_file: Path | None, serial: str, installed: str
) -> Iterator[Engine]:
    """A running terminal whose NOR is kept in ``nor_file``."""
    if installed not in releases.signed:
        raise SetupError(
            f"there is no release {installed}", hint=f"choose from {', '.join(releases.signed)}"
        )
    if nor_file is not None and not nor_file.parent.is_dir():
        raise SetupError(
            f"cannot write {nor_file}: there is no folder {nor_file.parent}", hint="make it first"
        )
    with create_engine(engine, releases.elf_files, speed=1.0) as made:
        if nor_file is not None and nor_file.exists():
            made.load_nor(nor_file.read_bytes())
        else:
            made.load_nor(factory_image(releases.boot, releases.signed[installed], serial))
        made.power_on()
        try:
            yield made
        finally:
            made.power_off()
            if nor_file is not None:
                _keep(nor_file, made.read_nor())


def _keep(nor_file: Path, cells: bytes) -> None:
    """Write the NOR's contents so that the file is the old or the new one, never half of each.

    Raises:
        SetupError: it cannot be written.
    """
    fresh = nor_file.with_name(f".{nor_file.name}.new")
    try:
        fresh.write_bytes(cells)
        fresh.replace(nor_file)
    except OSError as error:
        raise SetupError(
            f"cannot write {nor_file}: {error.strerror}", hint="choose another file with --nor"
        ) from error


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and the loss of the window set.

    Nothing is raised: the terminal is switched off, and its NOR kept, between two of its turns.
    """
    told = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: told.set()) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_port(line: Line, where: str) -> tuple[Port, str]:
    if where == "pty":
        pty = PtyPort(line)
        return pty, pty.path
    kind, _, number = where.partition(":")
    if kind != "tcp" or not number.isdecimal() or int(number) > 65535:
        raise SetupError(f"not a port: {where}", hint="write pty or tcp:PORT (0: a free one)")
    tcp = TcpPort(line, int(number))
    return tcp, f"tcp:{tcp.address}"


@click.command()
@_engine_option
@_firmware_option
@_nor_option
@_serial_option
@_installed_option
@click.option("--wire", default="pty", show_default=True, help="UART0: pty or tcp:PORT.")
@click.option("--modem", default="tcp:0", show_default=True, help="UART1: pty or tcp:PORT.")
def run(
    engine: str,
    firmware: Path,
    nor_file: Path | None,
    serial: str,
    installed: str,
    wire: str,
    modem: str,
) -> None:
    """Run a terminal in real time and show its two serial lines as ports, until Ctrl-C or SIGTERM.

    Connect the bridge to the modem (`unbrick bridge --modem …`), and picocom, `unbrick restore` or
    `sb` to the wire.
    """
    status = Console(stderr=True)
    releases = _releases(firmware, status)
    with ExitStack() as stack:
        told = stack.enter_context(_told_to_end())
        made = stack.enter_context(_terminal(engine, releases, nor_file, serial, installed))
        bench = Bench(made)
        bench.peers.clear()
        places = {}
        for name, line, where in (("wire", made.wire, wire), ("modem", made.radio, modem)):
            port, places[name] = _open_port(line, where)
            stack.callback(port.close)
            bench.peers.append(port)
        click.echo(f"ready: wire {places['wire']} modem {places['modem']}")
        sys.stdout.flush()
        while not bench.run_until(told.is_set, 3600):
            pass
        status.print("terminal switched off", style="dim")


@contextmanager
def _raw_keyboard() -> Iterator[None]:
    """Every key goes to the terminal as it is typed."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setraw(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@click.command()
@_engine_option
@_firmware_option
@_nor_option
@_serial_option
@_installed_option
def console(
    engine: str, firmware: Path, nor_file: Path | None, serial: str, installed: str
) -> None:
    """Run a terminal in real time and sit at its console. Ctrl-] switches it off and leaves."""
    releases = _releases(firmware, Console(stderr=True))
    with (
        _told_to_end() as told,
        _terminal(engine, releases, nor_file, serial, installed) as made,
    ):
        bench = Bench(made)
        keyboard = sys.stdin.fileno()
        screen = sys.stdout.fileno()
        bench.console.listeners.append(lambda data: _write_all(screen, data))
        click.echo("Ctrl-] leaves", err=True)
        with _raw_keyboard() if sys.stdin.isatty() else nullcontext():
            while not bench.run_until(told.is_set, 0.02):
                if not select.select([keyboard], [], [], 0)[0]:
                    continue
                keys = os.read(keyboard, 256)
                if not keys or ESCAPE in keys:
                    bench.console.write(keys.partition(ESCAPE)[0])
                    if not sys.stdin.isatty():
                        _let_it_answer(bench, told)
                    return
                bench.console.write(keys)


def _let_it_answer(bench: Bench, told: threading.Event) -> None:
    """A script types faster than the terminal works: wait until it has said nothing for a while."""
    said = -1
    while said != len(bench.console.text) and not told.is_set():
        said = len(bench.console.text)
        bench.run_for(QUIET)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@click.command("hil-test")
@_engine_option
@_firmware_option
@click.option("--verbose", "-v", is_flag=True, help="Show everything the terminal says.")
@click.option("--json", "as_json", is_flag=True, help="The steps as JSON, for a script.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep logs, database and console transcript in this folder.",
)
def hil_test(
    engine: str, firmware: Path, *, verbose: bool, as_json: bool, keep: Path | None
) -> None:
    """Play the whole system once: boot, update over the air, power cut, restoration.

    Server and bridge run as processes of their own. Ends with a table of the steps; exit code 0
    when all passed, 1 when the terminal failed one.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # server and bridge end with it
    status = Console(stderr=True, highlight=False)
    releases = _releases(firmware, status)
    steps: list[Step] = []
    echo = (lambda data: _write_all(2, data)) if verbose else None
    folder = nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory(prefix="unbrick-")
    with folder as place:
        Path(place).mkdir(parents=True, exist_ok=True)
        test = HilTest(releases, engine, Path(place), echo)
        with status.status("starting") as spinner:
            for step in test.run():
                spinner.update(step.name)
                if step.passed is not None:
                    steps.append(step)
        (Path(place) / "console.log").write_text(test.console_text)
    failed = [step for step in steps if not step.passed]
    if as_json:
        click.echo(json.dumps([vars(step) for step in steps], indent=2))
    else:
        _show(steps, engine)
    if failed:
        raise UnbrickError(
            f"failed: {failed[0].name}",
            hint="run it with --verbose, or with --keep FOLDER to read the logs",
        )


def _show(steps: list[Step], engine: str) -> None:
    table = Table(title=f"Unbrick HIL test, engine {engine}", title_justify="left")
    table.add_column("#", justify="right", style="dim")
    table.add_column("step")
    table.add_column("result")
    table.add_column("s", justify="right")
    table.add_column("what was seen", overflow="fold")
    for number, step in enumerate(steps, 1):
        result = "[green]passed[/]" if step.passed else "[bold red]FAILED[/]"
        detail = escape(step.detail)
        table.add_row(str(number), step.name, result, f"{step.seconds:.1f}", detail)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


COMMANDS: list[click.Command] = [run, console, hil_test]
