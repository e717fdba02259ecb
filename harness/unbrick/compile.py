"""Compiles what is written in C into shared libraries, with the pinned ``ziglang`` package.

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


def compile_all(package: Path, machine: str | None = None) -> list[Path]:
    """Compile every library; see :func:`compile_library`.

    Args:
        package: the folder of the package ``unbrick``, into which they go.
        machine: one of ``MACHINES``; by default the one that this runs on.
    """
    return [compile_library(part, package / part, machine) for part in LIBRARIES]


if __name__ == "__main__":
    print(*compile_all(PACKAGE), sep="\n")
