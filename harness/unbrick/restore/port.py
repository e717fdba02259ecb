"""The restoration apparatus on a serial port: a real one, a pseudo-terminal or a TCP socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unbrick.board.description import BOARD
from unbrick.engine.serial_port import SerialLine
from unbrick.errors import ImageError
from unbrick.image.format import check_board, inspect
from unbrick.image.hexfile import read_image
from unbrick.restore.apparatus import Apparatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LONGEST_WAIT = 0.5  # Seconds without a look at the clock and the progress.


def restore(
    port: str,
    image: Path,
    *,
    wait: float = 60.0,
    baud: int = BOARD.baud,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Apparatus], None] | None = None,
) -> Apparatus:
    """Restore the terminal on ``port`` with a signed image (Intel HEX or binary).

    Args:
        port: see ``SerialLine``.
        image: file with the image.
        wait: seconds to wait for a terminal that asks to be restored.
        baud: bits per second.
        say: called with every line that the terminal says.
        progress: called at every step.

    Returns:
        The apparatus, with what the terminal said.

    Raises:
        ImageError: the file is no image for this board.
        PortError: the port cannot be used.
        RestoreError: the terminal was not restored.
    """
    data = read_image(image)
    info = inspect(data)
    check_board(info)
    if not info.signed:
        raise ImageError(
            "the image is not signed: no terminal would accept it",
            hint="sign it: `unbrick image sign`",
        )
    with SerialLine(port, baud) as line:
        apparatus = Apparatus(line, data, info, wait=wait, say=say)
        try:
            while True:
                now = time.monotonic()
                deadline = apparatus.step(now)
                if progress is not None:
                    progress(apparatus)
                if apparatus.finished:
                    break
                left = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
                line.wait(min(max(left, 0.0), _LONGEST_WAIT))
        except KeyboardInterrupt:
            apparatus.cancel()
            raise
    if apparatus.error is not None:
        raise apparatus.error
    return apparatus
