"""Folders: the firmware's sources, the Renode platform, the demo, and builds.

In a checkout the sources are at its root, beside ``harness/``. A wheel carries them inside the
package, in ``_data`` (``setup.py``).
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGE = Path(__file__).resolve().parent
_CARRIED = _PACKAGE / "_data"
"""The sources in a wheel; not there in a checkout."""

_FIRMWARE_VARIABLE = "UNBRICK_FIRMWARE"
_CACHE_VARIABLE = "UNBRICK_CACHE"


def firmware_folder() -> Path:
    """The folder with the firmware's sources: ``UNBRICK_FIRMWARE``, or that of Unbrick.

    Raises:
        SetupError: there is none.
    """
    given = os.environ.get(_FIRMWARE_VARIABLE)
    folder = Path(given) if given else _our_folder("firmware")
    if not (folder / "boot").is_dir():
        raise SetupError(
            f"there are no firmware sources in {folder}",
            hint=f"set {_FIRMWARE_VARIABLE} to a copy of the folder `firmware` of the repository"
            if given
            else "install Unbrick again, from its wheel or its whole source tree",
        )
    return folder.absolute()


def renode_folder() -> Path:
    """The folder with the terminal as a Renode platform.

    Raises:
        SetupError: there is none.
    """
    folder = _our_folder("renode")
    if not (folder / "platform.resc").is_file():
        raise SetupError(
            f"the Renode platform is not in {folder}",
            hint="install Unbrick again, from its wheel or its whole source tree",
        )
    return folder


def make_demo(out: Path) -> None:
    """Put what ``unbrick demo`` plays into a folder that is not there yet.

    A wheel carries it, built already; a checkout builds it.

    Raises:
        SetupError: there is none.
        ModuleNotFoundError: there is no compiler in a checkout.
    """
    builder = _PACKAGE.parents[1] / "examples" / "ab-updater" / "build.py"
    if (_CARRIED / "demo").is_dir():
        shutil.copytree(_CARRIED / "demo", out)
    elif builder.is_file():
        import ziglang  # noqa: F401, PLC0415 - an extra

        runpy.run_path(str(builder))["build_demo"](out)
    else:
        raise SetupError(
            "the demo is not there",
            hint="install Unbrick again, from its wheel or its whole source tree",
        )


def cache_folder() -> Path:
    """Where downloads and builds are kept for later. It may not be there yet.

    ``UNBRICK_CACHE``, or ``unbrick`` in ``XDG_CACHE_HOME`` (XDG Base Directory Specification).
    """
    given = os.environ.get(_CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "unbrick"


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where things are kept for this user beyond one run. It may not be there yet.

    ``unbrick`` in ``XDG_STATE_HOME`` or its default (XDG Base Directory Specification).
    """
    given = environ.get("XDG_STATE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return base / "unbrick"


def build_folder(project: Path | None = None) -> Path:
    """Where the firmware is built when nobody says where.

    Sources of a checkout, or in ``UNBRICK_FIRMWARE``, are built in ``build/firmware`` of the
    project: somebody works on them. Those of a wheel are built in the cache, once for all projects,
    each version in a folder of its own.

    Args:
        project: folder of the project; by default the current one.
    """
    carried = _CARRIED / "firmware"
    if os.environ.get(_FIRMWARE_VARIABLE) or _our_folder("firmware") != carried:
        return (project or Path()) / "build" / "firmware"
    digest = hashlib.sha256()
    for path in sorted(carried.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(carried).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return cache_folder() / "firmware" / digest.hexdigest()[:16]


def _our_folder(name: str) -> Path:
    """The checkout's, if this module is in one; else the wheel's."""
    root = _PACKAGE.parents[1]
    if root / "harness" / "unbrick" == _PACKAGE and (root / name).is_dir():
        return root / name
    return _CARRIED / name
