"""Types at a terminal as a patient person does: the next line when the prompt has come back.

A UART without flow control loses bytes that come faster than the firmware takes them. Its FIFO
holds 16 bytes (PL011 manual, 2.4.2), the ring of the terminal's software 1,024. A restart forgets
earlier typing. So typing waits here until the terminal shows its prompt.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from unbrick.engine.base import Line

PROMPT = b"> "  # docs/protocol.md, "The wire", as is the rest
RESTORATION = b"restoration: send"
BOOT = b"boot: "
ENDS = b"\r\n"

BURST_BYTES = 512  # may go at once; then the line's rate counts
UNKNOWN_PROMPT_SILENCE_S = 5.0  # after which software that shows no prompt is typed at
KNOWN_PROMPT_SILENCE_S = 30.0  # the same when its prompt was seen before: longer than any rewrite
FIRST_WORDS_SILENCE_S = 0.2  # after which software that has said something is typed at
SHOWN_BYTES = 32  # of a line that are looked at


class TypeAfter(Enum):
    """What a typist waits for."""

    PROMPT = "the prompt of our terminal, for each line"
    FIRST_WORDS = "the first words after a start"
    NOTHING = "nothing: who types sees what is said"


class Typist:
    """The wire of a terminal as a line that loses nothing that is written to it.

    In the restoration state everything passes as it comes, because the other side speaks YMODEM.
    The same holds for software that has no such prompt.

    Args:
        line: the engine's end of UART0.
        rate: bytes a second of the bench's time; by default as many as our terminal's UART carries.
        after: what is waited for. Unless that is the prompt, everything passes from then on.
    """

    def __init__(
        self, line: Line, *, rate: float | None = None, after: TypeAfter = TypeAfter.PROMPT
    ) -> None:
        self._line, self._after = line, after
        self._rate = reference_layout().board.line_rate if rate is None else rate
        self._waiting = bytearray()
        self._credit = float(BURST_BYTES)
        self._now = self._last_sign = self._last_typed = 0.0
        self._after_cr = False
        self.power_on(0.0)

    def power_on(self, now: float) -> None:
        """The terminal starts at ``now``, in seconds; it has shown nothing yet."""
        self.powered = True
        self._prompting = self._knows_prompt = False
        self._passes = self._after is TypeAfter.NOTHING
        self._has_spoken = False
        self._shown = b""
        self._last_sign = self._now = self._last_typed = now

    def power_off(self) -> None:
        """The power is cut. Unsent bytes wait for the next start."""
        self.powered = False

    @property
    def waiting(self) -> int:
        """Bytes that are not sent yet."""
        return len(self._waiting)

    def room(self) -> int:
        """Bytes that may be handed over now, if the waiting ones shall be sent soon."""
        return max(0, BURST_BYTES - len(self._waiting))

    @property
    def listened_to(self) -> bool:
        """Whether the terminal takes typing: it shows its prompt, or everything passes."""
        return self.powered and (self._prompting or self._passes)

    @property
    def silence(self) -> float:
        """Seconds since the terminal has said or was sent anything."""
        return self._now - self._last_sign

    @property
    def goes_on_speaking(self) -> bool:
        """Whether it is long since anything was typed. Of some software no silence ever comes."""
        long = UNKNOWN_PROMPT_SILENCE_S
        return self._after is TypeAfter.FIRST_WORDS and self._now - self._last_typed >= long

    def write(self, data: bytes) -> None:
        """Have ``data`` typed."""
        self._waiting += data

    def read(self) -> bytes:
        """The terminal's output since the last call."""
        data = self._line.read()
        if data:
            self._last_sign = self._now
            self._has_spoken = True
        first, *lines = data.split(b"\n")
        self._show(first)
        for line in lines:
            self._shown, self._prompting = b"", False
            self._show(line)
        return data

    def _show(self, part: bytes) -> None:
        """A part of the line that the terminal is writing now."""
        if self._after is not TypeAfter.PROMPT:
            return
        before = self._shown
        self._shown = (before + part)[:SHOWN_BYTES]
        if not before.startswith(PROMPT) and self._shown.startswith(PROMPT):
            self._prompting = self._knows_prompt = True
        elif self._shown.startswith(RESTORATION):
            self._passes = True
        elif self._shown.startswith(BOOT):
            self._passes = self._knows_prompt = False

    def step(self, now: float) -> None:
        """Send the bytes that may be sent at ``now``, in seconds."""
        self._credit = min(self._credit + (now - self._now) * self._rate, float(BURST_BYTES))
        self._now = now
        if self._after is TypeAfter.FIRST_WORDS:
            quiet = self._has_spoken and self.silence >= FIRST_WORDS_SILENCE_S
            self._passes = self._passes or quiet or self.goes_on_speaking
        if not (self.powered and self._waiting) or self._credit < 1:
            return
        if not self.listened_to:
            if self.silence < (
                KNOWN_PROMPT_SILENCE_S if self._knows_prompt else UNKNOWN_PROMPT_SILENCE_S
            ):
                return
            self._passes = not self._knows_prompt
        self._send(int(self._credit))

    def _send(self, limit: int) -> None:
        data = bytes(self._waiting[:limit])
        if not self._passes:
            data = self._up_to_line_end(data)
        del self._waiting[: len(data)]
        self._credit -= len(data)
        self._last_sign = self._last_typed = self._now
        self._after_cr = data.endswith(b"\r")
        self._line.write(data)

    def _up_to_line_end(self, data: bytes) -> bytes:
        """The rest of a line with its end, after which the prompt must come back."""
        # The LF of a CR LF ends nothing more.
        start = 1 if self._after_cr and data.startswith(b"\n") else 0
        ends = [at for at in (data.find(end, start) for end in (b"\r", b"\n")) if at >= 0]
        if not ends:
            return data
        self._prompting = False
        return data[: min(ends) + 1]
