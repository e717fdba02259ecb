"""Fields of ARM and Thumb-2 instructions that hold addresses (Arm ARM, DDI 0406C)."""

from __future__ import annotations

THUMB = 1
ARM = 2

MASK32 = 0xFFFFFFFF


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value


# ---- Thumb, 16 bits: (offset from the aligned or plain pc) out of and into an instruction ----


def short_branch(hw: int) -> int | None:
    """Offset from pc (address + 4) of B, B<c>, CBZ and CBNZ; None when it is none of them."""
    if hw & 0xF800 == 0xE000:
        return _signed(hw & 0x7FF, 11) * 2
    if hw & 0xF000 == 0xD000 and hw & 0x0F00 < 0x0E00:
        return _signed(hw & 0xFF, 8) * 2
    if hw & 0xF500 == 0xB100:
        return (hw >> 3 & 0x1F | hw >> 4 & 0x20) * 2
    return None


def with_short_branch(hw: int, offset: int) -> int | None:
    """The branch ``hw`` with another offset; None when it does not reach."""
    if offset & 1:
        return None
    half = offset >> 1
    if hw & 0xF800 == 0xE000:
        return hw & 0xF800 | half & 0x7FF if -1024 <= half < 1024 else None
    if hw & 0xF000 == 0xD000:
        return hw & 0xFF00 | half & 0xFF if -128 <= half < 128 else None
    return hw & 0xFD07 | (half & 0x1F) << 3 | (half & 0x20) << 4 if 0 <= half < 64 else None


def short_load(hw: int) -> int | None:
    """Offset from the aligned pc of LDR (literal) and ADR."""
    if hw & 0xF800 == 0x4800 or hw & 0xF800 == 0xA000:
        return (hw & 0xFF) * 4
    return None


def with_short_load(hw: int, offset: int) -> int | None:
    return hw & 0xFF00 | offset >> 2 if 0 <= offset <= 1020 and not offset & 3 else None


# ---- Thumb, 32 bits: first halfword in the upper half ----


def is_long(hw: int) -> bool:
    """Whether a halfword is the first of a 32-bit instruction."""
    return hw >= 0xE800


def long_branch(word: int) -> int | None:
    """Offset from pc of BL, BLX, B.W and B<c>.W. For BLX: from the aligned pc."""
    if word & 0xF8008000 != 0xF0008000:
        return None
    s = word >> 26 & 1
    j1, j2 = word >> 13 & 1, word >> 11 & 1
    if word & 0x5000:  # BL, BLX, B.W
        if word & 0x5001 == 0x4001:
            return None
        i1, i2 = 1 ^ j1 ^ s, 1 ^ j2 ^ s
        value = s << 24 | i1 << 23 | i2 << 22 | (word >> 16 & 0x3FF) << 12 | (word & 0x7FF) << 1
        return _signed(value, 25)
    if word >> 23 & 7 == 7:
        return None
    value = s << 20 | j2 << 19 | j1 << 18 | (word >> 16 & 0x3F) << 12 | (word & 0x7FF) << 1
    return _signed(value, 21)


def with_long_branch(word: int, offset: int) -> int | None:
    if word & 0x5000:
        if offset & (3 if word & 0x5000 == 0x4000 else 1) or not -(1 << 24) <= offset < 1 << 24:
            return None
        s = offset >> 24 & 1
        j1, j2 = 1 ^ (offset >> 23 & 1) ^ s, 1 ^ (offset >> 22 & 1) ^ s
        fields = s << 26 | (offset >> 12 & 0x3FF) << 16 | j1 << 13 | j2 << 11 | offset >> 1 & 0x7FF
        return word & 0xF800D000 | fields
    if offset & 1 or not -(1 << 20) <= offset < 1 << 20:
        return None
    s, j2, j1 = offset >> 20 & 1, offset >> 19 & 1, offset >> 18 & 1
    fields = s << 26 | (offset >> 12 & 0x3F) << 16 | j1 << 13 | j2 << 11 | offset >> 1 & 0x7FF
    return word & 0xFBC0D000 | fields


