"""Real code that does accesses one by one, so that tests can say what a chip's registers do."""

from __future__ import annotations

import runpy
import struct
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from elftools.elf.elffile import ELFFile

from unbrick.board import load_chip
from unbrick.engine.mcu import McuEngine

SOURCE = Path(__file__).with_name("chip_probe") / "probe.c"
SCRIPT_OFFSET = 0x1000
SCRIPT_SIZE = 0x1000
RESULTS = 0x2000_0000
RESULTS_MAX = 511
INTERRUPTS = RESULTS + 512 * 4
STATIC_BASE = INTERRUPTS + (128 + 256) * 4
"""Where a called function finds what is in R9."""
FREE_RAM = RESULTS + 0x2000
STEPS = RESULTS + 0x8000
"""Where the script is copied to on a chip whose flash cannot be read while it takes commands."""
STAGE_2 = Path(__file__).parents[1] / "examples" / "ab-updater"
"""The second stage that a boot ROM begins lies there."""
GAVE_UP = 0x7777_7777
"""What a wait gives that was in vain."""

_WRITE, _READ, _WAIT, _SLEEP, _COPY, _CALL, _END = range(7)


@dataclass(frozen=True)
class Step:
    """One access, or a wait for an interrupt."""

    kind: int
    size: int = 4
    address: int = 0
    value: int = 0
    mask: int = 0


def write(address: int, value: int, size: int = 4) -> Step:
    """Store ``value``; of 8 bytes as two words."""
    mask = value >> 32 if size == 8 else 0
    return Step(_WRITE, size, address, value & 0xFFFF_FFFF, mask)


def read(address: int, size: int = 4) -> Step:
    """Load, and keep the value as a result."""
    return Step(_READ, size, address)


def wait(address: int, mask: int, value: int) -> Step:
    """Load a word until the bits of ``mask`` are ``value``."""
    return Step(_WAIT, 4, address, value, mask)


def sleep() -> Step:
    """Wait for an interrupt."""
    return Step(_SLEEP)


def copy(address: int, source: int, length: int) -> Step:
    """Copy bytes."""
    return Step(_COPY, length, address, source)


def call(function: int, *arguments: int) -> Step:
    """Call a function with up to three arguments, and keep what it returns as a result."""
    first, second, third = (*arguments, 0, 0, 0)[:3]
    return Step(_CALL, third, function | 1, first, second)


