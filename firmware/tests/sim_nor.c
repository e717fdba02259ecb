#include "tests/sim_nor.h"

#include "tests/check.h"

static uint8_t random_byte(struct sim_nor *nor) {
    return (uint8_t)random_next(&nor->random);
}

/* Changes the bits of one byte that differ from `target`, as far as a cut lets it. */
static void tear(struct sim_nor *nor, uint32_t at, uint8_t target) {
    const uint8_t changing = nor->cells[at] ^ target;
    const uint8_t changed = changing & random_byte(nor);
    nor->cells[at] ^= changed;
    if (nor->cut == SIM_CUT_WEAK) {
        nor->weak[at] |= changing & random_byte(nor);
    }
}

/* What a byte becomes: `data` is NULL for an erase. */
static uint8_t target_of(const struct sim_nor *nor, uint32_t at, const uint8_t *data) {
    const uint8_t target = data != NULL ? nor->cells[at] & *data : 0xFF;
    return at == nor->stuck_bit ? target | 1 : target;
}

/* One bit that is to be changed: the byte it is in (or SIM_NEVER: none is) and its mask. */
static uint32_t pick_bit(struct sim_nor *nor, uint32_t offset, const uint8_t *data, uint32_t length,
                         uint8_t *mask) {
    uint32_t seen = 0;
    uint32_t picked = SIM_NEVER;
    for (uint32_t i = 0; i < length * 8; i++) {
        const uint32_t at = offset + i / 8;
        const uint8_t bit = (uint8_t)(1u << i % 8);
        const uint8_t target = target_of(nor, at, data != NULL ? data + i / 8 : NULL);
        if (((nor->cells[at] ^ target) & bit) != 0 && random_below(&nor->random, ++seen) == 0) {
            picked = at;
            *mask = bit;
        }
    }
    return picked;
}

/* How many bytes of an operation are done whole when power is cut in it. */
static uint32_t whole_bytes(struct sim_nor *nor, uint32_t length) {
    switch (nor->cut) {
    case SIM_CUT_PREFIX:
        return random_below(&nor->random, length / 2 + 1) * 2;
    case SIM_CUT_WEAK_END:
    case SIM_CUT_AFTER:
        return length;
    default:
        return 0;
    }
}

/* Moves `length` bytes towards their targets: `data`, or all bits set. */
static void change(struct sim_nor *nor, uint32_t offset, const uint8_t *data, uint32_t length) {
    const bool cut = nor->operations++ == nor->cut_at;
    const uint32_t whole = cut ? whole_bytes(nor, length) : length;
    uint8_t weak_bit = 0;
    const uint32_t weak = cut ? pick_bit(nor, offset, data, length, &weak_bit) : SIM_NEVER;
    for (uint32_t i = 0; i < length; i++) {
        const uint32_t at = offset + i;
        const uint8_t target = target_of(nor, at, data != NULL ? data + i : NULL);
        if (i < whole) {
            /* A program makes its zeros sure; what it leaves alone stays as weak as it was. */
            nor->weak[at] &= data != NULL ? data[i] : 0;
            nor->cells[at] = target;
        } else if (nor->cut == SIM_CUT_BITS || nor->cut == SIM_CUT_WEAK ||
                   (nor->cut == SIM_CUT_PREFIX && i < whole + 2)) {
            tear(nor, at, target);
        }
    }
    if (weak != SIM_NEVER && (nor->cut == SIM_CUT_WEAK_BEGIN || nor->cut == SIM_CUT_WEAK_END)) {
        nor->weak[weak] |= weak_bit;
    }
    if (cut) {
        longjmp(nor->power_lost, 1);
    }
}

static int program(void *ctx, uint32_t offset, const void *data, uint32_t length) {
    struct sim_nor *nor = ctx;
    const uint8_t *bytes = data;
    CHECK(offset <= SIM_NOR_SIZE && length <= SIM_NOR_SIZE - offset);
    /* The flash cannot be read while it is programmed. */
    CHECK(bytes + length <= nor->cells || bytes >= nor->cells + SIM_NOR_SIZE);
    if (nor->stuck) {
        return -1;
    }
    change(nor, offset, bytes, length);
    return memcmp(nor->cells + offset, data, length) == 0 ? 0 : -1;
}

static int erase(void *ctx, uint32_t offset) {
    struct sim_nor *nor = ctx;
    CHECK(offset % nor->flash.block_size == 0 && offset < SIM_NOR_SIZE);
    if (nor->stuck) {
        return -1;
    }
    change(nor, offset, NULL, nor->flash.block_size);
    return 0;
}

void sim_nor_init(struct sim_nor *nor, uint32_t block_size, uint64_t seed) {
    memset(nor, 0, sizeof *nor);
    memset(nor->cells, 0xFF, sizeof nor->cells);
    nor->flash = (struct flash){nor->cells, block_size, program, erase, nor};
    nor->random = random_from(seed);
    nor->cut_at = SIM_NEVER;
    nor->stuck_bit = SIM_NEVER;
}

void sim_nor_start(struct sim_nor *nor) {
    nor->cut_at = SIM_NEVER;
    for (uint32_t i = 0; i < SIM_NOR_SIZE; i++) {
        nor->cells[i] ^= nor->weak[i] & random_byte(nor);
    }
}
