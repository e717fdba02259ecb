#include "lib/delta_code.h"

static int64_t sign_extend(uint32_t value, unsigned bits) {
    return (int64_t)value - ((value >> (bits - 1) & 1) != 0 ? (int64_t)1 << bits : 0);
}

/* The pc of Thumb code, rounded to a word. */
static int64_t literal_pc(int64_t place) {
    return (place + 4) & ~(int64_t)3;
}

/* BLX counts from a multiple of four. */
static int64_t branch_pc(uint32_t word, int64_t place) {
    return (word & 0x5000u) == 0x4000u ? literal_pc(place) : place + 4;
}

bool delta_branch(int isa, uint32_t word, int64_t place, int64_t *target) {
    if (isa == DELTA_ARM) {
        if ((word & 0x0E000000u) != 0x0A000000u) {
            return false;
        }
        const uint32_t half = word >> 28 == 15 ? word >> 23 & 2 : 0;
        *target = place + 8 + sign_extend(word & 0xFFFFFFu, 24) * 4 + half;
        return true;
    }
    if ((word & 0xF8008000u) != 0xF0008000u) {
        return false;
    }
    const uint32_t s = word >> 26 & 1;
    const uint32_t j1 = word >> 13 & 1;
    const uint32_t j2 = word >> 11 & 1;
    const uint32_t low = (word & 0x7FFu) << 1;
    if ((word & 0x5000u) != 0) {
        if ((word & 0x5001u) == 0x4001u) {
            return false;
        }
        const uint32_t i1 = 1 ^ j1 ^ s;
        const uint32_t i2 = 1 ^ j2 ^ s;
        const uint32_t value = s << 24 | i1 << 23 | i2 << 22 | (word >> 16 & 0x3FF) << 12 | low;
        *target = branch_pc(word, place) + sign_extend(value, 25);
        return true;
    }
    if ((word >> 23 & 7) == 7) {
        return false;
    }
    const uint32_t value = s << 20 | j2 << 19 | j1 << 18 | (word >> 16 & 0x3F) << 12 | low;
    *target = place + 4 + sign_extend(value, 21);
    return true;
}

static bool with_arm_branch(uint32_t *word, int64_t offset) {
    const uint32_t bits = (uint32_t)offset;
    if (offset < -(1 << 25) || offset >= 1 << 25) {
        return false;
    }
    if (*word >> 28 == 15) {
        if ((bits & 1) != 0) {
            return false;
        }
        *word = (*word & 0xFE000000u) | (bits & 2) << 23 | (bits >> 2 & 0xFFFFFFu);
        return true;
    }
    if ((bits & 3) != 0) {
        return false;
    }
    *word = (*word & 0xFF000000u) | (bits >> 2 & 0xFFFFFFu);
    return true;
}

bool delta_with_branch(int isa, uint32_t *word, int64_t place, int64_t target) {
    if (isa == DELTA_ARM) {
        return with_arm_branch(word, target - place - 8);
    }
    const int64_t offset = target - branch_pc(*word, place);
    const uint32_t bits = (uint32_t)offset;
    const uint32_t low = bits >> 1 & 0x7FFu;
    if ((*word & 0x5000u) != 0) {
        const uint32_t unit = (*word & 0x5000u) == 0x4000u ? 3 : 1;
        if ((bits & unit) != 0 || offset < -(1 << 24) || offset >= 1 << 24) {
            return false;
        }
        const uint32_t s = bits >> 24 & 1;
        const uint32_t j1 = 1 ^ (bits >> 23 & 1) ^ s;
        const uint32_t j2 = 1 ^ (bits >> 22 & 1) ^ s;
        *word = (*word & 0xF800D000u) | s << 26 | (bits >> 12 & 0x3FF) << 16 | j1 << 13 | j2 << 11 |
                low;
        return true;
    }
    if ((bits & 1) != 0 || offset < -(1 << 20) || offset >= 1 << 20) {
        return false;
    }
    *word = (*word & 0xFBC0D000u) | (bits >> 20 & 1) << 26 | (bits >> 12 & 0x3F) << 16 |
            (bits >> 18 & 1) << 13 | (bits >> 19 & 1) << 11 | low;
    return true;
}

static bool is_wide_load(int isa, uint32_t word) {
    return isa == DELTA_ARM ? (word & 0x0F3F0000u) == 0x051F0000u
                            : (word & 0xFE1F0000u) == 0xF81F0000u;
}

bool delta_load(int isa, uint32_t word, int64_t place, int64_t *target) {
    const int64_t sign = (word >> 23 & 1) != 0 ? 1 : -1;
    if (isa == DELTA_ARM) {
        if (is_wide_load(isa, word) && word >> 28 != 15) { /* LDR, LDRB */
            *target = place + 8 + sign * (word & 0xFFFu);
            return true;
        }
        if ((word & 0x0F3F0E00u) == 0x0D1F0A00u) { /* VLDR */
            *target = place + 8 + sign * (word & 0xFFu) * 4;
            return true;
        }
        return false;
    }
    if (is_wide_load(isa, word)) { /* LDR, LDRB, LDRH, LDRSB, LDRSH */
        *target = literal_pc(place) + sign * (word & 0xFFFu);
        return true;
    }
    if ((word & 0xFF3F0E00u) == 0xED1F0A00u || (word & 0xFF7F0000u) == 0xE95F0000u) {
        *target = literal_pc(place) + sign * (word & 0xFFu) * 4; /* VLDR, LDRD */
        return true;
    }
    const uint32_t adr = word & 0xFBFF8000u;
    if (adr == 0xF20F0000u || adr == 0xF2AF0000u) {
        const int64_t value = (word >> 15 & 0x800u) | (word >> 4 & 0x700u) | (word & 0xFFu);
        *target = literal_pc(place) + ((word & 0x00A00000u) != 0 ? -value : value);
        return true;
    }
    return false;
}

