"""Builds the example for its chips with the `ziglang` package, into the folder `build`.

For each chip: `boot.elf`, and the images of version 1 for slot A and version 2 for slot B, which
are ELF files (for debuggers) and `.bin` (what is installed and sent). `--bug NAME` builds it with a
bug of the folder `bugs`.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).resolve().parent
HEADER_OFFSET = 28  # image.h
MAGIC = 0x41425550
BLOCK_SIZE = 128  # of XMODEM: an image is a number of them


@dataclass(frozen=True)
class Chip:
    """A chip: its core for the compiler, where its programs lie, and the end of its RAM."""

    name: str
    cpu: str
    boot: int
    slot_a: int
    slot_b: int
    stack_top: int


STAGE_2_SIZE = 256
"""Bytes of an RP2040's second stage, with its checksum."""

CHIPS = (
    Chip("nrf51822", "cortex_m0", 0, 0x2000, 0x4000, 0x2000_4000),
    Chip("nrf52840", "cortex_m4", 0, 0x2000, 0x5000, 0x2004_0000),
    Chip("rp2040", "cortex_m0plus", 0x1000_0100, 0x1000_2000, 0x1000_5000, 0x2004_2000),
    Chip("stm32f103", "cortex_m3", 0x0800_0000, 0x0800_2000, 0x0800_4000, 0x2000_5000),
)


def link(
    chip: Chip,
    source: Path,
    out: Path,
    place: int,
    files: Sequence[str],
    options: Sequence[str] = (),
    lines: str = "",
) -> Path:
    """Compile and link one program, whose version is the name of the folder ``out``.

    Args:
        chip: that it is for.
        source: the folder of the C files.
        out: gets it.
        place: where it lies.
        files: that are its own, from the folder or with their whole paths.
        options: for the compiler.
        lines: for the linker, before its script.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines += f"program_place = {place:#x};\nstack_top = {chip.stack_top:#x};\n"
    script = out / "program.ld"
    script.write_text(lines + (source / script.name).read_text("utf-8"), encoding="utf-8")
    elf = out / "program.elf"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += [f"-mcpu={chip.cpu}", "-std=c11", "-Os", "-g", "-Wall", "-Wextra", "-Werror"]
    command += ["-ffreestanding", "-nostdlib", "-ffunction-sections", "-fno-sanitize=all"]
    command += ["-Wl,--gc-sections,--entry=vectors", "-fdebug-compilation-dir=."]
    command += [f"-ffile-prefix-map={source}=.", f"-D{chip.name.upper()}", f"-DVERSION={out.name}"]
    command += [str(source / name) for name in ("cortexm.c", f"{chip.name}.c", *files)]
    command += options
    command += ["-T", str(script), "-o", str(elf)]
    subprocess.run(command, check=True)
    return elf


def read_program(elf: Path) -> bytearray:
    """What an ELF file loads, from its first byte on."""
    with elf.open("rb") as stream:
        parts = [part for part in ELFFile(stream).iter_segments("PT_LOAD") if part["p_filesz"]]
        first = parts[0]["p_paddr"]
        image = bytearray()
        for part in parts:
            image = image.ljust(part["p_paddr"] - first, b"\xff") + part.data()
    return image


def make_stage_2(source: Path, scratch: Path) -> bytes:
    """The second stage, which the boot ROM of an RP2040 starts.

    Args:
        source: the folder of its assembly.
        scratch: a folder for what comes between.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    elf, script = scratch / "stage2.elf", scratch / "stage2.ld"
    lines = "PHDRS { ram PT_LOAD; } SECTIONS { .text 0x20041F00 : { *(.vectors) } :ram }\n"
    script.write_text(lines, encoding="utf-8")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += ["-mcpu=cortex_m0plus", "-ffreestanding", "-nostdlib", "-fno-sanitize=all"]
    command += ["-Wl,--gc-sections,--entry=vectors", "-T", str(script)]
    command += [str(source / "rp2040_stage2.S"), "-o", str(elf)]
    subprocess.run(command, check=True)
    return add_checksum(bytes(read_program(elf)))


def add_checksum(code: bytes) -> bytes:
    """A second stage with the CRC-32 that the ROM compares.

    Its bits go from the left, and are not inverted at the end.
    """
    if len(code) > STAGE_2_SIZE - 4:
        raise SystemExit(f"the second stage has {len(code)} bytes")
    code = code.ljust(STAGE_2_SIZE - 4, b"\0")
    checksum = 0xFFFF_FFFF
    for byte in code:
        checksum ^= byte << 24
        for _ in range(8):
            top = checksum >> 31
            checksum = checksum << 1 & 0xFFFF_FFFF ^ (0x04C1_1DB7 if top else 0)
    return code + struct.pack("<I", checksum)


