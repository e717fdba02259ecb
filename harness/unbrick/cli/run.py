"""Commands that run a terminal: ``run`` and ``hil-test``, and what ``console`` shares with them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unbrick.bench.bench import Bench
from unbrick.cli.chip import (
    Lookout,
    ShownUart,
    find_uarts,
    load_chip_target,
    refuse_chip_options,
    running_chip,
    target_argument,
    uart_option,
)
from unbrick.cli.nor import nor_option, stored_nor, switched_off
from unbrick.cli.options import firmware_option, live_gdb_option, platform_option, svd_option
from unbrick.console.missed import LatestWords, MissedLines
from unbrick.console.state import read_terminal_nor
from unbrick.console.typist import Typist
from unbrick.engine import ENGINES
from unbrick.engine.create import create_engine
from unbrick.engine.gdb.connection import gdb_command
from unbrick.engine.gdb.server import DebuggerGoneError
from unbrick.engine.ports import PtyPort, TcpPort
from unbrick.engine.serial.board_file import VARIABLE as BOARD_VARIABLE
from unbrick.errors import FirmwareFaultError, NotKnownHereError, SetupError, UnbrickError
from unbrick.firmware.signed import make_releases
from unbrick.image.enrolment import (
    add_enrolment,
    enrol_identity,
    find_enrolment_file,
    read_enrolments,
)
from unbrick.image.factory import KEY_SIZE, make_factory_image, read_identity
from unbrick.layout import reference_layout
from unbrick.lock import owned
from unbrick.screen import Column, FittedTable, open_screen, open_status
from unbrick.target.load import WIRE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    from unbrick.cli.chip import RunningChip
    from unbrick.engine.base import Engine, Line
    from unbrick.engine.ports import Missed, Port
    from unbrick.firmware.signed import Releases
    from unbrick.reference.hil import Step
    from unbrick.target.target import FileTarget

LOSSES_INTERVAL_S = 10.0
"""Between two messages about bytes that were lost."""


def _name_board(_context: click.Context, _option: click.Parameter, file: Path | None) -> None:
    if file is not None:
        os.environ[BOARD_VARIABLE] = str(file)


def engine_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--engine``, and ``--board`` for the one that needs a file."""
    engine = click.option(
        "--engine", type=click.Choice(ENGINES), default="inprocess", show_default=True
    )
    board = click.option(
        "--board",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar=BOARD_VARIABLE,
        show_envvar=True,
        expose_value=False,
        callback=_name_board,
        help="With --engine serial: the file that describes the board.  [default: board.toml]",
    )
    return engine(board(command))


serial_option = click.option(
    "--serial", default="UB-000001", show_default=True, help="Of a terminal made new."
)
installed_option = click.option(
    "--installed", default="1.0.0", show_default=True, help="Release on a terminal made new."
)


def build_releases(folder: Path, status: Console) -> Releases:
    """The firmware in ``folder``, built if it is not; ``status`` shows that it is.

    Raises:
        BuildError, SetupError: it cannot be built.
    """
    with status.status("building the firmware"):
        return make_releases(folder)


@contextmanager
def terminal(
    engine: str,
    releases: Releases,
    nor_file: Path | None,
    serial: str,
    installed: str,
    *,
    debugger: bool = False,
) -> Iterator[Engine]:
    """A terminal in real time, switched off; its NOR is kept in ``nor_file``.

    Args:
        engine: name of what runs it.
        releases: the firmware.
        nor_file: read at the start and written at the end; None: made new and forgotten.
        serial: of a terminal made new.
        installed: release on a terminal made new.
        debugger: a debugger is to be let in.

    Raises:
        SetupError: a file, a release or the engine is not there.
    """
    image = releases.signed[installed]
    board = reference_layout().board
    with ExitStack() as stack:
        cells = stack.enter_context(stored_nor(nor_file, board.nor.modelled, read_terminal_nor))
        made = stack.enter_context(
            create_engine(engine, releases.elf_files, speed=1.0, debugger=debugger, board=board)
        )
        if cells is not None:
            made.load_nor(cells)
        elif engine != "serial":  # a board is taken as it is
            key = secrets.token_bytes(KEY_SIZE)
            made.load_nor(make_factory_image(releases.boot, image, serial, key=key))
        stack.enter_context(switched_off(made, nor_file))
        yield made


