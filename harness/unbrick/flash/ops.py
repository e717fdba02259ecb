"""The operations of a flash."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlashOp:
    """One operation of a flash: ``kind`` is word, buffer or erase; offset and length in bytes.

    ``lanes`` has bit 0 set for the first chip, bit 1 for one beside it; times are in seconds.
    ``data`` is what was to be programmed, 0xFF where nothing was given; empty for an erase.
    """

    index: int
    kind: str
    offset: int
    length: int
    lanes: int
    start: float
    end: float
    data: bytes = b""
