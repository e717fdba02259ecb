"""The part of ``make bench`` about flash controllers: operations a second of each."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from performance_page import write_table
from unbrick.board import load_chip
from unbrick.engine.mcu import McuEngine
from unbrick.errors import ToolBrokenError

HERE = Path(__file__).resolve().parent
COUNT = 10_000
ROM_COUNT = 5_000
"""Pages, of which the flash of an RP2040 has not many more."""
REPEAT = 3
KEYS = "0x45670123, 0xCDEF89AB"
FIRST = "nrf52840"
"""The chip that the others are compared to."""


@dataclass(frozen=True)
class Controller:
    """A chip, and how its flash is programmed.

    Attributes:
        chip: its name.
        unit: bytes of an operation, all 0.
        base: where the first unit is: in the bank with the code, which stands still meanwhile.
        keyr, keys: the register that opens the flash, and what it takes.
        cr, pg: the register that begins programs, and what it takes.
        sr, busy, idle: the status, the bits to look at, and what they are when nothing is under
            way.
        store: the type of a store.
    """

    chip: str
    unit: int
    base: int
    keyr: int
    cr: int
    pg: int
    sr: int
    busy: int
    idle: int = 0
    keys: str = KEYS
    store: str = "uint32_t"


CONTROLLERS = (
    Controller(
        *(FIRST, 4, 0x8_0000, 0x4001_E504, 0x4001_E504, 1, 0x4001_E400, 1), idle=1, keys="0"
    ),
    Controller(
        *("stm32f103xb", 2, 0x0800_8000, 0x4002_2004, 0x4002_2010, 1, 0x4002_200C, 1),
        store="uint16_t",
    ),
    Controller(
        *("stm32f407xg", 4, 0x0804_0000, 0x4002_3C04, 0x4002_3C10, 0x201, 0x4002_3C0C, 1 << 16)
    ),
    Controller("stm32l476xg", 8, 0x0802_0000, 0x4002_2008, 0x4002_2014, 1, 0x4002_2010, 1 << 16),
    Controller("stm32g0b1xe", 8, 0x0802_0000, 0x4002_2008, 0x4002_2014, 1, 0x4002_2010, 3 << 16),
    Controller("stm32h563xi", 16, 0x0802_0000, 0x4002_2004, 0x4002_2028, 2, 0x4002_2020, 0x3),
    Controller("stm32h743xi", 32, 0x0802_0000, 0x5200_2004, 0x5200_200C, 2, 0x5200_2010, 0x7),
)


@dataclass(frozen=True)
class Beside:
    """A chip beside a microcontroller.

    Attributes:
        model: its model.
        function: of ``bench_flash_beside.c``, which programs a unit.
        unit: bytes of it, all 0.
        count: how many there are.
        board: the chip file of both.
        base: where the first unit is.
        operations: of each unit.
    """

    model: str
    function: str
    unit: int
    count: int
    board: str
    base: int = 0
    operations: int = 1


_OF_TESTS = HERE.parent / "tests"
_BUSES = runpy.run_path(str(_OF_TESTS / "brickproof_demo.py"))
_PARALLEL = runpy.run_path(str(_OF_TESTS / "cfi_boards.py"))
_UNLOCKED = "locks = 0\n"

BESIDE = (
    Beside("nor_cfi_amd", "amd", 2, COUNT, _PARALLEL["AMD_X16"], _PARALLEL["BASE"]),
    Beside(
        *("nor_cfi_intel", "intel", 2, COUNT),
        *(_PARALLEL["INTEL_X16"] + _UNLOCKED, _PARALLEL["BASE"]),
    ),
    Beside("nor_spi", "spi", 256, 4096, _BUSES["NOR"]),
    Beside("eeprom_i2c", "eeprom", 64, 512, _BUSES["EEPROM"], operations=2),
)


def build(controller: Controller) -> tuple[int, bytes]:
    """The program: its address, and its bytes."""
    chip = load_chip(controller.chip)
    base, ram = chip.main.base, chip.rams[0][1]
    core = "cortex_m0" if chip.core.startswith("cortex-m0") else "cortex_m3"
    macros: dict[str, object] = {
        "COUNT": COUNT,
        "UNIT": controller.unit,
        "BASE": controller.base,
        "KEYR": controller.keyr,
        "KEYS": controller.keys,
        "CR": controller.cr,
        "PG": controller.pg,
        "SR": controller.sr,
        "BUSY": controller.busy,
        "IDLE": controller.idle,
        "STORE": controller.store,
        "STACK": ram.base + ram.size,
    }
    return base, compile_program(macros, HERE / "bench_flash.c", make_layout(base), core)


def make_layout(base: int) -> str:
    """The linker script of a program for a flash at an address."""
    return (
        f"SECTIONS {{ .text {base:#x} : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) }} "
        "/DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) } }\n"
    )


def compile_program(macros: dict[str, object], source: Path, layout: str, core: str) -> bytes:
    """The bytes of a program in C."""
    with tempfile.TemporaryDirectory() as folder:
        script, elf = Path(folder) / "bench.ld", Path(folder) / "bench.elf"
        script.write_text(layout, encoding="utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
        command += [f"-mcpu={core}", "-std=c11", "-O2", "-ffreestanding", "-nostdlib"]
        command += ["-fno-sanitize=all", "-Wl,--entry=0", f"-Wl,-T,{script}"]
        command += [f"-D{name}={value}" for name, value in macros.items()]
        subprocess.run([*command, "-o", str(elf), str(source)], check=True)
        with elf.open("rb") as stream:
            segments = ELFFile(stream).iter_segments("PT_LOAD")
            return next(bytes(one.data()) for one in segments if one["p_filesz"])


def build_for_rom() -> bytes:
    """The program that a boot ROM begins, as its second stage."""
    macros: dict[str, object] = {"COUNT": ROM_COUNT, "BASE": 0x1000, "DATA": 0x2000_0000}
    layout = (
        "PHDRS { ram PT_LOAD; } SECTIONS { .text 0x20041F00 : "
        "{ KEEP(*(.vectors)) *(.text*) *(.rodata*) } :ram "
        "/DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) } }\n"
    )
    code = compile_program(macros, HERE / "bench_flash_rom.c", layout, "cortex_m0plus")
    example = runpy.run_path(str(HERE.parent / "examples" / "ab-updater" / "build.py"))
    stage: bytes = example["add_checksum"](code)
    return stage


def operation_seconds(controller: Controller) -> float:
    """Processor seconds that the engine takes for an operation.

    Raises:
        ToolBrokenError: the program did other operations, or what it must not.
    """
    base, program = build(controller)
    return measure(controller.chip, base, program, COUNT)


def beside_seconds(chip: Beside) -> float:
    """Processor seconds that the engine takes for an operation of a chip beside the first one.

    Raises:
        ToolBrokenError: the program did other operations, or what it must not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.toml"
        path.write_text(chip.board, encoding="utf-8")
        base, ram = (found := load_chip(path)).main.base, found.rams[0][1]
        macros = {"COUNT": chip.count, "UNIT": chip.unit, "FIRST": f"{chip.base:#x}u"}
        macros |= {"PROGRAM": chip.function, "STACK": ram.base + ram.size}
        program = compile_program(
            macros, HERE / "bench_flash_beside.c", make_layout(base), "cortex_m3"
        )
        return measure(path, base, program, chip.count * chip.operations)


