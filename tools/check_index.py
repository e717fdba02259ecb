"""Sees that the set-up needs no compiler: the package index has a wheel of every pinned package.

For each version of Python that Unbrick runs on, pip looks for the wheels of `constraints.txt`;
nothing is installed. What only `make bench` installs stands at the end of the file and may be
compiled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
BENCH = "`make bench`"


def pins(version: str) -> list[str]:
    """What the set-up may install on that Python, as ``name==version``."""
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    found = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if BENCH in line:
            break
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                found.append(f"{requirement.name}{requirement.specifier}")
    return found


def look(version: str) -> str:
    """Pip's complaint about what has no wheel for that Python, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("\n".join(pins(version)) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--disable-pip-version-check", "--ignore-installed", "--only-binary", ":all:"]
        command += ["--implementation", "cp", "--python-version", version, "--target", folder]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        command += ["--requirement", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def main() -> int:
    """Returns the exit code."""
    with ThreadPoolExecutor() as workers:
        complaints = list(workers.map(look, VERSIONS))
    for version, complaint in zip(VERSIONS, complaints, strict=True):
        print(f"Python {version}: {complaint or f'{len(pins(version))} packages have a wheel'}")
    return int(any(complaints))


if __name__ == "__main__":
    sys.exit(main())
