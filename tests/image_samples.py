"""Keys and signed images for tests that need no firmware: the same bytes in every run."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from imgtool import keys

from unbrick.image.sign import sign
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
FIELDS: dict[str, Any] = {
    "name": "unbrick-terminal",
    "version": "1.1.0+7",
    "build_time": "2026-01-31T12:00:00Z",
    "hardware_id": LAYOUT.hardware_id,
    "security_counter": 2,
}


def write_key(path: Path, seed: int = 1) -> Path:
    """Write the Ed25519 key pair number ``seed`` to a PEM file."""
    private = Ed25519PrivateKey.from_private_bytes(random.Random(seed).randbytes(32))
    keys.Ed25519(private).export_private(str(path))
    return path


def program(size: int = 3000) -> bytes:
    """Random bytes behind a plausible initial SP and entry address."""
    entry = LAYOUT.partition("application").offset + LAYOUT.image_header_size + 9
    return struct.pack("<II", LAYOUT.board.sram.end, entry) + random.Random(size).randbytes(
        size - 8
    )


def signed(key: Path, size: int = 3000, **changes: Any) -> bytes:
    """A signed image with a body of ``size`` bytes; ``changes`` to ``FIELDS``."""
    return sign(program(size), **{**FIELDS, **changes}, key=key)
