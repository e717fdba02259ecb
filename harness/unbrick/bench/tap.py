"""Lets a second peer listen on the terminal's wire beside the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbrick.bench.console import Console


class Tap:
    """A line that hears everything the console hears, and writes to the same wire."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._heard = bytearray()
        console.listeners.append(self._heard.extend)

    def write(self, data: bytes) -> None:
        """Send ``data`` to the terminal."""
        self._console.write(data)

    def read(self) -> bytes:
        """The terminal's output since the last call."""
        data = bytes(self._heard)
        self._heard.clear()
        return data

    def close(self) -> None:
        """Stop listening."""
        self._console.listeners.remove(self._heard.extend)
