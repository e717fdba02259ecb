"""Builds the store with the `ziglang` package, and writes its first values.

littlefs comes from the source distribution of `littlefs-python`, which pip fetches and checks by
its hash. `--bug NAME` builds the store with a bug of the folder `bugs`.
"""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from unbrick.board import load_chip
from unbrick.engine.mcu import McuEngine
from unbrick.errors import EngineError
from unbrick.folders import firmware_folder
from unbrick.packages import SourcePackage

HERE = Path(__file__).resolve().parent
UPDATER = HERE.parent / "ab-updater"
"""It has the code of the chip."""
UPDATER_BUILD = runpy.run_path(str(UPDATER / "build.py"))
"""What its program has for this one."""

LITTLEFS = SourcePackage(
    *("littlefs_python", "0.19.0"),
    "4ce8c6eeeb2703abaf8cb60f2dab624b17af42b13df3dbc6c42d4142bad79a59",
    own_build=True,
)
FILES = ("lfs.c", "lfs.h", "lfs_util.c", "lfs_util.h")
QUIET = ("NO_ASSERT", "NO_DEBUG", "NO_ERROR", "NO_MALLOC", "NO_WARN")
"""What littlefs leaves out."""

PAGES = (0x1_0000, 0x8000)
"""Where the store lies, and its bytes: pages.h."""

WITHIN_S = 10.0
"""Virtual seconds in which the store must have answered."""


def extract_littlefs(folder: Path) -> None:
    """Put littlefs' sources into a folder.

    Raises:
        SetupError: the package cannot be fetched.
    """
    with tarfile.open(LITTLEFS.fetch("littlefs")) as tar:
        for name in FILES:
            stream = tar.extractfile(f"{LITTLEFS.folder}/littlefs/{name}")
            (folder / name).write_bytes(stream.read() if stream else b"")


def link(elf: Path, source: Path, littlefs: Path) -> None:
    """Compile and link the store."""
    libc = firmware_folder() / "board" / "libc"
    places = (source, UPDATER, littlefs, source / "libc", libc)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += ["-mcpu=cortex_m4+soft_float", "-std=c11", "-Os", "-g", "-Wall", "-Wextra"]
    command += ["-ffreestanding", "-nostdlib", "-ffunction-sections", "-fno-sanitize=all"]
    command += ["-fdata-sections", "-Wl,--gc-sections,--entry=vectors", "-DNRF52840"]
    command += [f"-I{place}" for place in places] + [f"-DLFS_{name}" for name in QUIET]
    command += ["-fdebug-compilation-dir=."]
    command += [f"-ffile-prefix-map={place}=." for place in places]
    command += [str(path) for path in sorted(source.rglob("*.c"))]
    command += [str(littlefs / name) for name in FILES if name.endswith(".c")]
    command += [str(UPDATER / name) for name in ("cortexm.c", "nrf52840.c")]
    command += [str(libc / name) for name in ("memory.c", "aeabi.c")]
    command += ["-T", str(source / "program.ld"), "-o", str(elf)]
    subprocess.run(command, check=True)


def listen(engine: McuEngine) -> None:
    """Let the store run until it waits for a request."""
    said, end = b"", engine.now + WITHIN_S
    while not said.endswith(b"> "):
        if engine.now > end:
            raise EngineError(f"the store says {said!r} and no more", hint="debug it")
        engine.advance(WITHIN_S)
        said += engine.wire.read()


def write_pages(elf: Path) -> bytes:
    """The pages of a store that holds its first values, as the program itself writes them."""
    before = runpy.run_path(str(HERE / "driver.py"))["BEFORE"]
    chip = load_chip("nrf52840")
    image = bytearray(chip.factory_image)
    program = UPDATER_BUILD["read_program"](elf)
    image[: len(program)] = program
    with McuEngine(chip) as engine:
        engine.load_nor(bytes(image))
        engine.power_on()
        listen(engine)
        for request in ("format", *(f"put {key} {value}" for key, value in before.items()), "bye"):
            engine.wire.write(f"{request}\r".encode())
            listen(engine)
        engine.power_off()
        start, size = PAGES
        return engine.read_nor()[start : start + size]


def build(out: Path, source: Path = HERE) -> None:
    """Build all of it.

    Args:
        out: gets the program, and the pages of its store.
        source: the folder of the C files.

    Raises:
        SetupError: littlefs cannot be fetched.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as littlefs:
        extract_littlefs(Path(littlefs))
        link(out / "store.elf", source, Path(littlefs))
    (out / "pages.bin").write_bytes(write_pages(out / "store.elf"))


def copy_sources(out: Path) -> None:
    """Copy what is compiled and patched."""
    shutil.copytree(HERE, out, ignore=shutil.ignore_patterns("build*"), dirs_exist_ok=True)


if __name__ == "__main__":
    UPDATER_BUILD["run_command_line"]("Build the store on littlefs.", HERE, build, copy_sources)
