"""YMODEM sender (CRC-16, blocks of 1,024 bytes, a batch of one file), without I/O.

Source: Chuck Forsberg, *XMODEM/YMODEM Protocol Reference*, 1988-10-14. Time is passed in, in
seconds of any clock. Received bytes are fed in, bytes to send come out.
"""

from __future__ import annotations

import binascii
import enum

from unbrick.errors import RestoreError, UnbrickError

SOH = 0x01
STX = 0x02
EOT = 0x04
ACK = 0x06
BACKSPACE = 0x08
NAK = 0x15
CAN = 0x18
PAD = 0x1A
WANT_CRC = 0x43  # "C"

CANCEL = bytes([CAN] * 8 + [BACKSPACE] * 8)
"""Makes a receiver give up. The backspaces wipe it from a shell's line."""

SHORT_BLOCK_SIZE = 128
LONG_BLOCK_SIZE = 1024

_ACK_TIMEOUT_S = 12.0  # More than the 10 s after which receivers ask again: two voices would clash.
_PROMPT_TIMEOUT_S = 3.0  # The "C" that must follow an ACK may be lost. Then it is taken as said.
_REPEAT_GUARD_S = 0.5  # A "C" so soon after sending was under way already.
_RETRIES = 10
_NOISE_TRIES = 2  # A block that was sent again so often makes the following ones short.
_END_RETRIES = 3
_STRANGE_PROMPTS = 3


class SenderPhase(enum.Enum):
    """How far the sender is."""

    START = "waiting for the receiver"
    HEADER = "sending the name of the file"
    BODY = "waiting for the receiver to open the file"
    DATA = "sending the file"
    EOT = "closing the file"
    BATCH = "waiting for the end of the batch"
    END = "ending the batch"
    DONE = "done"
    FAILED = "failed"


