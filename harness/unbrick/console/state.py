"""A terminal's state as a file: the contents of its NOR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.board import BOARD
from unbrick.errors import ImageError, SetupError

if TYPE_CHECKING:
    from pathlib import Path

NOT_SAVED = "not saved: SRAM, CPU, what is on the lines, what the server knows"


def write_nor(path: Path, cells: bytes) -> None:
    """Write the NOR's contents so that the file is the old or the new one, never half of each.

    Raises:
        SetupError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(cells)
        fresh.replace(path)
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}", hint="choose another file"
        ) from error


def read_nor(path: Path) -> bytes:
    """The NOR's contents from a file.

    Raises:
        SetupError: it cannot be read.
        ImageError: it is larger than the NOR.
    """
    try:
        with path.open("rb") as file:
            cells = file.read(BOARD.nor.modelled + 1)
    except OSError as error:
        raise SetupError(
            f"cannot read {path}: {error.strerror}", hint="`save FILE` of the console writes one"
        ) from error
    if len(cells) > BOARD.nor.modelled:
        raise ImageError(
            f"{path} is larger than the NOR, which has {BOARD.nor.modelled} bytes",
            hint="`save FILE` of the console writes one",
        )
    return cells
