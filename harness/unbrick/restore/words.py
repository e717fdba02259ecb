"""The words of a terminal on its wire, and other sounds there (``docs/protocol.md``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unbrick.errors import RestoreError, UnbrickError

LINE_LIMIT = 256  # Bytes of a line that are kept; the rest is noise.
PROMPT = "> "
BANNER = b"restoration: "
READ_BACK = b"\rid\rdigest\r"
"""Ends earlier typing, then asks for the terminal's identity and the digest of its image."""

IDENTITY = re.compile(
    r"restoration: serial=(?P<serial>.{1,31}) hardware=(?P<hardware>.{1,31}) "
    r"counter=(?P<counter>\d{1,10})$"
)
ANNOUNCES = re.compile(r"restoration: send the signed image")
ACCEPTED = re.compile(r"restoration: accepted (?P<version>\S{1,31})")
REFUSED = re.compile(
    r"restoration: (?:refused, |(?=the journal cannot be written))(?P<reason>.{1,200})"
)
REASON = re.compile(r"restoration: (?P<reason>.{1,200})")
RUNS = re.compile(r"terminal: (?P<software>.{1,160}, built .{1,31})")
CONFIRMED = re.compile(r"update: \S{1,31} confirmed")
FROM_BOOT = re.compile(r"(boot|panic): ")
DIGEST = re.compile(r"sha256: (?P<digest>[0-9a-f]{64}), (?P<size>\d{1,10}) bytes")
UNKNOWN = re.compile(r"no command ")
SERIAL = re.compile(r"serial: +(?P<serial>\S.{0,30})$")
HARDWARE = re.compile(r"hardware: +(?P<hardware>\S.{0,30})$")
FAILED_TRIAL = re.compile(r"failed its trial")
FINAL = re.compile(r"signature|other hardware|security counter|too large|journal")
"""Refusals that a second transfer does not change. The rest may come from noise on the line."""

_GARBAGE_SHARE = 0.3  # Share of bytes that are no text from which on nothing else is believed.


@dataclass(frozen=True)
class WiredTerminal:
    """A terminal's account of itself.

    Attributes:
        serial: its serial number.
        hardware_id: that of the images that it takes.
        security_counter: the lowest that it takes; None when its application was asked.
    """

    serial: str
    hardware_id: str
    security_counter: int | None


class Ear:
    """Takes lines out of the bytes on the wire.

    Attributes:
        text: the line that has not ended.
        last: the last line that had.
        clean: no byte that is no text was in the line that ended last.
    """

    def __init__(self) -> None:
        self.text = ""
        self.last = ""
        self.clean = True
        self._spoiled = False
        self._heard = 0
        self._strange = 0

    def hear(self, char: str) -> str | None:
        """Take in one character; returns the line that it ends."""
        self._heard += 1
        if char in "\r\n":
            line, self.text = self.text, ""
            self.clean, self._spoiled = not self._spoiled, False
            self.last = line or self.last
            return line
        if not (char.isascii() and char.isprintable()):
            self._strange += char not in "\0\t\b\x1b"
            self._spoiled = True
        elif len(self.text) < LINE_LIMIT:
            self.text += char
        return None

    def why_nothing(self, seconds: float) -> UnbrickError:
        """The message when nothing has asked to be restored in so many seconds."""
        if not self._heard:
            return RestoreError(
                f"nothing answers on the wire in {seconds:.0f} s",
                hint="check that the terminal has power and that this is the port of its wire, "
                "with ground, RX and TX connected; power-cycle the terminal while this waits",
            )
        if self._strange > _GARBAGE_SHARE * self._heard:
            return RestoreError(
                f"only garbage comes over the wire: {self._strange} of {self._heard} bytes are "
                "no text",
                hint="give the terminal's rate with --baud, and check ground and level of the line",
            )
        said = f", the last line was {self.last!r}" if self.last else ""
        return RestoreError(
            f"nothing that asks to be restored is on the wire in {seconds:.0f} s{said}",
            hint="power-cycle the terminal while this waits, and check that it is in the "
            "restoration state: it says `restoration: ...` when it starts",
        )
