"""Ends of serial lines that several engines have."""

from __future__ import annotations


class NoLine:
    """The end of a line that the chip does not have."""

    def write(self, data: bytes) -> None:
        """Nobody hears it."""

    def read(self) -> bytes:
        """Nobody says anything."""
        return b""
