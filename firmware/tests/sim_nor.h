/* A NOR flash that forgets nothing and forgives nothing: programming only clears bits, and power
 * can be cut before, in the middle of and after every operation. Bits that were being changed when
 * it was cut may stay, change, or be left weak: these read differently after every start until they
 * are programmed or erased again. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>

#include "lib/flash.h"
#include "tests/random.h"

#define SIM_NOR_SIZE 8192u

enum sim_cut {
    SIM_CUT_BEFORE,     /* nothing was changed */
    SIM_CUT_WEAK_BEGIN, /* nothing was, but one bit is weak */
    SIM_CUT_PREFIX,     /* the first words, and some bits of the next */
    SIM_CUT_BITS,       /* some of the bits, anywhere */
    SIM_CUT_WEAK,       /* some of the bits, and some are weak */
    SIM_CUT_WEAK_END,   /* everything, but one bit is weak */
    SIM_CUT_AFTER,      /* everything, but the caller never hears of it */
    SIM_CUTS,
};

struct sim_nor {
    struct flash flash; /* what the code under test gets */
    uint8_t cells[SIM_NOR_SIZE];
    uint8_t weak[SIM_NOR_SIZE];
    struct random random;
    uint32_t operations; /* so far */
    uint32_t cut_at;     /* power is cut in this operation, SIM_NEVER: in none */
    enum sim_cut cut;
    jmp_buf power_lost; /* where a cut goes; set it before the code under test runs */
    bool stuck;         /* operations do nothing and fail */
    uint32_t stuck_bit; /* offset of a byte whose bit 0 cannot be cleared, SIM_NEVER: none */
};

#define SIM_NEVER UINT32_MAX

void sim_nor_init(struct sim_nor *nor, uint32_t block_size, uint64_t seed);

/* Power comes back: weak bits read as they like. */
void sim_nor_start(struct sim_nor *nor);
