"""Compiles the engines' C models into shared libraries with the pinned ``ziglang`` package.

Runs at install (``setup.py``), so it uses the standard library alone.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ENGINES = Path(__file__).parents[1]
LIBRARIES = {"inprocess": "libdevices.so", "mcu": "libmcu.so"}
"""The engines with models in C, each in a folder ``c``, and what these are compiled into."""


MACHINES = ("x86_64", "aarch64")
"""The processors, with Linux, that wheels are made for."""

GLIBC = "2.17"
"""The oldest C library that will do: that of manylinux2014 (PEP 599)."""


def _target(machine: str | None) -> list[str]:
    """Any processor of the kind, and an old glibc, so that a wheel can be carried elsewhere."""
    if machine is None and platform.system() == "Linux" and platform.machine() in MACHINES:
        machine = platform.machine()
    return [] if machine is None else ["-target", f"{machine}-linux-gnu.{GLIBC}", "-mcpu=baseline"]


def compile_models(engine: str, folder: Path, machine: str | None = None) -> Path:
    """Compile the models of an engine into ``folder`` and return the library's path.

    Args:
        engine: one of ``LIBRARIES``.
        folder: is made when it is not there.
        machine: one of ``MACHINES``; by default the one that this runs on.

    Raises:
        RuntimeError: the compiler failed; its text is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, sources = LIBRARIES[engine], ENGINES / engine / "c"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / name
        command = [sys.executable, "-m", "ziglang", "cc", *_target(machine), "-std=c11", "-O2"]
        # zig would leave assertions out; what they say names no path of this machine.
        command += ["-UNDEBUG", f"-ffile-prefix-map={sources}=c"]
        command += ["-Wall", "-Wextra", "-Werror", "-fno-sanitize=all", "-shared", "-fPIC"]
        command += ["-fvisibility=hidden", "-s", "-o", str(fresh)]
        command += map(str, sorted(sources.glob("*.c")))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"the models of the engine {engine} did not compile:\n{done.stderr}"
            raise RuntimeError(msg)
        return fresh.replace(folder / name)


def compile_all(engines: Path, machine: str | None = None) -> list[Path]:
    """Compile the models of every engine; see :func:`compile_models`.

    Args:
        engines: the folder that has a folder for each engine, such as ``unbrick/engine``.
        machine: one of ``MACHINES``; by default the one that this runs on.
    """
    return [compile_models(engine, engines / engine, machine) for engine in LIBRARIES]


if __name__ == "__main__":
    print(*compile_all(ENGINES), sep="\n")
