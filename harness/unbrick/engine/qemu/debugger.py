"""The server for debuggers of a QEMU, as its client: GDB's remote protocol."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from unbrick.errors import EngineError

if TYPE_CHECKING:
    from unbrick.engine.qemu.process import QemuProcess

MEMORY_CHUNK = 1024
"""Bytes of memory in one packet: as digits they are twice as many."""

_CORE = struct.Struct("<16I")
_WRITE_WATCHPOINT = 2
_INTERRUPT = b"\x03"


class QemuDebugger:
    """The client.

    Args:
        process: has the server at the channel ``gdb``, and stands still.

    Attributes:
        running: whether the core runs.
        stopped_at_watchpoint: whether one was why it has stopped last.

    Raises:
        EngineError: it does not answer.
    """

    def __init__(self, process: QemuProcess) -> None:
        self._process, self._end = process, process.ends["gdb"]
        self._received = b""
        self._is_running = self.stopped_at_watchpoint = False
        self._watched: list[str] = []
        self._acknowledges = True
        self._ask("QStartNoAckMode")
        self._acknowledges = False
        self._ask("?")

    @property
    def running(self) -> bool:
        """Whether the core runs; sees whether it has stopped by itself."""
        if self._is_running:
            self._received += self._process.receive_at_once("gdb")
            self._see_stop()
        return self._is_running

    def go(self) -> None:
        """Let the core run."""
        self._send("c")
        self._is_running, self.stopped_at_watchpoint = True, False

    def stop(self) -> None:
        """Stop the core, if it runs."""
        if self.running:
            self._end.sendall(_INTERRUPT)
            while self._is_running:
                self._received += self._process.receive("gdb")
                self._see_stop()

    def registers(self) -> tuple[int, ...]:
        """R0 to R15 of the core, which stands still."""
        return _CORE.unpack_from(bytes.fromhex(self._ask("g")[: 2 * _CORE.size]))

    def read(self, address: int, length: int) -> bytes:
        """Memory, or registers of devices."""
        found = b""
        while len(found) < length:
            count = min(MEMORY_CHUNK, length - len(found))
            found += bytes.fromhex(self._ask(f"m{address + len(found):x},{count:x}"))
        return found

    def write(self, address: int, data: bytes) -> None:
        """Write memory, flash too."""
        for at in range(0, len(data), MEMORY_CHUNK):
            piece = data[at : at + MEMORY_CHUNK]
            self._ask(f"M{address + at:x},{len(piece):x}:{piece.hex()}")

    def watch(self, address: int, length: int) -> None:
        """Have stores to a range stop the core, before they are done."""
        self._watched.append(f"{_WRITE_WATCHPOINT},{address:x},{length:x}")
        self._ask(f"Z{self._watched[-1]}")

    def step(self) -> None:
        """Carry out one instruction of the core, which stands still, watched or not."""
        for place in self._watched:
            self._ask(f"z{place}")
        self._ask("s")
        for place in self._watched:
            self._ask(f"Z{place}")
        self.stopped_at_watchpoint = False

    def _see_stop(self) -> None:
        packet = self._take_packet()
        if packet is not None:
            self._is_running = False
            self.stopped_at_watchpoint = "watch:" in packet

    def _send(self, text: str) -> None:
        data = text.encode()
        self._end.sendall(b"$%b#%02x" % (data, sum(data) & 0xFF))

    def _ask(self, text: str) -> str:
        self._send(text)
        while (answer := self._take_packet()) is None:
            self._received += self._process.receive("gdb")
        if self._acknowledges:
            self._end.sendall(b"+")
        if answer.startswith("E"):
            raise EngineError(f"QEMU's server for debuggers refused {text[:20]}: {answer}")
        return answer

    def _take_packet(self) -> str | None:
        """The next whole packet, if it is there."""
        start = self._received.find(b"$")
        end = self._received.find(b"#", start)
        if start < 0 or end < 0 or len(self._received) < end + 3:
            return None
        packet = self._received[start + 1 : end]
        self._received = self._received[end + 3 :]
        return packet.decode("ascii", "replace")
