"""The chip of a target's file, in real time: what ``run`` and ``console`` share about it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from unbrick.cli.nor import stored_nor, switched_off
from unbrick.console.state import read_nor
from unbrick.engine.paced import PacedEngine
from unbrick.errors import SetupError
from unbrick.target.load import SUFFIX
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.engine.base import ChipEngine, Engine

target_argument = click.argument("target", required=False, metavar="[TARGET.toml]")

_OF_CHIPS = ("target", "nor_file", "wire", "pty")
"""Parameters that mean something for a chip; the others are the reference terminal's."""


@dataclass(frozen=True)
class RunningChip:
    """A chip in real time.

    Attributes:
        target: what it is.
        engine: keeps step with the clock.
        inner: the same in its own time.
    """

    target: FileTarget
    engine: Engine
    inner: ChipEngine

    def step(self, _now: float) -> None:
        """As a peer: throw away what the chip says where nobody listens."""
        for line in self.inner.lines.values():
            if line is not self.engine.wire:
                line.read()


def load_chip_target(name: str) -> FileTarget:
    """The target that the command at work was given.

    Raises:
        SetupError: it is none, or the command has options of the reference terminal, too.
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
    return FileTarget.load(Path(name), tried=False)


@contextmanager
def running_chip(target: FileTarget, nor_file: Path | None) -> Iterator[RunningChip]:
    """The chip of a target in real time, switched off; its flash is kept in ``nor_file``.

    Args:
        target: the chip, and what its flash holds first.
        nor_file: read at the start and written at the end; None: nothing is kept.

    Raises:
        SetupError: the file, or what the engine needs, is not as it must be.
        ImageError: the file is not of this chip.
    """
    found = target.description
    size = found.chip.geometry.size
    with ExitStack() as stack:
        cells = stack.enter_context(stored_nor(nor_file, size, lambda path: read_nor(path, size)))
        inner = target.create_engine()
        engine = stack.enter_context(PacedEngine(inner))
        engine.load_nor(found.start_image if cells is None else cells)
        stack.enter_context(switched_off(engine, nor_file))
        yield RunningChip(target, engine, inner)
