"""Writes ``docs/chip-models.md``: what is modelled of each chip, and what is not.

All of it comes from the chips' files, and from what ``unbrick.board.device_models`` says of the
models.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board import list_chips, load_chip
from unbrick.board.device_models import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unbrick.board.mcu import FlashRegion, McuChip

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "chip-models.md"

FPUS = ("", ", FPU", ", FPU with double precision")
"""By the chip's number."""

KIB = 1024


def tell_size(size: int) -> str:
    """Bytes for people."""
    return f"{size // KIB} KiB" if size >= KIB and size % KIB == 0 else f"{size} bytes"


def tell_flash(part: FlashRegion) -> str:
    """A region of flash, and its blocks."""
    blocks = ", ".join(f"{count} of {tell_size(size)}" for count, size in part.blocks)
    return f"{part.name} at {part.base:#x}: {blocks}{' with ECC' if part.ecc else ''}"


def group_registers(names: Iterable[str]) -> str:
    """Names of registers, those of a device together."""
    groups = groupby(sorted(set(names)), key=lambda name: name.partition(".")[0])
    return "; ".join(
        f"{device}: {', '.join(name.partition('.')[2] for name in found)}"
        for device, found in groups
    )


def describe(chip: McuChip) -> list[tuple[str, str]]:
    """The rows of a chip's table."""
    core = f"{chip.core}, {chip.clock_hz / 1e6:g} MHz, {chip.interrupts} interrupts"
    core += f", MPU with {chip.mpu_regions} regions" if chip.mpu_regions else ""
    names = {register.address: register.name for register in chip.registers}
    following = {names[rule.ready[0]] for rule in chip.ready}
    rows = [
        ("core", core + FPUS[chip.fpu]),
        ("flash", "<br>".join(map(tell_flash, chip.flash))),
        (
            "RAM",
            "<br>".join(f"{name} at {r.base:#x}: {tell_size(r.size)}" for name, r in chip.rams),
        ),
    ]
    for model in sorted({device.model for device in chip.devices}):
        devices = (device.name for device in chip.devices if device.model == model)
        rows.append((f"`{model}`", ", ".join(devices)))
    values = (name for name in names.values() if name not in following)
    rows.append(("registers with bits that follow others", group_registers(following)))
    rows.append(("registers with a value", group_registers(values)))
    rows.append(("not modelled", f"`{', '.join(chip.unmodelled)}`" if chip.unmodelled else ""))
    return rows


def write_page() -> str:
    """The page, in Markdown."""
    lines = [
        "# Chips, one by one",
        "",
        "Written by `make docs/chip-models` from the chips' files; do not edit.",
        "",
        "[Chips](chips.md) says more of the models, and how to add a chip.",
        "",
        "What is not modelled holds what was written to it, and moves nothing by itself.",
        "",
        "## The models",
        "",
        "| model | does | leaves out |",
        "| -- | -- | -- |",
    ]
    lines += [f"| `{name}` | {model.does} | {model.lacks} |" for name, model in MODELS.items()]
    for name in list_chips():
        lines += ["", f"## `{name}`", "", "| what | of this chip |", "| -- | -- |"]
        lines += [f"| {what} | {text} |" for what, text in describe(load_chip(name)) if text]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(write_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