def find_symbol_files(releases: Releases, installed: str) -> list[Path]:
    """The ELF files of what every terminal has and of the release that is installed."""
    return [*releases.common_elf_files, releases.firmware.applications[installed].elf]


def open_debugger_port(
    engine: Engine,
    port: int,
    elf_files: Iterable[Path],
    idle: Callable[[], None],
    say: Callable[[str], None],
) -> str:
    """Let debuggers in at a port, and say how one is started.

    Args:
        engine: what is debugged.
        port: of the loopback interface; 0: any.
        elf_files: those with symbols.
        idle: as of :meth:`unbrick.engine.base.Engine.gdb_server`.
        say: called with a line for a person.

    Returns:
        How.

    Raises:
        SetupError: nobody can listen there, or the engine knows no debuggers.
    """
    command = gdb_command(elf_files, engine.gdb_server(port, idle))
    say(f"debug it with: {command}")
    return command


class _ToldError(Exception):
    """This has to end while a debugger keeps the device stopped."""


@contextmanager
def told_to_end() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C, SIGTERM or the loss of the window has told this process to end.

    Nothing is raised: the terminal is switched off, and its NOR kept, between two of its turns.
    Nothing is locked, either. A signal comes at any time, also while its own handler's lock is held
    by whom it interrupts, as that of a ``threading.Event`` would be.
    """
    told: list[bool] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: told.append(True)) for number in numbers}
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_port(
    line: Line,
    where: str,
    *,
    rate: float,
    missed: Missed | None = None,
    room: Callable[[], int] | None = None,
) -> tuple[Port, str]:
    """A port for ``line`` as ``where`` says, and what others have to open.

    Args:
        line: the UART.
        where: ``pty`` or ``tcp:PORT``.
        rate: as of :class:`~unbrick.engine.ports.Port`, and so are ``missed`` and ``room``.
        missed: keeps what is said while no program has the port open.
        room: gives how many bytes ``line`` would take.

    Raises:
        SetupError: ``where`` is no such thing.
        PortError: it cannot be had.
    """
    if where == "pty":
        pty = PtyPort(line, rate=rate, missed=missed, room=room)
        return pty, pty.path
    kind, _, number = where.partition(":")
    if kind != "tcp" or not number.isdecimal() or int(number) > 65535:
        raise SetupError(f"not a port: {where}", hint="write pty or tcp:PORT (0: a free one)")
    tcp = TcpPort(line, int(number), rate=rate, missed=missed, room=room)
    return tcp, f"tcp:{tcp.address}"


def open_uarts(
    stack: ExitStack, chip: RunningChip, shown: Iterable[ShownUart]
) -> tuple[dict[str, Port], list[str]]:
    """A port for each of some UARTs of a chip.

    The console's keeps what is said while no program has it open.

    Args:
        stack: takes the ports away again.
        chip: whose UARTs they are.
        shown: which, and as what.

    Returns:
        The ports by their names, and for each its name and what others have to open.

    Raises:
        SetupError: one is to be no such thing, or cannot be had.
    """
    ports, places = {}, []
    rate = chip.engine.board.line_rate
    for one in shown:
        line = chip.inner.lines[one.uart]
        missed = LatestWords() if line is chip.inner.wire else None
        ports[one.name], place = open_port(line, one.where, rate=rate, missed=missed)
        stack.callback(ports[one.name].close)
        places.append(f"{one.name} {place}")
    return ports, places


class _Losses:
    """Says that bytes were lost at a port, at once and then from time to time.

    Args:
        ports: by their names.
        overruns: gives how many bytes came too fast at each of them, as far as that is known.
        status: where it is said.
    """

    def __init__(
        self, ports: dict[str, Port], overruns: Callable[[], Iterable[int]], status: Console
    ) -> None:
        self._ports, self._overruns, self._status = ports, overruns, status
        self._said: dict[str, int] = {}
        self._again = 0.0

    def step(self, now: float) -> None:
        """Look, and say what is new."""
        if now < self._again:
            return
        for text, lost in self._count():
            if lost > self._said.get(text, 0):
                self._said[text] = lost
                self._again = now + LOSSES_INTERVAL_S
                self._status.print(f"{lost} bytes were lost: {text}", style="yellow")

    def _count(self) -> Iterator[tuple[str, int]]:
        """How many bytes were lost so far, and why."""
        for name, port in self._ports.items():
            yield f"the program at the {name} does not read", port.lost
        for name, lost in zip(self._ports, self._overruns(), strict=False):
            yield f"they came to the {name} faster than the terminal took them", lost


def _let_debuggers_in(
    engine: Engine,
    port: int | None,
    elf_files: Iterable[Path],
    told: Callable[[], bool],
    status: Console,
) -> None:
    """Let debuggers in at a port, if there is to be one, and say how one is started."""

    def idle() -> None:
        if told():
            raise _ToldError

    if port is not None:
        say = partial(status.print, soft_wrap=True, markup=False, highlight=False)
        open_debugger_port(engine, port, elf_files, idle, say)


def _run_until_told(bench: Bench, told: Callable[[], bool], ready: str, status: Console) -> None:
    """Say that it is ready, and run until this has to end, or a debugger kills the device."""
    click.echo(f"ready: {ready}")
    sys.stdout.flush()
    try:
        with suppress(_ToldError):
            while not bench.run_until(told, 3600):
                pass
    except DebuggerGoneError as error:
        status.print(str(error), style="dim")
    status.print("terminal switched off", style="dim")


@click.command(short_help="Run a terminal or a chip, its serial lines as ports.")
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
    "--enrolment",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for `unbrick server enrol`, so that the server knows the terminal.  [default: the "
    "name of the --nor file and .enrolment]",
)
@click.option("--wire", default="pty", show_default=True, help="UART0: pty or tcp:PORT.")
@click.option("--modem", default="tcp:0", show_default=True, help="UART1: pty or tcp:PORT.")
@uart_option
def run(
    target: str | None,
    engine: str,
    firmware: Path,
    nor_file: Path | None,
    svd: Path | None,
    serial: str,
    installed: str,
    gdb_port: int | None,
    platform: Path | None,
    enrolment: Path | None,
    wire: str,
    modem: str,
    uarts: tuple[str, ...],
) -> None:
    """Run a terminal in real time and show its two serial lines as ports, until Ctrl-C or SIGTERM.

    Connect the bridge to the modem (`unbrick bridge --modem …`), and picocom, `unbrick restore` or
    `sb` to the wire. What is typed there goes to the terminal no faster than it answers.

    With a TARGET.toml the chip of that target runs its firmware (docs/any-firmware.md). The wire is
    its console, and everything passes as it comes. Its other UARTs are ports when the target or
    --uart says so.
    """
    status = open_status()
    if target is not None:
        loaded = load_chip_target(target, svd)
        opened = running_chip(loaded, nor_file, engine, platform, debugger=gdb_port is not None)
        _run_chip(loaded, opened, gdb_port, wire, uarts, status)
        return
    refuse_chip_options(svd, uarts, platform)
    releases = build_releases(firmware, status)
    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        debugger = gdb_port is not None
        made = stack.enter_context(
            terminal(engine, releases, nor_file, serial, installed, debugger=debugger)
        )
        _keep_enrolment(made, enrolment or (nor_file and find_enrolment_file(nor_file)))
        bench = Bench(made)
        typist = Typist(made.wire)
        rate = made.board.line_rate
        wire_port, wire = open_port(typist, wire, rate=rate, missed=MissedLines(), room=typist.room)
        stack.callback(wire_port.close)
        modem_port, modem = open_port(made.radio, modem, rate=rate)
        stack.callback(modem_port.close)
        ports = {"wire": wire_port, "modem": modem_port}
        losses = _Losses(ports, lambda: made.overruns, status)
        bench.peers[:] = [wire_port, typist, modem_port, losses]
        files = find_symbol_files(releases, installed)
        _let_debuggers_in(made, gdb_port, files, told, status)
        made.power_on()
        typist.power_on(made.now)
        _run_until_told(bench, told, f"wire {wire} modem {modem}", status)


def _keep_enrolment(engine: Engine, file: Path | None) -> None:
    """Write down what the server has to know of a terminal, where that can be seen."""
    if file is None:
        return
    with suppress(NotKnownHereError):
        enrolment = enrol_identity(read_identity(engine.read_nor()))
        if enrolment is not None:
            add_enrolment(file, enrolment)


def _run_chip(
    target: FileTarget,
    opened: AbstractContextManager[RunningChip],
    gdb_port: int | None,
    wire: str,
    uarts: tuple[str, ...],
    status: Console,
) -> None:
    """Run the chip of a target's file until this has to end.

    Raises:
        FirmwareFaultError: the firmware did what the hardware forbids, and the target does too.
    """
    found = target.description
    shown = [ShownUart(WIRE, found.console, wire), *find_uarts(found, uarts)]
    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        chip = stack.enter_context(opened)
        engine = chip.engine
        bench = Bench(engine, found.never.allows)
        ports, places = open_uarts(stack, chip, shown)
        say = partial(status.print, style="yellow", soft_wrap=True)
        lookout = Lookout(chip, (one.uart for one in shown), say)
        find = chip.inner.find_overruns
        losses = _Losses(ports, lambda: (find(one.uart) for one in shown), status)
        bench.peers[:] = [*ports.values(), lookout, losses]
        _let_debuggers_in(engine, gdb_port, found.elf_files, told, status)
        engine.power_on()
        try:
            _run_until_told(bench, told, " ".join(places), status)
        except FirmwareFaultError as error:
            error.hint = "correct the firmware; `allowed` of [never] lets a kind of fault pass"
            raise


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@click.command("hil-test", short_help="Play the whole system once, with checks.")
@engine_option
@firmware_option
@click.option("--verbose", "-v", is_flag=True, help="Show everything the terminal says.")
@click.option("--json", "as_json", is_flag=True, help="The steps as JSON, for a script.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep logs, database and console transcript in this folder.",
)
@click.option(
    "--enrolment",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Enrolment file of a board that is taken as it is.",
)
def hil_test(
    engine: str,
    firmware: Path,
    *,
    verbose: bool,
    as_json: bool,
    keep: Path | None,
    enrolment: Path | None,
) -> None:
    """Play the whole system once: boot, update over the air, power cut, restoration.

    Server and bridge run as processes of their own. Ends with a table of the steps; exit code 0
    when all passed, 1 when the terminal failed one.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # server and bridge end with it
    enrolments = read_enrolments(enrolment) if enrolment else []
    status = open_status()
    releases = build_releases(firmware, status)
    # Server and database, which a terminal that runs alone does not wait for.
    from unbrick.reference.hil import HilTest  # noqa: PLC0415

    steps: list[Step] = []
    echo = (lambda data: _write_all(2, data)) if verbose else None
    folder = nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory(prefix="unbrick-")
    with ExitStack() as stack:
        place = stack.enter_context(folder)
        Path(place).mkdir(parents=True, exist_ok=True)
        stack.enter_context(owned(Path(place), hint="give another --keep"))
        test = HilTest(releases, engine, Path(place), echo, enrolments)
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
    from rich.text import Text  # noqa: PLC0415 - slow to import

    columns = (
        *(Column("#", justify="right"), Column("step", wraps=True), Column("result")),
        *(Column("s", justify="right", dispensable=True), Column("what was seen", wraps=True)),
    )
    rows = [
        (
            str(number),
            step.name,
            Text("passed", "green") if step.passed else Text("FAILED", "bold red"),
            f"{step.seconds:.1f}",
            step.detail,
        )
        for number, step in enumerate(steps, 1)
    ]
    open_screen().print(FittedTable(columns, rows, f"Unbrick HIL test, engine {engine}"))


COMMANDS: list[click.Command] = [run, hil_test]
