"""The restoration apparatus on a serial port: a real one, a pseudo-terminal or a TCP socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import serial

from unbrick.board.description import BOARD
from unbrick.errors import ImageError, PortError
from unbrick.image.format import check_board, inspect
from unbrick.image.hexfile import read_image
from unbrick.restore.apparatus import Apparatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_READ_LIMIT = 4096
_LONGEST_WAIT = 0.5  # Seconds without a look at the clock and the progress.


class SerialLine:
    """A ``Line`` on anything that pyserial opens.

    Args:
        port: a device (``/dev/ttyUSB0``, ``COM3``), a pseudo-terminal, a URL of pyserial
            (``socket://host:port``, ``rfc2217://…``) or ``tcp:host:port``.
        baud: bits per second, 8N1.

    Raises:
        PortError: it does not exist or cannot be opened.
    """

    def __init__(self, port: str, baud: int = BOARD.baud) -> None:
        self.name = port
        url = f"socket://{port.removeprefix('tcp:')}" if port.startswith("tcp:") else port
        try:
            self._port = serial.serial_for_url(url, baudrate=baud, timeout=0)
        except (serial.SerialException, OSError, ValueError) as error:
            raise PortError(
                f"cannot open the port {port}: {_reason(error)}",
                hint="check its name and that no other program has it open; "
                "`python -m serial.tools.list_ports` lists the serial ports",
            ) from None
        self._ahead = b""

    def read(self) -> bytes:
        """All bytes that have arrived; may be empty.

        Raises:
            PortError: the port is gone.
        """
        return self._take(0.0, _READ_LIMIT)

    def write(self, data: bytes) -> None:
        """Send ``data``.

        Raises:
            PortError: the port is gone.
        """
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from None

    def wait(self, seconds: float) -> None:
        """Sleep until a byte arrives, at most ``seconds``.

        Raises:
            PortError: the port is gone.
        """
        if not self._ahead:
            self._ahead = self._take(seconds, 1)

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def __enter__(self) -> SerialLine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self, timeout: float, limit: int) -> bytes:
        ahead, self._ahead = self._ahead, b""
        try:
            self._port.timeout = timeout
            return ahead + bytes(self._port.read(limit))
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from None

    def _gone(self, error: Exception) -> PortError:
        return PortError(
            f"the port {self.name} is gone: {_reason(error)}",
            hint="connect it again and start anew",
        )


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


def _reason(error: Exception) -> str:
    """What went wrong in a few words; the libraries wrap it in many."""
    text = str(error)
    return next((words for known, words in _KNOWN.items() if known in text), text.splitlines()[0])


_KNOWN = {
    "No such file": "it does not exist",
    "Permission denied": "permission denied",
    "Connection refused": "nobody listens there",
    "socket disconnected": "the other side closed it",
}
