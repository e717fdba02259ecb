"""Makes the engines that give a second opinion of a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.engine import CHIP_ENGINES
from unbrick.engine.qemu.chip import QemuChip
from unbrick.engine.renode.chip import RenodeChip
from unbrick.errors import NotKnownHereError, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.engine.base import ChipEngine


def create_second_engine(
    name: str,
    chip: McuChip,
    elf_files: Iterable[Path] = (),
    *,
    console: str | None = None,
    platform: Path | None = None,
) -> ChipEngine:
    """The engine called ``name``, for a chip.

    Args:
        name: one of :data:`unbrick.engine.CHIP_ENGINES`, but for the first.
        chip: what it is.
        elf_files: the firmware's ELF files, for messages that name the source line.
        console: name of the UART that is the console; None: the chip's first.
        platform: a ``.repl`` of the user's for Renode; None: ours.

    Raises:
        NotKnownHereError: it does not know the chip.
        SetupError: there is no such engine, or what it needs is missing.
    """
    if platform is not None and name != "renode":
        raise NotKnownHereError(
            f"the engine {name} takes no platform",
            hint="leave out --platform, or say --engine renode",
        )
    if name == "qemu":
        return QemuChip(chip, elf_files, console=console)
    if name == "renode":
        return RenodeChip(chip, elf_files, console=console, platform=platform)
    if name not in CHIP_ENGINES:
        raise NotKnownHereError(
            f"the engine {name} runs no chip of a target's file",
            hint=f"choose one of {', '.join(CHIP_ENGINES)}",
        )
    raise SetupError(f"{name} is no second opinion", hint="leave out --engine")
