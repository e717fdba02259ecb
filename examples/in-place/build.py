"""Builds the example with the `ziglang` package, into the folder `build`.

`boot.elf`, the application in versions 1 and 2 (`app-v1.bin`, `app-v2.bin`, and their ELF files),
and `update.bin`, the differential file between them as it is staged. `--bug NAME` builds it with a
bug of the folder `bugs`, `--log-pages N` with another size of the log.

The decoder is that of the folder `firmware/lib`, SHA-256 is libsodium's. Start-up, UART and flash
are those of the example `ab-updater`.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from unbrick.delta import encode
from unbrick.firmware.build import fetch_libsodium

HERE = Path(__file__).resolve().parent
OTHER = HERE.parent / "ab-updater"
SHARED = ("chip.h", "cortexm.c", "nrf52840.c")
FIRMWARE = HERE.parents[1] / "firmware"
LIBRARY = ("lib/crc.c", "board/libc/memory.c", "board/libc/aeabi.c", "board/sodium.c")
HASH = "crypto_hash/sha256/cp/hash_sha256_cp.c"
"""Of libsodium."""
STAGED_MAGIC = 0x53415455  # layout.h
APP = 0x8000
PAGE_SIZE = 4096
RAM_START = 0x2000_0000


AB = runpy.run_path(str(OTHER / "build.py"))
"""What the other example is built with."""
CHIP = AB["Chip"]("nrf52840", "cortex_m4", 0, APP, APP, 0x2004_0000)


def link(source: Path, out: Path, place: int, files: list[str], options: list[str]) -> Path:
    """Compile and link one program."""
    options = [*options, f"-I{FIRMWARE}", f"-I{FIRMWARE / 'board' / 'libc'}", f"-I{source}"]
    options += ["-fno-builtin", f"-ffile-prefix-map={FIRMWARE}=firmware"]
    lines = f"ram_start = {RAM_START:#x};\n"
    if place == APP:
        lines += f"page_size = {PAGE_SIZE};\n"
    elf: Path = AB["link"](CHIP, source, out, place, files, options, lines)
    return elf


def make_staged(file: bytes) -> bytes:
    """A differential file as it is staged (``struct staged``)."""
    return struct.pack("<3I", STAGED_MAGIC, len(file), zlib.crc32(file)) + file


def build(out: Path, source: Path = HERE, log_pages: int = 3) -> None:
    """Build all of it.

    Args:
        out: gets a folder for the chip.
        source: the folder of the C files.
        log_pages: of the log.
    """
    folder = out / CHIP.name
    scratch = folder / "scratch"
    with tempfile.TemporaryDirectory() as name:
        sources = Path(name)
        copy_sources(sources, source)
        decoder = sorted((FIRMWARE / "lib").glob("delta*.c"))
        library = [str(file) for file in (*decoder, *(FIRMWARE / one for one in LIBRARY))]
        sodium = fetch_libsodium()
        files = ["boot.c", "update.c", "sha256.c", *library, str(sodium / HASH)]
        options = [f"-isystem{sodium / 'include' / part}" for part in ("sodium", "")]
        options += [f"-ffile-prefix-map={sodium}=libsodium", "-DCONFIGURED=1"]
        options += [f"-DLOG_PAGES={log_pages}u"]
        link(sources, scratch / "0", 0, files, options).replace(folder / "boot.elf")
        images = []
        for version in (1, 2):
            elf = link(sources, scratch / str(version), APP, ["app.c"], [])
            images.append(bytes(AB["read_program"](elf)))
            (folder / f"app-v{version}.bin").write_bytes(images[-1])
            elf.replace(folder / f"app-v{version}.elf")
    old, new = images
    (folder / "update.bin").write_bytes(make_staged(encode(old, new, base_address=APP)))
    shutil.rmtree(scratch)


def copy_sources(out: Path, source: Path = HERE) -> None:
    """Copy the C files, and those that both examples share."""
    shared = [OTHER / name for name in SHARED]
    for file in (*shared, *source.iterdir()):
        if file.suffix in {".c", ".h", ".ld"}:
            shutil.copy(file, out)


def put_bug(bug: str, source: Path) -> None:
    """Put a bug into a copy of the C files."""
    AB["put_bug"](bug, source, HERE / "bugs")


def main() -> None:
    """Build what the command line wants."""
    parser = argparse.ArgumentParser(description="Build the in-place updater for the nRF52840.")
    parser.add_argument("--out", type=Path, default=HERE / "build", help="default: build")
    bugs = sorted(file.stem for file in (HERE / "bugs").glob("*.patch"))
    parser.add_argument("--bug", choices=bugs, help="put this bug into it")
    parser.add_argument("--log-pages", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_sources(Path(folder))
        if options.bug is not None:
            put_bug(options.bug, Path(folder))
        build(options.out, Path(folder), options.log_pages)


if __name__ == "__main__":
    main()
