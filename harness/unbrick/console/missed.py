"""Lines for a person who opens the console's port later."""

from __future__ import annotations

from unbrick.console.typist import BOOT, RESTORATION

KEPT = 4096  # bytes: about what a window shows
INVITATION = b"C"
INVITATIONS = b"CG\x15"  # of XMODEM and YMODEM, with CRC, as a stream, and with a sum


class LatestWords:
    """Keeps the latest words that nobody has read, of firmware of which nothing is known.

    A last line of nothing but invitations is not kept: see :class:`MissedLines`.
    """

    def __init__(self) -> None:
        self._text = b""

    def hear(self, data: bytes, *, read: bool) -> None:
        """Take in ``data`` of the firmware. ``read``: somebody reads it, too."""
        self._text = b"" if read else (self._text + data)[-KEPT:]

    def take(self) -> bytes:
        """What was missed. It is not kept any longer."""
        lines, end, last = self._text.rpartition(b"\n")
        self._text = b""
        return lines + end + (last if last.strip(INVITATIONS) else b"")


class MissedLines:
    """Keeps the latest lines since the terminal's last start that nobody has read.

    In the restoration state the terminal invites a sender once a second. A program that found all
    those invitations would answer each of them, and the transfer would fail (YMODEM). So they are
    not kept. No line has such a letter there (docs/protocol.md, "The wire").
    """

    def __init__(self) -> None:
        self._text = self._line = b""
        self._restoring = False

    def hear(self, data: bytes, *, read: bool) -> None:
        """Take in ``data`` of the terminal. ``read``: somebody reads it, too."""
        first, *lines = data.split(b"\n")
        self._say(first, read=read)
        for line in lines:
            self._say(b"\n", read=read)
            self._line = b""
            self._say(line, read=read)

    def _say(self, part: bytes, *, read: bool) -> None:
        """A part of a line."""
        known = self._line.startswith(BOOT)
        self._line = (self._line + part)[:KEPT]
        if self._line.startswith(BOOT) and not known:
            self._restoring, self._text, part = False, b"", self._line
        elif self._line.startswith(RESTORATION):
            self._restoring = True
        if not read:
            kept = part.replace(INVITATION, b"") if self._restoring else part
            self._text = (self._text + kept)[-KEPT:]

    def take(self) -> bytes:
        """The lines that were missed. They are not kept any longer."""
        text, self._text = self._text, b""
        return text
