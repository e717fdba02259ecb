"""Compiles the C device models into ``libdevices.so`` with the pinned ``ziglang`` package.

Runs at install (``setup.py``), so it uses the standard library alone.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "c" / "devices.c"
LIBRARY_NAME = "libdevices.so"


def _target() -> list[str]:
    """Any processor of this kind, and an old glibc, so that a wheel can be carried elsewhere."""
    machine = platform.machine()
    if platform.system() == "Linux" and machine in {"x86_64", "aarch64"}:
        return ["-target", f"{machine}-linux-gnu.2.17", "-mcpu=baseline"]
    return []


def compile_devices(folder: Path) -> Path:
    """Compile the models into ``folder`` and return the library's path.

    Raises:
        RuntimeError: the compiler failed; its text is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY_NAME
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / LIBRARY_NAME
        command = [sys.executable, "-m", "ziglang", "cc", *_target(), "-std=c11", "-O2"]
        command += ["-Wall", "-Wextra", "-Werror", "-fno-sanitize=all", "-shared", "-fPIC"]
        command += ["-s", "-o", str(fresh), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            msg = f"the device models did not compile:\n{done.stderr}"
            raise RuntimeError(msg)
        fresh.replace(library)
    return library


if __name__ == "__main__":
    print(compile_devices(Path(__file__).parent))
