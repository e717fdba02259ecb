"""The flash of a case as files for a real board, with the commands that put it there.

Sources: OpenOCD's User's Guide, *Flash Commands*; pyOCD's documentation, *Command reference*;
SEGGER's UM08001, *J-Link Commander*; Nordic's *nRF Command Line Tools*.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intelhex import IntelHex

from unbrick.board.mcu import OPTION_WORD
from unbrick.campaign.search import follow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unbrick.board.mcu import FlashRegion, McuChip
    from unbrick.campaign.case import CaseId
    from unbrick.target.target import FileTarget

FLASH_FILE = "flash.hex"
JLINK_FILE = "flash.jlink"
README_FILE = "README.txt"

RECORD_SIZE = 16
BLANK = 0xFF
_ALL_BITS = 0xFFFF_FFFF

OPTIONS = "options"
"""The region of option bytes, which programs for firmware do not write."""


@dataclass(frozen=True)
class Exported:
    """A case as files.

    Attributes:
        files: names and texts.
        commands: for a person: each program, and how it is called.
        weak: bits of the flash that may read as 0 or as 1 on a chip; they are written as one.
        wrong: units whose check cells are wrong, which a programmer writes right.
        expected: what the device says when it starts with this flash, and what became of it.
        violation: what was broken; empty: nothing.
    """

    files: dict[str, str]
    commands: tuple[tuple[str, tuple[str, ...]], ...]
    weak: int
    wrong: int
    expected: str
    violation: str


def export_case(target: FileTarget, case: CaseId) -> Exported:
    """The flash with which a case begins, as files.

    Raises:
        SetupError: the case does not exist.
    """
    chip = target.description.chip
    *_, (_, state, outcome) = follow(case, target.start(), target.run)
    image = state.cells.image(case.resolution)
    words = _list_words(chip, image)
    weak = sum(int.from_bytes(mask, "little").bit_count() for _, mask in state.cells.weak)
    files, options = _make_hex(chip, image)
    commands = (*_list_commands(chip), *_tell_words(chip, words))
    if chip.programmers.jlink:
        files[JLINK_FILE] = _tell_jlink(chip)
    wrong = _count_wrong(chip, image)
    violation = ": ".join(outcome.violation or ())
    made = Exported(files, commands, weak, wrong, outcome.console, violation)
    files[README_FILE] = _tell_all(target, case, made, options=options)
    return made


def _count_wrong(chip: McuChip, image: bytes) -> int:
    """Units that read with an error: their check cells are others than what is in them."""
    right = bytearray(image)
    chip.geometry.set_checks(right, 0, len(right))
    return sum(one != other for one, other in zip(image, right, strict=True))


def _make_hex(chip: McuChip, image: bytes) -> tuple[dict[str, str], bool]:
    """What is not blank of all regions. Option bytes are a file of their own, if they changed.

    Those that have no address are left out.
    """
    flash, options = IntelHex(), IntelHex()
    changed = False
    for part, first in chip.placed_flash:
        data = image[first : first + part.size]
        if part.name == OPTIONS:
            changed = data != part.factory.ljust(part.size, bytes([BLANK])) and not part.words
            _put(options, chip, part, data)
        else:
            _put(flash, chip, part, data)
    files = {FLASH_FILE: _render(flash)}
    if changed:
        files[f"{OPTIONS}.hex"] = _render(options)
    return files, changed


def _put(made: IntelHex, chip: McuChip, part: FlashRegion, data: bytes) -> None:
    """Add the units of a region that are not blank: erased flash need not be programmed."""
    blank = bytes([BLANK]) * chip.unit
    for at in range(0, len(data), chip.unit):
        unit = data[at : at + chip.unit]
        if unit != blank[: len(unit)]:
            made.puts(part.base + at, unit)


def _render(made: IntelHex) -> str:
    text = io.StringIO()
    made.write_hex_file(text, byte_count=RECORD_SIZE)
    return text.getvalue()


def _list_commands(chip: McuChip) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """How each program that knows the chip erases it whole, programs it, verifies and starts it."""
    names = chip.programmers
    commands: list[tuple[str, tuple[str, ...]]] = []
    if names.openocd:
        steps = f"init; reset halt; {names.openocd_erase}; flash write_image {FLASH_FILE}; "
        steps += f"verify_image {FLASH_FILE}; reset run; shutdown"
        call = f'openocd -f interface/stlink.cfg -f target/{names.openocd}.cfg -c "{steps}"'
        commands.append(("OpenOCD, with the interface that you have", (call,)))
    if names.pyocd:
        calls = [f"pyocd pack install {names.pyocd}"] if names.pyocd_pack else []
        calls.append(f"pyocd flash -t {names.pyocd} --erase chip {FLASH_FILE}")
        commands.append(("pyOCD", tuple(calls)))
    if names.jlink:
        commands.append(("J-Link", (f"JLinkExe -CommandFile {JLINK_FILE}",)))
    if names.nrfjprog:
        call = f"nrfjprog -f {names.nrfjprog} --program {FLASH_FILE} --chiperase --verify --reset"
        commands.append(("nrfjprog", (call,)))
    return tuple(commands)


@dataclass(frozen=True)
class _Word:
    """An option word that is not as delivered.

    Attributes:
        name: as the manual has it.
        register: offset of the one that programs it.
        value: what it is; None: it is torn, and nobody can set it so.
    """

    name: str
    register: int
    value: int | None

    def __str__(self) -> str:
        value = "torn: nobody can set it so" if self.value is None else f"{self.value:#010x}"
        return f"{self.name} = {value}"


def _list_words(chip: McuChip, image: bytes) -> list[_Word]:
    """The option words without an address that are not as the chip is delivered."""
    found = []
    for part, first in chip.placed_flash:
        for number, (name, register) in enumerate(part.words):
            at = OPTION_WORD * number
            data = image[first + at : first + at + OPTION_WORD]
            if data != part.factory[at : at + OPTION_WORD]:
                value, other = struct.unpack("<2I", data)
                found.append(_Word(name, register, value if value ^ other == _ALL_BITS else None))
    return found


def _tell_words(chip: McuChip, words: Sequence[_Word]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """How to set option words, which no file has: last, for what they protect is not programmed."""
    names = chip.programmers
    driver = names.openocd_erase.partition(" ")[0]
    kept = [one for one in words if one.value is not None]
    if driver and kept:
        writes = [f"{driver} option_write 0 {one.register:#x} {one.value:#010x}" for one in kept]
        steps = "; ".join(("init", "reset halt", *writes, "shutdown"))
        call = f'openocd -f interface/stlink.cfg -f target/{names.openocd}.cfg -c "{steps}"'
        yield "Then the option words, by OpenOCD", (call,)
    if words:
        yield "Then the option words, by any other program", tuple(map(str, words))


def _tell_jlink(chip: McuChip) -> str:
    lines = ("si SWD", "speed 4000", f"device {chip.programmers.jlink}", "connect", "erase")
    return "\n".join((*lines, f"loadfile {FLASH_FILE}", "r", "g", "exit", ""))


def _tell_all(target: FileTarget, case: CaseId, made: Exported, *, options: bool) -> str:
    """What lies in the folder, and what to do with it."""
    lines = [
        f"The flash with which the case {case} begins, for a {target.description.chip.name}.",
        "All of the chip is erased first. In this folder call one of these:",
        "",
    ]
    for name, calls in made.commands:
        lines += [f"{name}:", *(f"    {call}" for call in calls), ""]
    if not made.commands:
        lines += [f"The chip's file names no programmers: give {FLASH_FILE} to yours.", ""]
    if options:
        lines += [f"Then set the option bytes: {OPTIONS}.hex has their contents.", ""]
    if made.weak:
        lines += [
            f"{made.weak} bits were torn by the power cut, and may read as 0 or as 1 on a chip.",
            "They are written as this case reads them. On the board they will stay so.",
            "",
        ]
    if made.wrong:
        lines += [
            f"{tell_wrong(made.wrong)}.",
            "So the board may start where the emulation does not.",
            "",
        ]
    lines += ["Emulated, the device then says:", ""]
    lines += [f"    {line}" for line in made.expected.splitlines()] or ["    nothing"]
    lines += ["", made.violation or "and it recovers."]
    return "\n".join(lines) + "\n"


def tell_wrong(count: int) -> str:
    """What no programmer can bring onto a board."""
    units = "unit of the flash has" if count == 1 else "units of the flash have"
    return f"{count} {units} a wrong ECC after the power cut; a programmer writes a right one"