class Sender:
    """Sends one file to a YMODEM receiver.

    Blocks are long, and short where the line is bad: more of the short ones arrive.

    Args:
        name: of the file.
        data: its contents.
        now: the caller's clock, in seconds.
        start_timeout: seconds to wait for the receiver's first sign.
        short: the line is known to be bad.

    Attributes:
        phase: how far it is.
        acknowledged: bytes of the file that the receiver has confirmed.
        repeats: blocks that were sent again.
        error: why it failed, in the phase FAILED.
        deadline: when ``step`` wants to be called again at the latest, in the caller's clock.
        rest: bytes received after the end of the batch: they are not YMODEM's.
    """

    def __init__(
        self,
        name: str,
        data: bytes,
        now: float,
        *,
        start_timeout: float = 60.0,
        short: bool = False,
    ) -> None:
        self.phase = SenderPhase.START
        self.acknowledged = 0
        self.repeats = 0
        self.error: UnbrickError | None = None
        self.deadline: float | None = now + start_timeout
        self.rest = b""
        self._header = _header(name, len(data))
        self._data = data
        self._short = short
        self._last = b""
        self._sent_at = now
        self._tries = 0
        self._next = 0  # Offset in the file of the block after the current one.
        self._number = 0
        self._cancels = 0
        self._prompts = 0

    @property
    def finished(self) -> bool:
        """Whether it is over, well or not."""
        return self.phase in {SenderPhase.DONE, SenderPhase.FAILED}

    def step(self, received: bytes, now: float) -> bytes:
        """Take in received bytes, and do what is due.

        Returns:
            Bytes to send.
        """
        if self.finished:
            self.rest += received
            return b""
        return self._consume(received, now) + self._tick(now)

    def _consume(self, received: bytes, now: float) -> bytes:
        output = b""
        for index, byte in enumerate(received):
            if self.phase is SenderPhase.END and _is_text(byte):
                self._finish()  # Its ACK was lost, but other things are said already.
                self.rest = received[index:]
                break
            output += self._take(byte, now)
            if self.finished:
                self.rest = received[index + 1 :]
                break
        return output

    def _tick(self, now: float) -> bytes:
        if self.deadline is not None and now >= self.deadline:
            return self._expire(now)
        return b""

    def _take(self, byte: int, now: float) -> bytes:
        self._cancels = self._cancels + 1 if byte == CAN else 0
        if self._cancels >= 2:  # One may be noise, two are the protocol's.
            return self._fail(
                "the receiver cancelled the transfer", "look at what the terminal says"
            )
        if byte == ACK:
            return self._acknowledge(now)
        if byte == NAK:
            return self._refuse(now)
        if byte == WANT_CRC:
            return self._prompt(now)
        return b""

    def _acknowledge(self, now: float) -> bytes:
        self._prompts = 0
        if self.phase is SenderPhase.HEADER:
            self._await(SenderPhase.BODY, now)
        elif self.phase is SenderPhase.DATA:
            self.acknowledged = min(self._next, len(self._data))
            self._short |= self._tries >= _NOISE_TRIES
            return self._send_data(now)
        elif self.phase is SenderPhase.EOT:
            self._await(SenderPhase.BATCH, now)
        elif self.phase is SenderPhase.END:
            self._finish()
        return b""

    def _refuse(self, now: float) -> bytes:
        self._prompts = 0
        if self.phase in {SenderPhase.HEADER, SenderPhase.DATA, SenderPhase.EOT, SenderPhase.END}:
            return self._again(now)
        return self._go_on(now)

    def _prompt(self, now: float) -> bytes:
        if self.phase is SenderPhase.START:
            return self._send(SenderPhase.HEADER, self._header, now)
        if self.phase in {SenderPhase.BODY, SenderPhase.BATCH}:
            return self._go_on(now)
        if now - self._sent_at < _REPEAT_GUARD_S:
            return b""
        if self.phase is SenderPhase.EOT:  # The ACK of EOT was lost.
            return self._send(SenderPhase.END, _block(0, bytes(SHORT_BLOCK_SIZE)), now)
        if self.phase is SenderPhase.DATA and self._number > 1:
            self._prompts += 1
            if self._prompts >= _STRANGE_PROMPTS:
                return self._fail(
                    "the receiver started over in the middle of the transfer", "send again"
                )
            return b""
        return self._again(now)

    def _go_on(self, now: float) -> bytes:
        """The receiver is ready for the next block."""
        if self.phase is SenderPhase.BODY:
            return self._send_data(now)
        if self.phase is SenderPhase.BATCH:
            return self._send(SenderPhase.END, _block(0, bytes(SHORT_BLOCK_SIZE)), now)
        return b""

    def _expire(self, now: float) -> bytes:
        if self.phase is SenderPhase.START:
            return self._fail(
                "no YMODEM receiver answers", "check that the terminal is in the restoration state"
            )
        if self.phase in {SenderPhase.BODY, SenderPhase.BATCH}:
            return self._go_on(now)
        return self._again(now)

    def _send_data(self, now: float) -> bytes:
        if self._next >= len(self._data):
            return self._send(SenderPhase.EOT, bytes([EOT]), now)
        left = len(self._data) - self._next
        size = SHORT_BLOCK_SIZE if self._short or left <= SHORT_BLOCK_SIZE else LONG_BLOCK_SIZE
        chunk = self._data[self._next : self._next + size]
        self._next += size
        self._number += 1
        padded = chunk + bytes([PAD]) * (size - len(chunk))
        return self._send(SenderPhase.DATA, _block(self._number, padded), now)

    def _send(self, phase: SenderPhase, what: bytes, now: float) -> bytes:
        self.phase = phase
        self._last = what
        self._tries = 0
        self._sent_at = now
        self.deadline = now + _ACK_TIMEOUT_S
        return what

    def _again(self, now: float) -> bytes:
        self._tries += 1
        if self.phase is SenderPhase.END and self._tries >= _END_RETRIES:
            self._finish()  # The file itself was confirmed.
            return b""
        if self._tries > _RETRIES:
            return self._fail(
                f"the receiver did not confirm a block in {_RETRIES + 1} tries",
                "check the cable and that the terminal has power",
            )
        self.repeats += self.phase in {SenderPhase.HEADER, SenderPhase.DATA}
        self._sent_at = now
        self.deadline = now + _ACK_TIMEOUT_S
        return self._last

    def _await(self, phase: SenderPhase, now: float) -> None:
        self.phase = phase
        self.deadline = now + _PROMPT_TIMEOUT_S

    def _finish(self) -> None:
        self.phase = SenderPhase.DONE
        self.deadline = None

    def _fail(self, why: str, hint: str) -> bytes:
        self.error = RestoreError(f"{why}, while {self.phase.value}", hint=hint)
        self.phase = SenderPhase.FAILED
        self.deadline = None
        return CANCEL


def _is_text(byte: int) -> bool:
    return byte != WANT_CRC and (0x20 <= byte < 0x7F or byte in b"\r\n")


def _header(name: str, size: int) -> bytes:
    """Block 0: name and size of the file."""
    clean = "".join(c if c.isascii() and c.isprintable() else "_" for c in name)[:64] or "image"
    content = clean.encode() + b"\0" + str(size).encode() + b"\0"
    return _block(0, content.ljust(SHORT_BLOCK_SIZE, b"\0"))


def _block(number: int, content: bytes) -> bytes:
    """One block: SOH or STX, its number, the complement, content, CRC-16 (high byte first)."""
    number &= 0xFF
    start = SOH if len(content) == SHORT_BLOCK_SIZE else STX
    crc = binascii.crc_hqx(content, 0)
    return bytes([start, number, number ^ 0xFF]) + content + crc.to_bytes(2, "big")
