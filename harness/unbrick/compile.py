"""Compiles what is written in C: shared libraries, and boot ROMs of chips, with ``ziglang``.

Runs at install (``setup.py``), so it uses the standard library alone.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parent
LIBRARIES = {
    "engine/inprocess": "libdevices.so",
    "engine/mcu": "libmcu.so",
    "campaign": "libbook.so",
    "delta": "libdelta.so",
    "flash": "libbits.so",
}
"""The parts that are written in C, each in a folder ``c``, and what these are compiled into.

A folder ``c`` beside parts has what they share. ``delta`` includes sources of the firmware.
"""

FIRMWARE = next(
    (
        folder
        for folder in (PACKAGE.parents[1] / "firmware", PACKAGE / "_data" / "firmware")
        if (folder / "lib").is_dir()
    ),
    None,
)
"""Its sources: of the checkout, or those that a wheel carries."""

ROMS = PACKAGE / "board" / "roms"
"""Boot ROMs of chips, each in a folder of its own."""

_ROM_CORE = "cortex_m0plus"

MACHINES = ("x86_64", "aarch64")
"""The processors, with Linux, that wheels are made for."""

GLIBC = "2.17"
"""The oldest C library that will do: that of manylinux2014 (PEP 599)."""


def _target(machine: str | None) -> list[str]:
    """Any processor of the kind, and an old glibc, so that a wheel can be carried elsewhere."""
    if machine is None and platform.system() == "Linux" and platform.machine() in MACHINES:
        machine = platform.machine()
    return [] if machine is None else ["-target", f"{machine}-linux-gnu.{GLIBC}", "-mcpu=baseline"]


def compile_library(part: str, folder: Path, machine: str | None = None) -> Path:
    """Compile the C files of a part into ``folder`` and return the library's path.

    Args:
        part: one of ``LIBRARIES``.
        folder: is made when it is not there.
        machine: one of ``MACHINES``; by default the one that this runs on.

    Raises:
        RuntimeError: the compiler failed; its text is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, place = LIBRARIES[part], PACKAGE / part
    folders = [folder / "c" for folder in (place, place.parent) if (folder / "c").is_dir()]
    included = [*folders, FIRMWARE] if FIRMWARE else folders
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / name
        command = [sys.executable, "-m", "ziglang", "cc", *_target(machine), "-std=c11", "-O2"]
        # zig would leave assertions out; what they say names no path of this machine.
        command += ["-UNDEBUG", *(f"-ffile-prefix-map={sources}=c" for sources in included)]
        command += [f"-I{sources}" for sources in included]
        command += ["-Wall", "-Wextra", "-Werror", "-fno-sanitize=all", "-shared", "-fPIC"]
        command += ["-fvisibility=hidden", "-s", "-lm", "-o", str(fresh)]
        command += [str(file) for sources in folders for file in sorted(sources.glob("*.c"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"the C files of {part} did not compile:\n{done.stderr}"
            raise RuntimeError(msg)
        return fresh.replace(folder / name)


def compile_rom(name: str, folder: Path) -> Path:
    """Compile the boot ROM of a chip into ``folder`` and return its image.

    Args:
        name: of its folder in ``board/roms``.
        folder: is made when it is not there.

    Raises:
        RuntimeError: the compiler failed; its text is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = ROMS / name
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        arithmetic, elf = Path(scratch) / "libarithmetic.a", Path(scratch) / f"{name}.elf"
        _run_zig(
            *("build-lib", str(_find_compiler_rt()), "-target", "thumb-freestanding-eabi"),
            *("-mcpu", _ROM_CORE, "-O", "ReleaseSmall", "-ffunction-sections", "-fdata-sections"),
            *("-fstrip", f"-femit-bin={arithmetic}"),
        )
        _run_zig(
            *("cc", "-target", "thumb-freestanding-eabi", f"-mcpu={_ROM_CORE}", "-std=c11", "-Os"),
            *("-ffreestanding", "-nostdlib", "-ffunction-sections", "-fno-sanitize=all"),
            *("-Wall", "-Wextra", "-Werror", f"-I{sources.parent.parent}"),
            *(f"-Wl,-T,{sources / 'rom.ld'}", "-Wl,--gc-sections,--entry=start", "-o", str(elf)),
            *map(str, sorted((*sources.glob("*.c"), *sources.glob("*.S")))),
            str(arithmetic),
        )
        fresh = Path(scratch) / f"{name}.bin"
        _run_zig("objcopy", "-O", "binary", str(elf), str(fresh))
        return fresh.replace(folder / fresh.name)


def _find_compiler_rt() -> Path:
    """The source of the compiler's library, which divides and calculates without an FPU."""
    import ziglang  # noqa: PLC0415 - only who compiles has it

    return Path(ziglang.__file__).parent / "lib" / "compiler_rt.zig"


def _run_zig(*arguments: str) -> None:
    command = [sys.executable, "-m", "ziglang", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"a boot ROM did not compile:\n{done.stderr}"
        raise RuntimeError(msg)


def compile_all(package: Path, machine: str | None = None) -> list[Path]:
    """Compile every library and every boot ROM.

    Args:
        package: the folder of the package ``unbrick``, into which they go.
        machine: one of ``MACHINES``; by default the one that this runs on.
    """
    libraries = [compile_library(part, package / part, machine) for part in LIBRARIES]
    roms = [
        compile_rom(path.name, package / "board" / "roms")
        for path in sorted(ROMS.iterdir())
        if (path / "rom.ld").is_file()
    ]
    return libraries + roms


if __name__ == "__main__":
    print(*compile_all(PACKAGE), sep="\n")
