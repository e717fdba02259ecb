"""Instructions with addresses in their fields: reads the addresses, and puts in others.

Places and targets are offsets in the image, whose address is a multiple of four. Encodings: Arm
Architecture Reference Manual, DDI 0406C.
"""

from __future__ import annotations

from unbrick.delta.format import ARM, DATA, THUMB

_PARTNER = 28
"""A MOVT is looked for less than so many bytes from its MOVW."""


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value


class Instructions:
    """Those of ``isa``. 32-bit Thumb instructions are numbers with the first halfword on top."""

    def __init__(self, isa: int) -> None:
        self.isa = isa
        self.align = {DATA: 0, THUMB: 1, ARM: 3}[isa]
        self.bit = int(isa == THUMB)
        """The lowest bit of the address of code."""

    def word(self, data: bytes | bytearray, at: int) -> int:
        """The 32-bit instruction at ``at``."""
        return self.swapped(int.from_bytes(data[at : at + 4], "little"))

    def swapped(self, word: int) -> int:
        """From the order of the memory to that of an instruction, or back."""
        return word >> 16 | (word & 0xFFFF) << 16 if self.isa == THUMB else word

    def is_long(self, halfword: int) -> bool:
        """Whether a 32-bit instruction begins with ``halfword``."""
        return self.isa == ARM or halfword >= 0xE800

    # ---- Branches: B, BL, BLX, B<c>; in Thumb those of 32 bits ----

    def branch(self, word: int, place: int) -> int | None:
        if self.isa == ARM:
            if word & 0x0E000000 != 0x0A000000:
                return None
            half = word >> 23 & 2 if word >> 28 == 15 else 0
            return place + 8 + (_signed(word & 0xFFFFFF, 24) << 2) + half
        if word & 0xF8008000 != 0xF0008000:
            return None
        s, j1, j2 = word >> 26 & 1, word >> 13 & 1, word >> 11 & 1
        if word & 0x5000:
            if word & 0x5001 == 0x4001:
                return None
            i1, i2 = 1 ^ j1 ^ s, 1 ^ j2 ^ s
            value = s << 24 | i1 << 23 | i2 << 22 | (word >> 16 & 0x3FF) << 12 | (word & 0x7FF) << 1
            return _branch_pc(word, place) + _signed(value, 25)
        if word >> 23 & 7 == 7:
            return None
        value = s << 20 | j2 << 19 | j1 << 18 | (word >> 16 & 0x3F) << 12 | (word & 0x7FF) << 1
        return place + 4 + _signed(value, 21)

    def with_branch(self, word: int, place: int, target: int) -> int | None:
        if self.isa == ARM:
            offset = target - place - 8
            if not -(1 << 25) <= offset < 1 << 25:
                return None
            if word >> 28 == 15:
                return (
                    None
                    if offset & 1
                    else (word & 0xFE000000 | (offset & 2) << 23 | offset >> 2 & 0xFFFFFF)
                )
            return None if offset & 3 else word & 0xFF000000 | offset >> 2 & 0xFFFFFF
        offset = target - _branch_pc(word, place)
        if word & 0x5000:
            unit = 3 if word & 0x5000 == 0x4000 else 1
            if offset & unit or not -(1 << 24) <= offset < 1 << 24:
                return None
            s = offset >> 24 & 1
            j1, j2 = 1 ^ (offset >> 23 & 1) ^ s, 1 ^ (offset >> 22 & 1) ^ s
            return (
                word & 0xF800D000
                | s << 26
                | (offset >> 12 & 0x3FF) << 16
                | j1 << 13
                | j2 << 11
                | offset >> 1 & 0x7FF
            )
        if offset & 1 or not -(1 << 20) <= offset < 1 << 20:
            return None
        s, j2, j1 = offset >> 20 & 1, offset >> 19 & 1, offset >> 18 & 1
        return (
            word & 0xFBC0D000
            | s << 26
            | (offset >> 12 & 0x3F) << 16
            | j1 << 13
            | j2 << 11
            | offset >> 1 & 0x7FF
        )

    # ---- Loads from, and addresses of, literals; in Thumb those of 32 bits ----

    def load(self, word: int, place: int) -> int | None:
        sign = 1 if word >> 23 & 1 else -1
        if self.isa == ARM:
            pc = place + 8
            if word & 0x0F3F0000 == 0x051F0000 and word >> 28 != 15:  # LDR, LDRB
                return pc + sign * (word & 0xFFF)
            if word & 0x0F3F0E00 == 0x0D1F0A00:  # VLDR
                return pc + sign * (word & 0xFF) * 4
            return None
        pc = place + 4 & ~3
        if word & 0xFE1F0000 == 0xF81F0000:  # LDR, LDRB, LDRH, LDRSB, LDRSH
            return pc + sign * (word & 0xFFF)
        if word & 0xFF3F0E00 == 0xED1F0A00 or word & 0xFF7F0000 == 0xE95F0000:  # VLDR, LDRD
            return pc + sign * (word & 0xFF) * 4
        if word & 0xFBFF8000 in {0xF20F0000, 0xF2AF0000}:  # ADR
            value = word >> 15 & 0x800 | word >> 4 & 0x700 | word & 0xFF
            return pc + (-value if word & 0x00A00000 else value)
        return None

    def with_load(self, word: int, place: int, target: int) -> int | None:
        thumb = self.isa == THUMB
        offset = target - (place + 4 & ~3 if thumb else place + 8)
        magnitude, up = abs(offset), (offset >= 0) << 23
        if word & (0xFE1F0000 if thumb else 0x0F3F0000) == (0xF81F0000 if thumb else 0x051F0000):
            return word & 0xFF7FF000 | up | magnitude if magnitude < 4096 else None
        if thumb and word >> 28 == 15:
            if magnitude > 4095:
                return None
            fields = (magnitude & 0x800) << 15 | (magnitude & 0x700) << 4 | magnitude & 0xFF
            return word & 0xFB5F8F00 | (0 if up else 0x00A00000) | fields
        if magnitude > 1020 or magnitude & 3:
            return None
        return word & 0xFF7FFF00 | up | magnitude >> 2

    # ---- MOVW and MOVT ----

    def move(self, word: int) -> int | None:
        """The half that it loads."""
        if self.isa == ARM:
            if word & 0x0FB00000 == 0x03000000 and word >> 28 != 15:
                return word >> 4 & 0xF000 | word & 0xFFF
            return None
        if word & 0xFB708000 == 0xF2400000:
            return word >> 4 & 0xF000 | word >> 15 & 0x800 | word >> 4 & 0x700 | word & 0xFF
        return None

    def with_half(self, word: int, value: int, *, top: bool) -> int:
        """The move made to load the upper or lower half of ``value``."""
        half = value >> 16 if top else value & 0xFFFF
        if self.isa == ARM:
            return word & 0xFFF0F000 | (half & 0xF000) << 4 | half & 0xFFF
        fields = (half & 0xF000) << 4 | (half & 0x800) << 15 | (half & 0x700) << 4 | half & 0xFF
        return word & 0xFBF08F00 | fields

    def moved(self, old: bytes, place: int, word: int) -> tuple[int, bool] | None:
        """The 32 bits that a move and its partner load, and whether it is the MOVT."""
        top, register, step = (
            (0x00400000, 0xF000, 4) if self.isa == ARM else (0x00800000, 0x0F00, 2)
        )
        is_top = bool(word & top)
        mine = self.move(word) or 0
        for distance in range(4, _PARTNER, step):
            at = place - distance if is_top else place + distance
            if at < 0 or at + 4 > len(old):
                return None
            other = self.word(old, at)
            half = self.move(other)
            if half is None or (other ^ word) & register or bool(other & top) == is_top:
                continue
            return (mine << 16 | half, True) if is_top else (half << 16 | mine, False)
        return None

    # ---- Thumb, 16 bits ----

    def short_branch(self, half: int, place: int) -> int | None:
        """B, B<c>, CBZ, CBNZ."""
        if half & 0xF800 == 0xE000:
            return place + 4 + _signed(half & 0x7FF, 11) * 2
        if half & 0xF000 == 0xD000 and half & 0x0F00 < 0x0E00:
            return place + 4 + _signed(half & 0xFF, 8) * 2
        if half & 0xF500 == 0xB100:
            return place + 4 + (half >> 3 & 0x1F | half >> 4 & 0x20) * 2
        return None

    def with_short_branch(self, half: int, place: int, target: int) -> int | None:
        offset = target - place - 4
        units = offset >> 1
        if offset & 1:
            return None
        if half & 0xF800 == 0xE000:
            return half & 0xF800 | units & 0x7FF if -1024 <= units < 1024 else None
        if half & 0xF000 == 0xD000:
            return half & 0xFF00 | units & 0xFF if -128 <= units < 128 else None
        if not 0 <= units < 64:
            return None
        return half & 0xFD07 | (units & 0x1F) << 3 | (units & 0x20) << 4

    def short_load(self, half: int, place: int) -> int | None:
        """LDR (literal), ADR."""
        if half & 0xF800 in {0x4800, 0xA000}:
            return (place + 4 & ~3) + (half & 0xFF) * 4
        return None

    def with_short_load(self, half: int, place: int, target: int) -> int | None:
        offset = target - (place + 4 & ~3)
        return half & 0xFF00 | offset >> 2 if 0 <= offset <= 1020 and not offset & 3 else None


def _branch_pc(word: int, place: int) -> int:
    """BLX counts from a multiple of four."""
    return place + 4 & ~3 if word & 0x5000 == 0x4000 else place + 4
