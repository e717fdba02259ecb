"""Serial ports of this machine, and on them the engine ``serial``: a terminal that is a real board.

The board runs by the clock, and shows nothing but its two lines. Flash operations, virtual time and
the firmware's mistakes are not known here, as they are in emulation. The contents of the NOR are
known only through commands of the board file, while the power is off.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import serial

from unbrick.engine.base import Engine
from unbrick.engine.serial.board_file import PLACEHOLDER
from unbrick.engine.serial.power import run_command
from unbrick.errors import EngineError, NotKnownHereError, PortError, UnbrickError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.board import Board
    from unbrick.engine.base import FirmwareFault
    from unbrick.engine.serial.board_file import BoardFile

POLL_INTERVAL_S = 0.002  # between two looks at the lines
SILENCE_S = 0.05  # without a byte after which nothing more is under way
NOISE_TIMEOUT_S = 1.0  # after which a line without power that is not silent is noise
MAX_WAITING_BYTES = 1 << 20  # wait to be read; older ones are lost
NOR_TIMEOUT_S = 1800.0  # for a command that writes or reads the whole NOR

_READ_SIZE = 4096
_WRITE_TIMEOUT_S = 10.0  # 40 times what the buffers of a port take to empty
_SHARED = "socket://", "rfc2217://", "tcp:", "loop://"


class SerialLine:
    """A ``Line`` on anything that pyserial opens; a device is ours alone as long as it is open.

    Args:
        port: a device (``/dev/ttyUSB0``, ``COM3``), a pseudo-terminal, a URL of pyserial
            (``socket://host:port``, ``rfc2217://…``) or ``tcp:host:port``.
        baud: bits per second, 8N1.

    Raises:
        PortError: it does not exist or cannot be opened.
    """

    def __init__(self, port: str, baud: int) -> None:
        self.name = port
        url = f"socket://{port.removeprefix('tcp:')}" if port.startswith("tcp:") else port
        exclusive = None if port.startswith(_SHARED) else True
        try:
            self._port = serial.serial_for_url(
                url, baudrate=baud, timeout=0, write_timeout=_WRITE_TIMEOUT_S, exclusive=exclusive
            )
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
        return self._take(0.0, _READ_SIZE)

    def write(self, data: bytes) -> None:
        """Send ``data``.

        Raises:
            PortError: the port is gone, or takes nothing for 10 s.
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


class _BoardLine:
    """One line of the board: deaf while the power is off."""

    def __init__(self, port: SerialLine) -> None:
        self.port = port
        self.powered = False
        self._heard = b""

    def write(self, data: bytes) -> None:
        """Send ``data``; without power it is lost."""
        if self.powered:
            self.port.write(data)

    def read(self) -> bytes:
        """What the terminal has sent since the last call, up to the last power cut."""
        if self.powered:
            self.fetch()
        heard, self._heard = self._heard, b""
        return heard

    def fetch(self) -> bool:
        """Take what has arrived; returns whether that was anything."""
        data = self.port.read()
        self._heard = (self._heard + data)[-MAX_WAITING_BYTES:]
        return bool(data)

    def fetch_until_silent(self) -> None:
        """Take what is still under way although the power is gone."""
        limit = time.monotonic() + NOISE_TIMEOUT_S
        quiet_since = time.monotonic()
        while quiet_since + SILENCE_S > time.monotonic() < limit:
            if self.fetch():
                quiet_since = time.monotonic()
            time.sleep(POLL_INTERVAL_S)

    def discard(self) -> None:
        """Drop what came while there was no power: it is noise."""
        limit = time.monotonic() + NOISE_TIMEOUT_S
        while self.port.read() and time.monotonic() < limit:
            pass


class SerialEngine(Engine):
    """A terminal that is a real board, on two serial ports and a switch for its power.

    Making it opens the ports and switches the board off, as it is not known what it does.

    Args:
        file: what the board file says.
        board: the hardware.

    Raises:
        PortError: a port cannot be opened.
        EngineError: the power cannot be switched.
        SetupError: what switches the power is not there.
    """

    name = "serial"

    def __init__(self, file: BoardFile, board: Board) -> None:
        self.board, self._file = board, file
        self._start = time.monotonic()
        self._power = file.make_power()
        self._lines: list[_BoardLine] = []
        try:
            for port in (file.wire, file.modem):
                self._lines.append(_BoardLine(SerialLine(port, file.baud)))
            self._power.off()
        except UnbrickError:
            self._close_ports()
            raise
        self.wire, self.radio = self._lines

    @property
    def powered(self) -> bool:
        return self._lines[0].powered

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    @property
    def faults(self) -> list[FirmwareFault]:
        """None: a board shows none."""
        return []

    def power_on(self) -> None:
        if self.powered:
            return
        for line in self._lines:
            line.discard()
        self._power.on()
        for line in self._lines:
            line.powered = True

    def power_off(self) -> None:
        if not self.powered:
            return
        self._power.off()
        for line in self._lines:
            line.powered = False
            line.fetch_until_silent()

    def advance(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self.powered:
                wire, radio = (line.fetch() for line in self._lines)
                if wire or radio:
                    return
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_INTERVAL_S))

    def read_nor(self) -> bytes:
        """The NOR, through the board file's command.

        Raises:
            NotKnownHereError: there is no such command, or the power is on.
            EngineError: the command failed, or gave too little.
        """
        if self._file.read is None:
            raise NotKnownHereError(
                "the NOR of a real board cannot be read without a command",
                hint="give `read` in [nor] of the board file",
            )
        if self.powered:
            raise NotKnownHereError(
                "the NOR of a real board cannot be read while it runs", hint="power off first"
            )
        with tempfile.TemporaryDirectory(prefix="unbrick-") as folder:
            file = Path(folder) / "nor.bin"
            self._run(self._file.read, file)
            try:
                with file.open("rb") as stream:
                    cells = stream.read(self.board.nor.modelled)
            except OSError:
                cells = b""
        if len(cells) < self.board.nor.modelled:
            raise EngineError(
                f"the command wrote {len(cells)} of {self.board.nor.modelled} bytes of the NOR",
                hint="check `read` in [nor] of the board file",
            )
        return cells

    def load_nor(self, image: bytes) -> None:
        """Replace the NOR's contents, through the board file's command.

        Raises:
            NotKnownHereError: there is no such command.
            EngineError: the power is on, the image is too long, or the command failed.
        """
        if self.powered:
            raise EngineError("the NOR cannot be replaced under power", hint="power off first")
        self._check_size(image)
        if self._file.load is None:
            raise NotKnownHereError(
                "the NOR of a real board cannot be written without a command",
                hint="give `load` in [nor] of the board file",
            )
        with tempfile.TemporaryDirectory(prefix="unbrick-") as folder:
            file = Path(folder) / "nor.bin"
            file.write_bytes(image.ljust(self.board.nor.modelled, b"\xff"))
            self._run(self._file.load, file)

    def _run(self, command: Sequence[str], file: Path) -> None:
        words = [word.replace(PLACEHOLDER, str(file)) for word in command]
        run_command(words, self._file.folder, NOR_TIMEOUT_S)

    def close(self) -> None:
        try:
            self.power_off()
        finally:
            self._close_ports()

    def _close_ports(self) -> None:
        for line in self._lines:
            line.port.close()


def _reason(error: Exception) -> str:
    """What went wrong in a few words; the libraries wrap it in many."""
    text = str(error)
    return next((words for known, words in _KNOWN.items() if known in text), text.splitlines()[0])


_KNOWN = {
    "No such file": "it does not exist",
    "Permission denied": "permission denied",
    "exclusively lock": "another program has it",
    "Connection refused": "nobody listens there",
    "socket disconnected": "the other side closed it",
    "Write timeout": "it takes nothing",
}
