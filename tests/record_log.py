"""Halves of a record log as the terminal writes them (``firmware/lib/recordlog.c``)."""

from __future__ import annotations

import struct
import zlib

OF_JOURNAL = 0x4C4E524A
"""The magic number of the journal's halves."""


def log(*payloads: bytes, layout: int = 1, magic: int = OF_JOURNAL) -> bytes:
    """A half of a record log."""
    header = struct.pack("<4I", magic, layout, 1, 60)
    half = (header + struct.pack("<I", zlib.crc32(header))).ljust(64, b"\xff")
    for payload in payloads:
        record = payload.ljust(60, b"\0")
        half += record + struct.pack("<I", zlib.crc32(record))
    return half