def long_load(word: int) -> int | None:
    """Offset from the aligned pc of LDR.W, LDRB.W, …, VLDR, LDRD (literal) and ADR.W."""
    sign = 1 if word >> 23 & 1 else -1
    if word & 0xFE1F0000 == 0xF81F0000:  # LDR, LDRB, LDRH, LDRSB, LDRSH, PLD
        return sign * (word & 0xFFF)
    if word & 0xFF3F0E00 == 0xED1F0A00 or word & 0xFF7F0000 == 0xE95F0000:  # VLDR, LDRD
        return sign * (word & 0xFF) * 4
    if word & 0xFBFF8000 in {0xF20F0000, 0xF2AF0000}:  # ADR.W
        value = word >> 15 & 0x800 | word >> 4 & 0x700 | word & 0xFF
        return -value if word & 0x00A00000 else value
    return None


def with_long_load(word: int, offset: int) -> int | None:
    magnitude = abs(offset)
    if word & 0xFE1F0000 == 0xF81F0000:
        if magnitude > 4095:
            return None
        return word & 0xFF7FF000 | (offset >= 0) << 23 | magnitude
    if word & 0xFB000000 == 0xF2000000:
        if magnitude > 4095:
            return None
        fields = (magnitude & 0x800) << 15 | (magnitude & 0x700) << 4 | magnitude & 0xFF
        return word & 0xFB5F8F00 | (0x00A00000 if offset < 0 else 0) | fields
    if magnitude > 1020 or magnitude & 3:
        return None
    return word & 0xFF7FFF00 | (offset >= 0) << 23 | magnitude >> 2


def wide_move(word: int) -> int | None:
    """The 16 bits of MOVW and MOVT."""
    if word & 0xFB708000 == 0xF2400000:
        return word >> 4 & 0xF000 | word >> 15 & 0x800 | word >> 4 & 0x700 | word & 0xFF
    return None


def with_wide_move(word: int, value: int) -> int:
    fields = (value & 0xF000) << 4 | (value & 0x800) << 15 | (value & 0x700) << 4 | value & 0xFF
    return word & 0xFBF08F00 | fields


# ---- ARM ----


def arm_branch(word: int) -> int | None:
    """Offset from pc (address + 8) of B, BL and BLX."""
    if word & 0x0E000000 != 0x0A000000:
        return None
    offset = _signed(word & 0xFFFFFF, 24) * 4
    return offset | word >> 23 & 2 if word >> 28 == 15 else offset


def with_arm_branch(word: int, offset: int) -> int | None:
    if not -(1 << 25) <= offset < 1 << 25:
        return None
    if word >> 28 == 15:
        if offset & 1:
            return None
        return word & 0xFE000000 | (offset & 2) << 23 | offset >> 2 & 0xFFFFFF
    return word & 0xFF000000 | offset >> 2 & 0xFFFFFF if not offset & 3 else None


def arm_load(word: int) -> int | None:
    """Offset from pc of LDR and LDRB (literal), VLDR, LDRH and its kin (literal)."""
    sign = 1 if word >> 23 & 1 else -1
    if word & 0x0F3F0000 == 0x051F0000 and word >> 28 != 15:
        return sign * (word & 0xFFF)
    if word & 0x0F3F0E00 == 0x0D1F0A00:
        return sign * (word & 0xFF) * 4
    if word & 0x0F5F0090 == 0x015F0090 and word & 0x60 or word & 0x0F5F00D0 == 0x014F00D0:
        return sign * (word >> 4 & 0xF0 | word & 0xF)
    return None


def with_arm_load(word: int, offset: int) -> int | None:
    magnitude = abs(offset)
    up = (offset >= 0) << 23
    if word & 0x0F3F0000 == 0x051F0000:
        return word & 0xFF7FF000 | up | magnitude if magnitude <= 4095 else None
    if word & 0x0F3F0E00 == 0x0D1F0A00:
        if magnitude > 1020 or magnitude & 3:
            return None
        return word & 0xFF7FFF00 | up | magnitude >> 2
    if magnitude > 255:
        return None
    return word & 0xFF7FF0F0 | up | (magnitude & 0xF0) << 4 | magnitude & 0xF


def arm_wide_move(word: int) -> int | None:
    if word & 0x0FB00000 == 0x03000000 and word >> 28 != 15:
        return word >> 4 & 0xF000 | word & 0xFFF
    return None


def with_arm_wide_move(word: int, value: int) -> int:
    return word & 0xFFF0F000 | (value & 0xF000) << 4 | value & 0xFFF