def make_image(program: bytearray, version: int) -> bytes:
    """The program with its header, filled up to whole blocks."""
    image = program + b"\xff" * (-len(program) % BLOCK_SIZE)
    struct.pack_into("<4I", image, HEADER_OFFSET, MAGIC, version, len(image), 0)
    struct.pack_into("<I", image, HEADER_OFFSET + 12, zlib.crc32(image))
    return bytes(image)


def build(out: Path, source: Path = HERE, chips: tuple[Chip, ...] = CHIPS) -> None:
    """Build all of it.

    Args:
        out: gets a folder for each chip.
        source: the folder of the C files.
        chips: for which.
    """
    for chip in chips:
        folder = out / chip.name
        scratch = folder / "scratch"
        boot = link(chip, source, scratch / "0", chip.boot, ("image.c", "boot.c"))
        boot.replace(folder / "boot.elf")
        if chip.name == "rp2040":
            (folder / "stage2.bin").write_bytes(make_stage_2(source, scratch))
        for version, slot in ((1, chip.slot_a), (2, chip.slot_b)):
            elf = link(chip, source, scratch / str(version), slot, ("image.c", "app.c"))
            image = make_image(read_program(elf), version)
            (folder / f"app-v{version}.bin").write_bytes(image)
            elf.replace(folder / f"app-v{version}.elf")
        shutil.rmtree(scratch)


def read_hunks(patch: str) -> Iterator[tuple[str, str, str]]:
    """The file, the lines before and the lines after, of each hunk of a unified diff."""
    name, before, after = "", "", ""
    for line in [*patch.splitlines(keepends=True), "@@"]:
        if line.startswith(("@@", "---")) and before:
            yield name, before, after
            before = after = ""
        if line.startswith("+++ b/"):
            name = line[len("+++ b/") :].strip()
        elif name and not line.startswith(("@@", "---")):
            before += line[1:] if line[0] in " -" else ""
            after += line[1:] if line[0] in " +" else ""


def put_bug(bug: str, source: Path, bugs: Path = HERE / "bugs") -> None:
    """Put a bug of the folder ``bugs`` into a copy of the C files."""
    for name, before, after in read_hunks((bugs / f"{bug}.patch").read_text("utf-8")):
        text = (source / name).read_text("utf-8")
        if text.count(before) != 1:
            raise SystemExit(f"{bug} does not fit to {name}")
        (source / name).write_text(text.replace(before, after), encoding="utf-8")


def copy_sources(out: Path) -> None:
    """Copy the C files, and what they are linked with."""
    for file in HERE.iterdir():
        if file.suffix in {".c", ".h", ".ld", ".S"}:
            shutil.copy(file, out)


def build_demo(out: Path, chip: str = "stm32f103", bug: str = "no-fallback") -> None:
    """Make what `unbrick demo` plays: a target without and one with a bug, and their sources."""
    chips = tuple(one for one in CHIPS if one.name == chip)
    for name in ("good", "bug"):
        folder = out / name
        folder.mkdir(parents=True)
        copy_sources(folder)
        if name == "bug":
            put_bug(bug, folder)
            shutil.copy(HERE / "bugs" / f"{bug}.patch", folder / "bug.patch")
        build(folder / "build", folder, chips)
        target = (HERE / f"{chip}.toml").read_text("utf-8").replace(f"ab-{chip}", name)
        (folder / "target.toml").write_text(target, encoding="utf-8")


def run_command_line(
    about: str,
    here: Path,
    build: Callable[[Path, Path], None],
    copy_sources: Callable[[Path], None],
) -> None:
    """Build what the command line wants.

    Args:
        about: what is built, for people.
        here: the folder of the example.
        build: builds it into a folder, from the C files of another one.
        copy_sources: copies these.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, default=here / "build", help="default: build")
    bugs = sorted(file.stem for file in (here / "bugs").glob("*.patch"))
    parser.add_argument("--bug", choices=bugs, help="put this bug into it")
    options = parser.parse_args()
    if options.bug is None:
        build(options.out, here)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(Path(folder))
        put_bug(options.bug, Path(folder), here / "bugs")
        build(options.out, Path(folder))


if __name__ == "__main__":
    run_command_line("Build the A/B updater for its chips.", HERE, build, copy_sources)