def enable_interrupt(number: int) -> Step:
    """Switch an interrupt on at the NVIC."""
    return write(0xE000_E100 + number // 32 * 4, 1 << number % 32)


@cache
def make_stage_2() -> bytes:
    """What the boot ROM of an RP2040 begins."""
    build = runpy.run_path(str(STAGE_2 / "build.py"))
    with TemporaryDirectory() as folder:
        made: bytes = build["make_stage_2"](STAGE_2, Path(folder))
        return made


@cache
def _build(code: int, core: str, steps: int | None) -> bytes:
    """The program, for flash at an address."""
    layout = (
        "PHDRS { all PT_LOAD; } "
        "SECTIONS { .text BASE : { KEEP(*(vectors)) *(.text*) *(.rodata*) . = ALIGN(4); "
        "run_begin = .; KEEP(*(movable)) . = ALIGN(4); run_end = .; } :all "
        "/DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) } }\n"
    )
    with TemporaryDirectory() as folder:
        script, elf = Path(folder) / "probe.ld", Path(folder) / "probe.elf"
        script.write_text(f"BASE = {code:#x};\n{layout}", encoding="utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
        command += [f"-mcpu={core}", "-std=c11", "-Os", "-ffreestanding", "-nostdlib"]
        command += ["-fno-sanitize=all", "-Wall", "-Wextra", "-Werror"]
        command += ["-fno-jump-tables"]  # which would lead back to the flash from a copy in RAM
        command += [f"-DSCRIPT={code + SCRIPT_OFFSET:#x}u", f"-DRESULTS={RESULTS:#x}u"]
        command += [f"-DSCRIPT_SIZE={SCRIPT_SIZE - 4}u"]
        command += [] if steps is None else [f"-DSTEPS={steps:#x}u"]
        command += [f"-Wl,-T,{script}", "-Wl,--entry=start", "-o", str(elf), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with elf.open("rb") as stream:
            (segment,) = (
                one for one in ELFFile(stream).iter_segments("PT_LOAD") if one["p_filesz"]
            )
            data: bytes = segment.data()
            assert segment["p_paddr"] == code
            return data


class ChipProbe:
    """A chip, and what is done to its registers.

    Args:
        name: of the chip.
        console: the UART that ``engine.wire`` is.
        svd: file with names of registers.
        engine: another engine of that chip; by default one in this process.
    """

    def __init__(
        self,
        name: str,
        console: str | None = None,
        svd: Path | None = None,
        engine: Any = None,
    ) -> None:
        self.chip = load_chip(name)
        self.engine = engine or McuEngine(self.chip, console=console, svd=svd)
        core = "cortex_m0" if self.chip.core.startswith("cortex-m0") else "cortex_m3"
        rom = self.chip.boot_rom
        program = _build(self.chip.firmware_base, core, STEPS if rom else None)
        assert len(program) <= SCRIPT_OFFSET
        self._program = program
        self._first = self.chip.image_offset(self.chip.firmware_base)
        self.image = bytearray(self.chip.factory_image)
        if rom:
            self.image[: rom.stage] = make_stage_2()
        self.broken: list[int] = []
        """Addresses in the flash whose check cells are wrong."""

    def load(self, *steps: Step, from_ram: bool = False) -> None:
        """Power off, and put the program and a script into the flash, beside :attr:`image`."""
        self.engine.power_off()
        packed = b"".join(
            struct.pack("<5I", one.kind, one.size, one.address, one.value, one.mask)
            for one in (*steps, Step(_END))
        )
        assert len(packed) + 4 <= SCRIPT_SIZE
        image = bytearray(self.image)
        image[self._first : self._first + len(self._program)] = self._program
        script, at = struct.pack("<I", from_ram) + packed, self._first + SCRIPT_OFFSET
        image[at : at + len(script)] = script
        geometry = self.chip.geometry
        geometry.set_checks(image, 0, len(image))
        for address in self.broken:
            image[geometry.checks[0].find(self.chip.image_offset(address))] ^= 0x18
        self.engine.load_nor(bytes(image))

    def run(self, *steps: Step, from_ram: bool = False, seconds: float = 100.0) -> list[int]:
        """Power on, do the steps, and give what they read."""
        self.load(*steps, from_ram=from_ram)
        self.engine.forget()
        self.engine.power_on()
        return self.go_on(seconds)

    def go_on(self, seconds: float = 100.0) -> list[int]:
        """Let the steps be done, and give what they have read."""
        end = self.engine.now + seconds
        while self.engine.now < end and not getattr(self.engine, "quiet", False):
            self.engine.advance(end - self.engine.now)
        return self.results

    @property
    def results(self) -> list[int]:
        """What was read so far."""
        (count,) = struct.unpack("<I", self.engine.read_memory(RESULTS, 4))
        if count > RESULTS_MAX:  # the code has not begun, and RAM holds something
            return []
        return list(struct.unpack(f"<{count}I", self.engine.read_memory(RESULTS + 4, 4 * count)))

    def interrupts(self, number: int) -> int:
        """How often an interrupt came; the NMI is number -14."""
        address = INTERRUPTS + 4 * (16 + number)
        return int.from_bytes(self.engine.read_memory(address, 4), "little")

    @property
    def faults(self) -> list[str]:
        """The kinds of faults so far."""
        return [fault.kind for fault in self.engine.faults]

    def flash(self, address: int, length: int) -> bytes:
        """What the flash holds."""
        start = self.chip.image_offset(address)
        return self.engine.read_nor()[start : start + length]
