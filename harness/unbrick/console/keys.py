"""Takes typing apart: text for the terminal, and commands for the bench behind a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ESCAPE = b"\x01"  # Ctrl-A, as in picocom
ESCAPE_NAME = "C-a"
LONGEST = 500  # bytes of a command
_ENTER = b"\r\n"
_CANCEL = b"\x03\x07"  # Ctrl-C, Ctrl-G
_RUB_OUT = b"\x08\x7f"
_RUB_OUT_LINE = b"\x15"  # Ctrl-U


def _ignore(_: object) -> None:
    """Nobody looks."""


@dataclass
class Keys:
    """Hands on what is typed. It neither reads nor writes itself.

    Attributes:
        text: called with text for the terminal.
        command: called with a command for the bench. Earlier typing has been passed on by then.
        show: called with the part of a command that a person shall see while typing it.
        opened: called with True when the bench's prompt is to be shown, and with False when it has
            gone without a command.
        always: there is no terminal behind: every line is a command.
    """

    text: Callable[[bytes], None]
    command: Callable[[str], None]
    show: Callable[[bytes], None] = _ignore
    opened: Callable[[bool], None] = _ignore
    always: bool = False
    _line: bytearray | None = field(default=None, init=False)
    _after_cr: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> None:
        """Pass on ``data``, as it was typed."""
        while data:
            if self._after_cr and data.startswith(b"\n"):
                data = data[1:]
            self._after_cr = False
            if self._line is None and not self.always:
                text, escape, data = data.partition(ESCAPE)
                if text:
                    self.text(text)
                if escape:
                    self._line = bytearray()
                    self.opened(True)
            elif data:
                if self._line is None:
                    self._line = bytearray()
                self._edit(self._line, data[:1])
                data = data[1:]

    def end(self) -> None:
        """Nothing more will be typed. A command without an end counts."""
        if self._line:
            self.feed(b"\n")

    def _edit(self, line: bytearray, byte: bytes) -> None:
        if byte in _ENTER:
            self._after_cr = byte == b"\r"
            self._line = None
            self.command(line.decode(errors="replace"))
        elif byte in _CANCEL or (byte == ESCAPE and not line):
            self._line = None
            self.opened(False)
            if byte == ESCAPE and not self.always:
                self.text(ESCAPE)
        elif byte in _RUB_OUT:
            self._rub_out(line)
        elif byte == _RUB_OUT_LINE:
            while line:
                self._rub_out(line)
        elif byte >= b" " and len(line) < LONGEST:
            line += byte
            self.show(byte)

    def _rub_out(self, line: bytearray) -> None:
        """Take away the last character, which may be of several bytes of UTF-8."""
        if not line:
            return
        while line and line.pop() & 0xC0 == 0x80:
            pass
        self.show(b"\b \b")
