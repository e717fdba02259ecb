#include "lib/starts.h"
#include "tests/check.h"
#include "tests/sim_nor.h"

enum { BLOCK = 512, OFFSET = 1024, SIZE = 512, BITS = SIZE * 8, ROUNDS = 300 };

static uint32_t count(struct sim_nor *nor) {
    return starts_count(&nor->flash, OFFSET, SIZE);
}

/* 0: the power was cut. */
static uint32_t count_cut(struct sim_nor *nor, uint32_t cut_at, enum sim_cut cut) {
    nor->cut = cut;
    nor->cut_at = nor->operations + cut_at;
    return setjmp(nor->power_lost) != 0 ? 0 : count(nor);
}

static void check_it_counts(void) {
    struct sim_nor nor;
    sim_nor_init(&nor, BLOCK, 1);
    for (uint32_t start = 1; start <= BITS; start++) {
        const uint32_t operations = nor.operations;
        CHECK_EQUAL(count(&nor), start);
        CHECK_EQUAL(nor.operations, operations + 1);
    }
    CHECK_EQUAL(count(&nor), 0);
    for (uint32_t i = 0; i < SIM_NOR_SIZE; i++) {
        CHECK_EQUAL(nor.cells[i], i >= OFFSET && i < OFFSET + SIZE ? 0 : 0xFF);
    }
}

/* However often, and however, the power is cut: no two starts have one count, and a start that is
 * not cut has one. */
static void check_no_count_is_used_twice(uint64_t seed) {
    struct sim_nor nor;
    struct random random = random_from(seed);
    sim_nor_init(&nor, BLOCK, seed);
    uint32_t last = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        sim_nor_start(&nor);
        const bool cut = random_below(&random, 3) > 0;
        const uint32_t got =
            cut ? count_cut(&nor, 0, (enum sim_cut)random_below(&random, SIM_CUTS)) : count(&nor);
        CHECK(cut || got > last);
        last = got > 0 ? got : last;
        /* What it is built on is sure. */
        const uint32_t at = OFFSET + (last - 1) / 8;
        const uint8_t bit = (uint8_t)(1u << (last - 1) % 8);
        CHECK(last == 0 || ((nor.cells[at] | nor.weak[at]) & bit) == 0);
    }
    CHECK(last <= 2 * ROUNDS);
}

/* A word with a worn bit is passed over, for ever. */
static void check_worn(void) {
    struct sim_nor nor;
    sim_nor_init(&nor, BLOCK, 1);
    nor.stuck_bit = OFFSET + 1;
    for (uint32_t start = 1; start <= 8; start++) {
        CHECK_EQUAL(count(&nor), start);
    }
    for (uint32_t start = 33; start <= 70; start++) {
        CHECK_EQUAL(count(&nor), start);
    }
    nor.stuck_bit = SIM_NEVER;
    nor.stuck = true;
    CHECK_EQUAL(count(&nor), 0);
}

int main(void) {
    check_it_counts();
    for (uint64_t seed = 1; seed <= 400; seed++) {
        check_no_count_is_used_twice(seed);
    }
    check_worn();
    return 0;
}
