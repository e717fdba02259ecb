"""A YMODEM receiver for tests, written from the protocol reference and sharing no code with the
sender: sans-I/O, as careful about time as a firmware's."""

from __future__ import annotations

import binascii

SOH, STX, EOT, ACK, NAK, CAN = 0x01, 0x02, 0x04, 0x06, 0x15, 0x18
ASK_INTERVAL_S = 1.0
BLOCK_TIMEOUT_S = 3.0


class Receiver:
    """Receives one batch of one file.

    Attributes:
        name: of the file, from block 0.
        size: of the file, from block 0.
        data: what was received of it.
        finished: the batch has ended.
        cancelled: somebody gave up.
    """

    def __init__(self, now: float) -> None:
        self.name = ""
        self.data = b""
        self.finished = False
        self.cancelled = False
        self.rejected = 0
        self.size = 0
        self._expected = 0
        self._asking = True
        self._file_open = False
        self._ended = False
        self._buffer = b""
        self._due = now
        self._cans = 0

    def step(self, received: bytes, now: float) -> bytes:
        """Feed bytes; what to answer."""
        self._buffer += received
        output = b""
        while self._buffer and not self.finished and not self.cancelled:
            answer = self._frame(now)
            if answer is None:
                break
            output += answer
        if not self.finished and not self.cancelled and now >= self._due:
            output += self._ask(now)
        return output

    def _ask(self, now: float) -> bytes:
        self._buffer = b""
        self._due = now + (ASK_INTERVAL_S if self._asking else BLOCK_TIMEOUT_S)
        return b"C" if self._asking else bytes([NAK])

    def _frame(self, now: float) -> bytes | None:
        first = self._buffer[0]
        if first == EOT:
            self._buffer = self._buffer[1:]
            if not self._file_open:
                return b""
            if not self._ended:
                self._ended = True
                return bytes([NAK])
            self._file_open = self._ended = False
            self._asking, self._expected = True, 0
            self._due = now + ASK_INTERVAL_S
            return bytes([ACK]) + b"C"
        if first == CAN:
            self._buffer = self._buffer[1:]
            self._cans += 1
            self.cancelled = self._cans > 1
            return b""
        self._cans = 0
        if first not in (SOH, STX):
            self._buffer = self._buffer[1:]
            return b""
        length = 133 if first == SOH else 1029
        if len(self._buffer) < length:
            return None
        frame, self._buffer = self._buffer[:length], self._buffer[length:]
        return self._block(frame, now)

    def _block(self, frame: bytes, now: float) -> bytes:
        number, content = frame[1], frame[3:-2]
        crc = int.from_bytes(frame[-2:], "big")
        if frame[1] ^ frame[2] != 0xFF or binascii.crc_hqx(content, 0) != crc:
            self.rejected += 1
            return self._ask(now)
        self._due = now + BLOCK_TIMEOUT_S
        if number == (self._expected - 1) & 0xFF and self._expected:
            return bytes([ACK])
        if number != self._expected & 0xFF:
            self.cancelled = True
            return bytes([CAN, CAN])
        if self._expected:
            self._asking = False
            self._expected += 1
            self.data = (self.data + content)[: self.size]
            return bytes([ACK])
        if not content[0]:
            self.finished = True
            return bytes([ACK])
        name, size = content.split(b"\0")[:2]
        self.name, self.size = name.decode(), int(size.split()[0])
        self._file_open, self._expected = True, 1
        self._due = now + ASK_INTERVAL_S
        return bytes([ACK]) + b"C"
