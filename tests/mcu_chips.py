"""The probe for Cortex-M: the cores that it runs on, here and on QEMU, and how it is built."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from unbrick.board.description import Region
from unbrick.board.mcu import FlashRegion, McuChip

PROBE = Path(__file__).with_name("probe_m")


@dataclass(frozen=True)
class Machine:
    """A machine of QEMU, and its core as a chip without devices.

    Attributes:
        name: as QEMU calls it.
        cpu: as the compiler calls it.
        chip: with 128 KiB of flash and 16 KiB of RAM (8 KiB of an STM32F100).
    """

    name: str
    cpu: str
    chip: McuChip


def bare_chip(
    core: str,
    code: int,
    data: int,
    *,
    fpu: int = 0,
    mpu_regions: int = 8,
    priority_bits: int = 4,
    bit_band: bool = False,
) -> McuChip:
    """A core, with flash at ``code`` and RAM at ``data``."""
    return McuChip(
        name=f"bare-{core}",
        core=core,
        clock_hz=16_000_000,
        interrupts=32,
        priority_bits=priority_bits,
        mpu_regions=mpu_regions,
        fpu=fpu,
        bit_band=bit_band,
        baud=115_200,
        unit=4,
        flash=(FlashRegion("main", code, ((128, 1024),)),),
        rams=(("sram", Region(data, 0x2000 if core == "cortex-m3" else 0x4000)),),
        devices=(),
        uarts=(),
        registers=(),
        ready=(),
    )


MACHINES = {
    machine.chip.core: machine
    for machine in (
        Machine(
            "microbit",
            "cortex_m0",
            bare_chip("cortex-m0", 0, 0x2000_0000, mpu_regions=0, priority_bits=2),
        ),
        Machine(
            "stm32vldiscovery",
            "cortex_m3",
            bare_chip("cortex-m3", 0x0800_0000, 0x2000_0000, bit_band=True),
        ),
        Machine(
            "mps2-an386",
            "cortex_m4+soft_float",
            bare_chip("cortex-m4", 0, 0x2000_0000, fpu=1, bit_band=True),
        ),
        Machine(
            "mps2-an505",
            "cortex_m33+soft_float",
            bare_chip("cortex-m33", 0x1000_0000, 0x3800_0000, fpu=1, mpu_regions=16),
        ),
        Machine(
            "mps2-an500",
            "cortex_m7+soft_float",
            bare_chip("cortex-m7", 0, 0x2000_0000, fpu=2),
        ),
    )
}


def build_probe(machine: Machine, folder: Path, sources: list[Path]) -> Path:
    """Compile a program for a core, with the probe's start; gives the ELF file."""
    code, data = machine.chip.main.base, machine.chip.rams[0][1].base
    layout, elf = folder / "probe.ld", folder / "probe.elf"
    text = (PROBE / "probe.ld").read_text(encoding="utf-8")
    layout.write_text(f"CODE = {code:#x};\nDATA = {data:#x};\n{text}", encoding="utf-8")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += [f"-mcpu={machine.cpu}", "-std=c11", "-Os", "-g", "-ffreestanding", "-nostdlib"]
    command += ["-fno-sanitize=all", "-Wall", "-Wextra", "-Werror", f"-I{PROBE}"]
    command += ["-DHAS_FPU"] if machine.chip.fpu else []
    command += ["-DHAS_BIT_BAND"] if machine.chip.bit_band else []
    command += [f"-Wl,-T,{layout}", "-Wl,--entry=start", "-o", str(elf), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return elf


def image_of(elf: Path, chip: McuChip) -> bytes:
    """The program as a flash image."""
    image = bytearray(b"\xff" * chip.geometry.size)
    with elf.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            if segment["p_filesz"]:
                start = chip.image_offset(segment["p_paddr"])
                image[start : start + segment["p_filesz"]] = segment.data()
    return bytes(image)
