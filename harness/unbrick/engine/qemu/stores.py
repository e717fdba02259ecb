"""What a store of Armv6-M stores, and where. Source: the Armv6-M Architecture Reference Manual."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SP = 13


def find_stores(code: int, registers: Sequence[int]) -> list[tuple[int, int]]:
    """Address and value of each word that an instruction stores; stores of parts are left out.

    Args:
        code: the instruction, 16 bits.
        registers: R0 to R15 before it.
    """
    low = registers[code & 7]
    base = registers[code >> 3 & 7]
    if code >> 11 == 0b01100:  # STR Rt, [Rn, #imm5 * 4]
        return [(base + (code >> 6 & 31) * 4, low)]
    if code >> 9 == 0b0101000:  # STR Rt, [Rn, Rm]
        return [(base + registers[code >> 6 & 7] & 0xFFFF_FFFF, low)]
    if code >> 11 == 0b10010:  # STR Rt, [SP, #imm8 * 4]
        return [(registers[_SP] + (code & 0xFF) * 4, registers[code >> 8 & 7])]
    if code >> 11 == 0b11000:  # STM Rn!, {...}
        stored = [number for number in range(8) if code >> number & 1]
        start = registers[code >> 8 & 7]
        return [(start + 4 * place, registers[number]) for place, number in enumerate(stored)]
    return []
