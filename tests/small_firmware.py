"""Firmware of a few lines of C for a microcontroller, as a target file with an ELF file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unbrick.board import load_chip

CPUS = {"cortex-m3": "cortex_m3", "cortex-m4": "cortex_m4+soft_float"}

START = """
void start(void);
__attribute__((section("vectors"), used)) static void *const table[] = {
    (void *)(RAM + 0x1000), (void *)start, (void *)start, (void *)start};
#define REGISTER(address) (*(volatile unsigned *)(address))
#line 1 "small.c"
"""
"""Before the C: the first vectors, and a macro."""


def build_small(folder: Path, chip_name: str, source: str, further: str = "") -> Path:
    """Compile C with a function ``start``, and describe it as a target.

    Args:
        folder: where all goes.
        chip_name: what it runs on.
        source: the C, whose first line is line 1 of ``small.c``.
        further: more of the target file, before its tables.
    """
    chip = load_chip(chip_name)
    (folder / "small.c").write_text(START + source, encoding="utf-8")
    (folder / "small.ld").write_text(
        f"SECTIONS {{ .text {chip.main.base:#x} : {{ KEEP(*(vectors)) *(.text*) *(.rodata*) }} "
        "/DISCARD/ : { *(.ARM.exidx*) } }\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += [f"-mcpu={CPUS[chip.core]}", "-Os", "-g", "-ffreestanding", "-nostdlib"]
    command += ["-fno-sanitize=all", f"-DRAM={chip.rams[0][1].base:#x}"]
    command += ["-Wl,-T,small.ld", "-Wl,--entry=start", "-o", "small.elf", "small.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    target = folder / "small.toml"
    target.write_text(
        f'chip = "{chip_name}"\n{further}\n[[firmware]]\nfile = "small.elf"\n'
        '[recovered]\nsays = "ready"\n',
        encoding="utf-8",
    )
    return target
