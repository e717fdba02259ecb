"""The chip of a target's file, in real time: what ``run`` and ``console`` share about it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from unbrick.cli.completion import complete_file
from unbrick.cli.nor import stored_nor, switched_off
from unbrick.console.state import read_nor
from unbrick.engine import OWN_ENGINE
from unbrick.engine.paced import PacedEngine
from unbrick.errors import SetupError
from unbrick.tables import name_nearest
from unbrick.target.load import SUFFIX, WIRE
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unbrick.engine.base import ChipEngine, Engine
    from unbrick.target.description import Description

target_argument = click.argument(
    "target", required=False, metavar="[TARGET.toml]", shell_complete=complete_file
)

_OF_CHIPS = (
    *("target", "nor_file", "svd", "wire", "pty", "gdb_port", "uarts"),
    *("engine", "platform"),
)
"""Parameters that mean something for a chip; the others are the reference terminal's."""


uart_option = click.option(
    "--uart",
    "uarts",
    multiple=True,
    metavar="NAME[=pty|tcp:PORT]",
    help="Of a TARGET.toml: show one more UART of the chip to other programs, by default as pty; "
    "or say what one of the target's [uarts] becomes. Can be given several times.",
)

LOOK_INTERVAL_S = 0.5
"""Seconds of the chip between two looks at what it waits for."""


@dataclass(frozen=True)
class RunningChip:
    """A chip in real time.

    Attributes:
        engine: keeps step with the clock.
        inner: the same in its own time.
    """

    engine: Engine
    inner: ChipEngine


class Lookout:
    """A peer that looks after a chip: says once for each register that it waits for it in vain.

    What the chip says at a UART where nobody listens is thrown away.

    Args:
        chip: what is looked after.
        heard: the names of the UARTs where somebody does, besides the console.
        say: called with lines for a person.
    """

    def __init__(self, chip: RunningChip, heard: Iterable[str], say: Callable[[str], None]) -> None:
        self._inner, self._say = chip.inner, say
        listened = [chip.inner.wire, *(chip.inner.lines[name] for name in heard)]
        self._unheard = [line for line in chip.inner.lines.values() if line not in listened]
        self._told: set[int] = set()
        self._again = 0.0

    def step(self, now: float) -> None:
        """Look, and say what is new."""
        if now < self._again:
            return
        self._again = now + LOOK_INTERVAL_S
        for line in self._unheard:
            line.read()
        for register in self._inner.find_vain_registers():
            if register.address not in self._told:
                self._told.add(register.address)
                self._say(str(register))


@dataclass(frozen=True)
class ShownUart:
    """A UART that other programs can open.

    Attributes:
        name: what it is called outside.
        uart: its name in the chip's file.
        where: ``pty`` or ``tcp:PORT``.
    """

    name: str
    uart: str
    where: str


def find_uarts(target: Description, options: Iterable[str]) -> list[ShownUart]:
    """The UARTs of a target that are shown besides its console, in the order of the chip.

    Args:
        target: has those that are always shown.
        options: what the command line says about them and others: ``NAME`` or ``NAME=WHERE``.

    Raises:
        SetupError: there is no such UART, it is the console, or it is named twice.
    """
    chip = target.chip
    called = {uart: name for name, uart in target.uarts.items()}
    shown = dict.fromkeys(target.uarts.values(), "pty")
    said: set[str] = set()
    for option in options:
        name, _, where = option.partition("=")
        uart = target.uarts.get(name, name)
        if uart not in chip.uarts:
            known = {*target.uarts, *chip.uarts} - {target.console}
            raise SetupError(f"{chip.name} has no UART {name!r}", hint=name_nearest(name, known))
        if uart == target.console:
            raise SetupError(f"{uart} is the console", hint=f"say where with --{WIRE}")
        if uart in said:
            raise SetupError(f"--uart {name} is there twice", hint="leave one of them out")
        said.add(uart)
        shown[uart] = where or "pty"
    return [
        ShownUart(called.get(uart, uart), uart, shown[uart]) for uart in chip.uarts if uart in shown
    ]


def refuse_chip_options(
    svd: Path | None, uarts: tuple[str, ...], platform: Path | None = None
) -> None:
    """See that nobody wants what only the chip of a target's file has.

    Raises:
        SetupError: somebody does.
    """
    refuse_svd(svd)
    for option, said in (("--uart", uarts), ("--platform", platform)):
        if said:
            raise SetupError(
                f"{option} is for the chip of a target's file",
                hint="leave it out, or name a TARGET.toml",
            )


def refuse_svd(svd: Path | None) -> None:
    """See that nobody wants names of registers without a target's file.

    Raises:
        SetupError: somebody does.
    """
    if svd is not None:
        raise SetupError(
            "--svd is for the chip of a target's file", hint="leave it out, or name a TARGET.toml"
        )


def load_chip_target(name: str, svd: Path | None) -> FileTarget:
    """The target that the command at work was given, and the file with names of registers.

    Raises:
        SetupError: one is wrong, or the command has options of the reference terminal, too.
    """
    if not name.endswith(SUFFIX):
        raise SetupError(
            f"not the file of a target: {name}",
            hint="name a TARGET.toml; the reference terminal needs no name",
        )
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is ParameterSource.COMMANDLINE and option.name not in _OF_CHIPS:
            raise SetupError(
                f"{option.opts[0]} is the reference terminal's, and not known for {name}",
                hint="leave it out",
            )
    return FileTarget.load(Path(name), tried=False, svd=svd)


@contextmanager
def running_chip(
    target: FileTarget,
    nor_file: Path | None,
    engine: str = OWN_ENGINE,
    platform: Path | None = None,
    *,
    debugger: bool = False,
) -> Iterator[RunningChip]:
    """The chip of a target in real time, switched off; its flash is kept in ``nor_file``.

    Args:
        target: the chip, and what its flash holds first.
        nor_file: read at the start and written at the end; None: nothing is kept.
        engine: what runs the chip, and
        platform: both as of :meth:`FileTarget.create_engine`.
        debugger: a debugger is to be let in.

    Raises:
        SetupError: the file, or what the engine needs, is not as it must be.
        ImageError: the file is not of this chip.
    """
    found = target.description
    size = found.chip.geometry.size
    with ExitStack() as stack:
        cells = stack.enter_context(stored_nor(nor_file, size, lambda path: read_nor(path, size)))
        inner = target.create_engine(debugged=debugger, engine=engine, platform=platform)
        paced = stack.enter_context(PacedEngine(inner))
        paced.load_nor(found.start_image if cells is None else cells)
        stack.enter_context(switched_off(paced, nor_file))
        yield RunningChip(paced, inner)
