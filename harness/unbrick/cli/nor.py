"""The file of ``--nor``: what a terminal, or a chip, keeps from one run to the next."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unbrick.console.state import check_place, write_nor
from unbrick.lock import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unbrick.engine.base import Engine

nor_option = click.option(
    "--nor",
    "nor_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="NOR image: read at the start, written back at the end. Without it a terminal fresh "
    "from the factory is made and forgotten. Of a TARGET.toml: all flash of the chip.",
)


@contextmanager
def stored_nor(
    nor_file: Path | None, size: int, read: Callable[[Path], bytes]
) -> Iterator[bytes | None]:
    """Own the file while the block runs; gives what it holds, and None where there is none.

    Args:
        nor_file: as the option has it.
        size: of the image, in bytes.
        read: reads the file, and checks what it is.

    Raises:
        SetupError: it is in use, or something else than a NOR image would be lost.
        ImageError: it is no such image.
    """
    if nor_file is None:
        yield None
        return
    check_place(nor_file, size)
    with owned(nor_file, hint="give another --nor"):
        yield read(nor_file) if nor_file.exists() else None


@contextmanager
def switched_off(engine: Engine, nor_file: Path | None) -> Iterator[None]:
    """At the end of the block take the power away, and keep the NOR in the file."""
    try:
        yield
    finally:
        engine.power_off()
        if nor_file is not None:
            write_nor(nor_file, engine.read_nor())