def measure(name: str | Path, base: int, program: bytes, count: int) -> float:
    """Processor seconds that the engine takes for each operation of a program.

    Args:
        name: of the chip, or its file.
        base: where the program lies.
        program: its bytes.
        count: how many operations it does.

    Raises:
        ToolBrokenError: the program did other operations, or what it must not.
    """
    chip = load_chip(name)
    image = bytearray(chip.factory_image)
    start = chip.image_offset(base)
    image[start : start + len(program)] = program
    chip.geometry.set_checks(image, start, len(program))
    times = []
    with McuEngine(chip) as engine:
        for _ in range(REPEAT):
            engine.load_nor(bytes(image))
            engine.forget()
            engine.power_on()
            began = time.process_time()
            engine.advance(1000)
            times.append(time.process_time() - began)
            if engine.op_count != count or engine.faults or not engine.quiet:
                raise ToolBrokenError(f"{chip.name}: the program did not do what it is for")
            engine.power_off()
    return min(times) / count


def flash_rows() -> list[tuple[str, str, str]]:
    """What there is to say: what, ratio, figures of this machine."""
    rows, first = [], 0.0
    for controller in CONTROLLERS:
        each = operation_seconds(controller)
        first = first or each
        model = load_chip(controller.chip).devices[0].model
        what = f"`{model}`: {controller.unit} bytes programmed on `{controller.chip}`"
        figure = f"{1e-6 / each:.2f} million operations a second"
        rows.append((f"{what}, to `{FIRST}`", f"{each / first:.2f}", figure))
    each = measure("rp2040", 0x1000_0000, build_for_rom(), ROM_COUNT)
    what = "`nor_qspi`: 256 bytes programmed on `rp2040` by its boot ROM"
    figure = f"{1e-3 / each:.2f} thousand operations a second"
    rows.append((f"{what}, to `{FIRST}`", f"{each / first:.0f}", figure))
    for chip in BESIDE:
        each = beside_seconds(chip)
        what = f"`{chip.model}`: {chip.unit} bytes programmed beside an STM32F4"
        figure = f"{1e-3 / each:.2f} thousand operations a second"
        rows.append((f"{what}, to `{FIRST}`", f"{each / first:.0f}", figure))
    return rows


def main() -> None:
    """Measure, print, and write the section."""
    write_table("Flash controllers", flash_rows(), "unicorn")


if __name__ == "__main__":
    main()
