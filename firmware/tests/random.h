/* Repeatable random numbers (xorshift64*, Vigna 2014). */
#pragma once

#include <stdint.h>

struct random {
    uint64_t state;
};

static inline struct random random_from(uint64_t seed) {
    return (struct random){(seed + 1) * 0x9E3779B97F4A7C15u | 1};
}

static inline uint32_t random_next(struct random *random) {
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return (uint32_t)((random->state * 0x2545F4914F6CDD1Du) >> 32);
}

/* 0 to bound - 1. */
static inline uint32_t random_below(struct random *random, uint32_t bound) {
    return (uint32_t)(((uint64_t)random_next(random) * bound) >> 32);
}
