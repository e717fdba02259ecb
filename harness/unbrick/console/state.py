"""A terminal's state as a file: the contents of its NOR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.errors import ImageError, SetupError
from unbrick.image.factory import read_identity
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from pathlib import Path

_HINT = "`save FILE` of the console writes one, and so does `unbrick image factory`"

_ALWAYS = 0xE0
"""The condition of an ARM instruction that is always executed, in its last byte (ARM DDI 0406C,
A8.3). A boot begins with such an instruction, because that is the vector of the reset."""


def write_nor(path: Path, cells: bytes) -> None:
    """Write the NOR's contents. The file is the old or the new one, never half of each.

    Raises:
        SetupError: it cannot be written.
    """
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(cells)
        fresh.replace(path)
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}", hint="choose another file"
        ) from error


def check_place(path: Path, size: int) -> None:
    """Check that a NOR image may take the place ``path``, and that nothing else is lost by that.

    Args:
        path: of the file; there need be none yet.
        size: of the image, in bytes.

    Raises:
        SetupError: ``path`` is something else than a NOR image, or there is no folder for it.
    """
    try:
        if not path.exists():
            if not path.parent.is_dir():
                raise SetupError(
                    f"cannot write {path}: there is no folder {path.parent}", hint="make it first"
                )
        elif not path.is_file() or path.stat().st_size != size:
            raise SetupError(
                f"{path} is there already, and is no NOR image", hint="choose another file"
            )
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}", hint="choose another file"
        ) from error


def read_terminal_nor(path: Path) -> bytes:
    """The contents of a terminal's NOR from a file.

    Raises:
        SetupError: it cannot be read.
        ImageError: it is not the image of a terminal's NOR.
    """
    cells = read_nor(path, reference_layout().board.nor.modelled)
    if not (_has_identity(cells) or cells[3] & 0xF0 == _ALWAYS):
        raise ImageError(
            f"{path} is no NOR image: it has neither boot nor the identity of a terminal",
            hint=_HINT,
        )
    return cells


def read_nor(path: Path, size: int) -> bytes:
    """A NOR's contents from a file, whatever they are.

    Args:
        path: of the file.
        size: of the image, in bytes.

    Raises:
        SetupError: it cannot be read.
        ImageError: it has another size.
    """
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path} is no file", hint=_HINT)
        with path.open("rb") as file:
            cells = file.read(size + 1)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}", hint=_HINT) from error
    if len(cells) != size:
        there = f"{len(cells)} bytes" if len(cells) < size else "more"
        raise ImageError(
            f"{path} is no NOR image, which has {size} bytes: it has {there}",
            hint=_HINT,
        )
    return cells


def _has_identity(cells: bytes) -> bool:
    try:
        read_identity(cells)
    except ImageError:
        return False
    return True
