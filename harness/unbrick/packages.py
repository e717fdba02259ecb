"""What is not ours and not in the tree: archives of a package index, and clones of a developer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.errors import SetupError, UnbrickError
from unbrick.folders import cache_folder
from unbrick.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CORPUS = "UNBRICK_CORPUS"
"""The environment variable that names a clone, or a folder in which clones are."""


def find_clone(repository: str, files: Iterable[str]) -> Path:
    """The developer's clone of a public repository with firmware.

    Args:
        repository: of GitHub, as ``feaser/openblt``.
        files: of it, which must be there: paths.

    Raises:
        SetupError: it is not named, or something is missing in it.
    """
    named = os.environ.get(CORPUS, "")
    hint = f"clone github.com/{repository}, and name its folder, or the one around it, by {CORPUS}"
    if not named:
        raise SetupError(f"{CORPUS} names no folder with a clone of {repository}", hint=hint)
    around = Path(named).resolve()
    own = around / repository.rpartition("/")[2]
    clone = own if own.is_dir() else around
    missing = [path for path in map(clone.joinpath, files) if not path.is_file()]
    if missing:
        raise SetupError(f"{missing[0]} is missing", hint=hint)
    return clone


def run_by_hand(prepare: Callable[[], object], told: str) -> None:
    """What an example's script does for a person: prepare all, and say so or what is wrong.

    Args:
        prepare: writes the files of the example.
        told: what is said then.

    Raises:
        SystemExit: it could not; what to do is said.
    """
    try:
        prepare()
    except UnbrickError as error:
        sys.exit(f"{error}\n{error.hint}")
    sys.stdout.write(f"{told}\n")


@dataclass(frozen=True)
class SourcePackage:
    """One version of a package.

    Attributes:
        name: in the index.
        version: of it.
        sha256: of its archive, in hexadecimal digits.
        own_build: whether pip must fetch what the package is built with, to look into it; else
            setuptools and cffi do.
    """

    name: str
    version: str
    sha256: str
    own_build: bool = False

    @property
    def folder(self) -> str:
        """The name of the folder in its archive that has everything."""
        return f"{self.name}-{self.version}"

    @property
    def archive(self) -> str:
        """The name of its file."""
        return f"{self.folder}.tar.gz"

    def fetch(self, what: str) -> Path:
        """The archive, as it was checked; it is downloaded once, into the cache.

        Args:
            what: is wanted of it, for people.

        Raises:
            SetupError: it cannot be had, or is not the one.
        """
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / self.archive
        with locked(archive.with_suffix(".lock")):
            if not self._is_genuine(archive):
                self._download(archive, what)
        return archive

    def _is_genuine(self, archive: Path) -> bool:
        try:
            return hashlib.sha256(archive.read_bytes()).hexdigest() == self.sha256
        except OSError:
            return False

    def _download(self, archive: Path, what: str) -> None:
        with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
            pin = Path(scratch) / "requirements.txt"
            pin.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--disable-pip-version-check"]
            command += [] if self.own_build else ["--no-build-isolation"]
            command += ["--no-binary", self.name, "--require-hashes"]
            command += ["--dest", scratch, "--requirement", str(pin)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            fetched = Path(scratch) / self.archive
            if done.returncode or not self._is_genuine(fetched):
                raise SetupError(
                    f"{what} ({self.folder}) could not be fetched: "
                    f"{done.stderr.strip() or 'pip brought another file'}",
                    hint="see that pip reaches a package index and that setuptools and cffi are "
                    f"installed, or put {self.archive} into {archive.parent}",
                )
            fetched.replace(archive)
