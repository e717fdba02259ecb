"""Functions by address, from an ELF file whose assembly does not say how long its functions are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unbrick.engine.symbols import ASSEMBLY_MOST, Symbols

SOURCE = """
.syntax unified
.thumb
.text
.global first
.type first, %function
first: .space 64
.global sized
.type sized, %function
sized: .space 32
.size sized, 16
.global last
.type last, %function
last: .space 1024
"""


def test_a_function_of_no_size_goes_on_to_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "a.s").write_text(SOURCE, encoding="ascii")
    script = "SECTIONS { .text 0x8000000 : { *(.text*) } }"
    (tmp_path / "a.ld").write_text(script, encoding="ascii")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += ["-mcpu=cortex_m3", "-nostdlib", "-Wl,-T,a.ld", "-Wl,--entry=first"]
    command += ["a.s", "-o", "a.elf"]
    subprocess.run(command, cwd=tmp_path, check=True)
    symbols = Symbols([tmp_path / "a.elf"])
    base = 0x0800_0000
    found = {at: symbols.describe(base + at) for at in (0, 62, 64, 78, 80, 96, 96 + ASSEMBLY_MOST)}
    assert found == {
        0: "first",
        62: "first",
        64: "sized",
        78: "sized",
        80: "",
        96: "last",
        96 + ASSEMBLY_MOST: "",
    }