bool delta_with_load(int isa, uint32_t *word, int64_t place, int64_t target) {
    const int64_t offset = target - (isa == DELTA_THUMB ? literal_pc(place) : place + 8);
    const int64_t distance = offset < 0 ? -offset : offset;
    const uint32_t up = offset >= 0 ? 1u << 23 : 0;
    if (distance > 4095) {
        return false;
    }
    const uint32_t magnitude = (uint32_t)distance;
    if (is_wide_load(isa, *word)) {
        *word = (*word & 0xFF7FF000u) | up | magnitude;
        return true;
    }
    if (isa == DELTA_THUMB && *word >> 28 == 15) {
        const uint32_t fields =
            (magnitude & 0x800u) << 15 | (magnitude & 0x700u) << 4 | (magnitude & 0xFFu);
        *word = (*word & 0xFB5F8F00u) | (up != 0 ? 0 : 0x00A00000u) | fields;
        return true;
    }
    if (magnitude > 1020 || (magnitude & 3) != 0) {
        return false;
    }
    *word = (*word & 0xFF7FFF00u) | up | magnitude >> 2;
    return true;
}

bool delta_move(int isa, uint32_t word, uint32_t *half) {
    if (isa == DELTA_ARM) {
        *half = (word >> 4 & 0xF000u) | (word & 0xFFFu);
        return (word & 0x0FB00000u) == 0x03000000u && word >> 28 != 15;
    }
    *half = (word >> 4 & 0xF000u) | (word >> 15 & 0x800u) | (word >> 4 & 0x700u) | (word & 0xFFu);
    return (word & 0xFB708000u) == 0xF2400000u;
}

bool delta_is_top(int isa, uint32_t word) {
    return (word & (isa == DELTA_ARM ? 0x00400000u : 0x00800000u)) != 0;
}

bool delta_same_register(int isa, uint32_t word, uint32_t other) {
    return ((word ^ other) & (isa == DELTA_ARM ? 0xF000u : 0x0F00u)) == 0;
}

uint32_t delta_with_half(int isa, uint32_t word, uint32_t half) {
    if (isa == DELTA_ARM) {
        return (word & 0xFFF0F000u) | (half & 0xF000u) << 4 | (half & 0xFFFu);
    }
    return (word & 0xFBF08F00u) | (half & 0xF000u) << 4 | (half & 0x800u) << 15 |
           (half & 0x700u) << 4 | (half & 0xFFu);
}

bool delta_short_branch(uint32_t half, int64_t place, int64_t *target) {
    if ((half & 0xF800u) == 0xE000u) {
        *target = place + 4 + sign_extend(half & 0x7FFu, 11) * 2;
        return true;
    }
    if ((half & 0xF000u) == 0xD000u && (half & 0x0F00u) < 0x0E00u) {
        *target = place + 4 + sign_extend(half & 0xFFu, 8) * 2;
        return true;
    }
    if ((half & 0xF500u) == 0xB100u) {
        *target = place + 4 + (int64_t)((half >> 3 & 0x1Fu) | (half >> 4 & 0x20u)) * 2;
        return true;
    }
    return false;
}

bool delta_with_short_branch(uint32_t *half, int64_t place, int64_t target) {
    const int64_t offset = target - place - 4;
    const uint32_t units = (uint32_t)(offset >> 1);
    if ((offset & 1) != 0) {
        return false;
    }
    if ((*half & 0xF800u) == 0xE000u) {
        if (offset < -2048 || offset >= 2048) {
            return false;
        }
        *half = (*half & 0xF800u) | (units & 0x7FFu);
        return true;
    }
    if ((*half & 0xF000u) == 0xD000u) {
        if (offset < -256 || offset >= 256) {
            return false;
        }
        *half = (*half & 0xFF00u) | (units & 0xFFu);
        return true;
    }
    if (offset < 0 || offset >= 128) {
        return false;
    }
    *half = (*half & 0xFD07u) | (units & 0x1Fu) << 3 | (units & 0x20u) << 4;
    return true;
}

bool delta_short_load(uint32_t half, int64_t place, int64_t *target) {
    *target = literal_pc(place) + (int64_t)(half & 0xFFu) * 4;
    return (half & 0xF800u) == 0x4800u || (half & 0xF800u) == 0xA000u;
}

bool delta_with_short_load(uint32_t *half, int64_t place, int64_t target) {
    const int64_t offset = target - literal_pc(place);
    if (offset < 0 || offset > 1020 || (offset & 3) != 0) {
        return false;
    }
    *half = (*half & 0xFF00u) | (uint32_t)offset >> 2;
    return true;
}
