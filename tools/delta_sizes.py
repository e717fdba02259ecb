"""Writes the table of ``docs/delta-library.md``: what the decoder of differential files takes.

For each core it is compiled as users would, by the pinned compiler. Then it runs on Unicorn's model
of that core, and rebuilds two images: itself, when a function has come in before it, and when it
was optimised for speed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unicorn.arm_const import UC_CPU_ARM_CORTEX_M0, UC_CPU_ARM_CORTEX_M3, UC_CPU_ARM_CORTEX_M4
from unicorn.unicorn_const import UC_MODE_MCLASS, UC_MODE_THUMB

from delta_terminal import CODE, FLAGS, Core, TerminalDecoder
from unbrick.delta import encode
from unbrick.errors import BuildError, ToolBrokenError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "delta-library.md"
BEGIN = "<!-- sizes: begin; filled by tools/delta_sizes.py -->\n"
END = "<!-- sizes: end -->\n"

CORES = {
    name: Core(cpu, model, UC_MODE_THUMB | UC_MODE_MCLASS)
    for name, cpu, model in (
        ("Cortex-M0", "cortex_m0", UC_CPU_ARM_CORTEX_M0),
        ("Cortex-M3", "cortex_m3", UC_CPU_ARM_CORTEX_M3),
        ("Cortex-M4", "cortex_m4+soft_float", UC_CPU_ARM_CORTEX_M4),
    )
}

SLICE = 1000
"""Instructions are counted in these."""
MORE = """
unsigned more(unsigned value);
unsigned more(unsigned value) { return value * 77 ^ value >> 5; }
"""
HEAD = """| core | flash | of that constants | static RAM | working memory | stack | {} | {} |
| -- | -: | -: | -: | -: | -: | -: | -: |
"""
PAIRS = ("a function more", "other options")


@dataclass(frozen=True)
class Objects:
    """What the compiler makes of the library, without linking.

    Attributes:
        code: bytes of code.
        constants: bytes of constants.
        ram: bytes of variables.
        wanted: names that the caller's C library must have.
    """

    code: int
    constants: int
    ram: int
    wanted: tuple[str, ...]


def compile_library(core: Core, folder: Path) -> Objects:
    """Compile the files of the library for ``core``.

    Raises:
        BuildError: they do not compile.
    """
    firmware = ROOT / "firmware"
    sizes = {".text": 0, ".rodata": 0, ".data": 0, ".bss": 0}
    wanted: set[str] = set()
    given: set[str] = set()
    for source in sorted((firmware / "lib").glob("delta*.c")):
        file = folder / f"{source.stem}.o"
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-mcpu={core.cpu}"]
        command += [f"-I{firmware}", f"-I{firmware / 'board' / 'libc'}", "-c", str(source)]
        done = subprocess.run(
            [*command, "-o", str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"{source.name} does not compile: {done.stderr.strip()[:400]}")
        with file.open("rb") as stream:
            for section in ELFFile(stream).iter_sections():
                for name in sizes:
                    sizes[name] += section["sh_size"] if section.name.startswith(name) else 0
                if isinstance(section, SymbolTableSection):
                    for symbol in section.iter_symbols():
                        if symbol["st_info"]["bind"] == "STB_GLOBAL":
                            none = symbol["st_shndx"] == "SHN_UNDEF"
                            (wanted if none else given).add(symbol.name)
    ram = sizes[".data"] + sizes[".bss"]
    return Objects(sizes[".text"], sizes[".rodata"], ram, tuple(sorted(wanted - given)))


def measure(name: str, folder: Path) -> tuple[str, Objects]:
    """A row of the table for a core, and what the library was compiled to.

    Raises:
        ToolBrokenError: the decoder rebuilds another image.
    """
    core = CORES[name]
    more = folder / "more.c"
    more.write_text(MORE)
    decoder = TerminalDecoder(folder, core)
    objects = compile_library(core, folder)
    runs, old = [], decoder.code
    for options in ((str(more),), ("-O2",)):
        new = TerminalDecoder(folder, core, options).code
        run = decoder.run(old, encode(old, new, base_address=CODE), new, slice_=SLICE)
        if run.error or run.image != new:
            raise ToolBrokenError("the decoder rebuilds another image")
        runs.append((run, f"{run.instructions / len(new):,.0f}"))
    memory = "; ".join(f"{run.memory:,}" for run, _ in runs)
    stack = max(run.stack for run, _ in runs)
    flash = objects.code + objects.constants
    cells = (name, f"{flash:,}", f"{objects.constants:,}", str(objects.ram), memory, str(stack))
    return f"| {' | '.join((*cells, *(each for _, each in runs)))} |\n", objects


def make_table() -> str:
    """The whole table, and a line about what it needs of others."""
    with tempfile.TemporaryDirectory() as folder:
        measured = [measure(name, Path(folder)) for name in CORES]
    wanted = sorted({name for _, objects in measured for name in objects.wanted})
    needs = "It calls " + ", ".join(f"`{name}`" for name in wanted) + ".\n"
    return HEAD.format(*PAIRS) + "".join(row for row, _ in measured) + "\n" + needs


def read_table(page: str) -> str:
    """What the page has between the marks."""
    return page.partition(BEGIN)[2].partition(END)[0].strip() + "\n"


def is_same(one: str, other: str) -> bool:
    """Whether two tables say the same, however they are laid out."""
    return one.split() == other.split()


def main() -> None:
    """Write the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{make_table()}\n{END}{after}", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "mdformat", str(PAGE)], check=True)
    print(re.sub(r"\n+$", "", read_table(PAGE.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
