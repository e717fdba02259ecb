"""The terminal's decoder of differential files on the emulated processor: how many instructions and
how much memory it takes. An access outside its areas ends the run.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unicorn.arm_const import (
    UC_ARM_REG_LR,
    UC_ARM_REG_PC,
    UC_ARM_REG_R0,
    UC_ARM_REG_R1,
    UC_ARM_REG_R2,
    UC_ARM_REG_SP,
    UC_CPU_ARM_CORTEX_A9,
)
from unicorn.unicorn_const import UC_ARCH_ARM, UC_MODE_ARM, UC_PROT_ALL, UC_PROT_READ
from unicorn.unicorn_py3.unicorn import Uc

from unbrick.delta import read_header
from unbrick.errors import BuildError, ToolBrokenError
from unbrick.folders import firmware_folder

CODE, OLD, FILE, IMAGE, WORK, STACK = (n << 28 for n in (1, 2, 3, 4, 5, 6))
END = CODE + 0xFF000
PAGE = 4096
SLICE = 200_000
"""Instructions are counted in these."""
MOST = 20_000 * SLICE
UNTOUCHED = 0xC5

FLAGS = ["-target", "thumb-freestanding-eabi", "-std=c11", "-Os", "-g", "-ffreestanding"]
FLAGS += ["-fno-sanitize=all", "-fno-stack-protector", "-fno-unwind-tables"]
FLAGS += ["-fno-builtin", "-nostdlib"]


SCRIPT = f"""
SECTIONS {{
  .text {CODE:#x} : {{ *(.text*) *(.rodata*) }}
  .bss ALIGN({PAGE}) : {{ *(.data*) *(.bss*) }}
  /DISCARD/ : {{ *(.ARM.*) *(.comment) }}
}}
"""


@dataclass(frozen=True)
class Core:
    """A processor.

    Attributes:
        cpu: its name for the compiler.
        model: its number in Unicorn.
        mode: of Unicorn.
    """

    cpu: str
    model: int
    mode: int


TERMINAL = Core("cortex_a9+strict_align-neon-vfp3-vfp2-fpregs", UC_CPU_ARM_CORTEX_A9, UC_MODE_ARM)


@dataclass(frozen=True)
class Run:
    """What rebuilding an image took.

    Attributes:
        image: that was made.
        error: of the decoder, 0 when all is well.
        instructions: about, without hashing.
        memory: bytes of working memory, as announced; not one more can be touched.
        stack: bytes.
    """

    image: bytes
    error: int
    instructions: int
    memory: int
    stack: int


class TerminalDecoder:
    """The decoder, compiled as for the terminal.

    Args:
        folder: for what the compiler makes.
        core: that it is compiled for, and runs on.
        options: further ones for the compiler; files among them come first in its code.

    Raises:
        BuildError: it does not compile.
    """

    def __init__(self, folder: Path, core: Core = TERMINAL, options: tuple[str, ...] = ()) -> None:
        firmware = firmware_folder()
        self._core = core
        elf = folder / "delta_terminal.elf"
        sources = [Path(__file__).with_suffix(".c"), *sorted((firmware / "lib").glob("delta*.c"))]
        sources += sorted((firmware / "board" / "libc").glob("*.c"))
        script = folder / "delta_terminal.ld"
        script.write_text(SCRIPT)
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-I{firmware}"]
        command += [f"-mcpu={core.cpu}", *options]
        command += [f"-I{firmware / 'board' / 'libc'}", f"-Wl,-T,{script}", "-Wl,-e,rebuild"]
        done = subprocess.run(
            [*command, "-o", str(elf), *map(str, sources)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"the decoder does not compile: {done.stderr.strip()[:400]}")
        with elf.open("rb") as stream:
            file = ELFFile(stream)
            self._parts = [
                (segment["p_vaddr"], segment.data().ljust(segment["p_memsz"], b"\0"))
                for segment in file.iter_segments()
                if segment["p_type"] == "PT_LOAD" and segment["p_memsz"]
            ]
            self._symbols = {
                symbol.name: int(symbol["st_value"])
                for section in file.iter_sections()
                if isinstance(section, SymbolTableSection)
                for symbol in section.iter_symbols()
            }
            self.code_size = sum(
                section["sh_size"]
                for section in file.iter_sections()
                if section.name in {".text", ".rodata"}
            )

    @property
    def code(self) -> bytes:
        """The program itself, from :data:`CODE` on."""
        return next(data for at, data in self._parts if at == CODE)

    def run(self, old: bytes, file: bytes, new: bytes, *, slice_: int = SLICE) -> Run:
        """Rebuild ``new``; its digests are taken from there.

        Args:
            old: the installed image.
            file: the differential file.
            new: what must come of it.
            slice_: instructions are counted in so many; the fewer, the slower.

        Raises:
            ToolBrokenError: the decoder left its areas, or does not come to an end.
        """
        header = read_header(file)
        uc = Uc(UC_ARCH_ARM, self._core.mode)
        uc.ctl_set_cpu_model(self._core.model)
        for at, data in self._parts:
            start = at & -PAGE
            uc.mem_map(start, (at + len(data) - start + PAGE - 1) & -PAGE, UC_PROT_ALL)
            uc.mem_write(at, data)
        uc.mem_map(END, PAGE, UC_PROT_ALL)
        digests = hashlib.sha256(old).digest()
        magic, _, head, protected, body = struct.unpack_from("<IIHHI", new.ljust(16, b"\0"))
        if magic == 0x96F3B83D:
            digests += hashlib.sha256(new[: head + protected + body]).digest()
        digests += hashlib.sha256(new).digest()
        areas = {
            OLD: self._area(uc, OLD, old, UC_PROT_READ),
            FILE: self._area(uc, FILE, file + digests, UC_PROT_READ),
            IMAGE: self._area(uc, IMAGE, bytes(len(new)), UC_PROT_ALL),
            WORK: self._area(uc, WORK, b"\xc5" * header.memory, UC_PROT_ALL),
        }
        uc.mem_map(STACK, 2 * PAGE, UC_PROT_ALL)
        uc.mem_write(STACK, bytes((UNTOUCHED,)) * 2 * PAGE)
        job = STACK + 2 * PAGE - 64
        uc.mem_write(
            job,
            struct.pack(
                "<8I",
                areas[OLD],
                len(old),
                areas[IMAGE],
                len(new),
                areas[WORK],
                header.memory,
                0,
                0,
            ),
        )
        uc.mem_write(self._symbols["digests"], struct.pack("<I", areas[FILE] + len(file)))
        for register, value in (
            (UC_ARM_REG_R0, job),
            (UC_ARM_REG_R1, areas[FILE]),
            (UC_ARM_REG_R2, len(file)),
            (UC_ARM_REG_SP, job - 64),
            (UC_ARM_REG_LR, END | 1),
        ):
            uc.reg_write(register, value)
        at = self._symbols["rebuild"] | 1
        slices = 0
        while at & ~1 != END:
            uc.emu_start(at, END, count=slice_)
            at = int(uc.reg_read(UC_ARM_REG_PC)) | 1
            slices += 1
            if slices * slice_ > MOST:
                raise ToolBrokenError("the decoder does not come to an end")
        stack = bytes(uc.mem_read(STACK, job - 64 - STACK))
        return Run(
            bytes(uc.mem_read(areas[IMAGE], len(new))),
            struct.unpack("<i", struct.pack("<I", int(uc.reg_read(UC_ARM_REG_R0))))[0],
            slices * slice_,
            header.memory,
            len(stack.lstrip(bytes((UNTOUCHED,)))),
        )

    @staticmethod
    def _area(uc: Uc, at: int, data: bytes, protection: int) -> int:
        """Memory that ends right after ``data``, at a page's end or up to seven bytes before."""
        size = (len(data) + 7 + PAGE - 1) & -PAGE
        uc.mem_map(at, size, protection)
        start = at + size - len(data) & ~7
        uc.mem_write(start, data)
        return start
