"""Check cells (ECC): a byte beside each unit that a flash programs, from which it sees on a read
whether the unit holds what was programmed.

Vendors do not publish their codes. This one has what their manuals say of them. It is right for
what is blank and for all zeros, and it shows each wrong bit. It shows every two of a double word,
and all but one in 200 of a longer unit. What is wrong otherwise goes unseen in one of 256 units.
`engine/mcu/c/check.c` has the same code.
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0x07  # x^8 + x^2 + x + 1, whose period is 127
_OTHER = 0x10  # bit of the first byte that stands for another pattern than that of the polynomial
_PIECE = 1024  # bytes; the check cells of such pieces are remembered


def _step(remainder: int) -> int:
    for _ in range(8):
        remainder = (remainder << 1 ^ (_POLYNOMIAL if remainder & 0x80 else 0)) & 0xFF
    return remainder


_STEPS = tuple(map(_step, range(256)))


def _remainder(data: bytes) -> int:
    remainder = 0
    for byte in data:
        remainder = _STEPS[remainder ^ byte]
    return remainder


@lru_cache(maxsize=4096)
def _find_piece(data: bytes, unit: int) -> bytes:
    other = _remainder(b"\xff" * unit) ^ 0xFF  # so that the check cell of a blank unit is blank
    units = (data[start : start + unit] for start in range(0, len(data), unit))
    return bytes(_remainder(one) ^ (other if one[0] & _OTHER else 0) for one in units)


def find_check_cells(data: bytes, unit: int) -> bytes:
    """The check cells of whole units: a byte for each ``unit`` bytes of ``data``."""
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    return b"".join(_find_piece(piece, unit) for piece in pieces)
