#include "lib/starts.h"

#include <stdbool.h>
#include <string.h>

#include "lib/assert.h"

#define WORD 4u
#define WORD_BITS 32u
#define BLANK 0xFFFFFFFFu
/* Words that one start tries: one may be full, some may be worn. */
#define TRIES 8u

static uint32_t read_word(const struct flash *flash, uint32_t offset) {
    uint32_t word;
    memcpy(&word, flash->base + offset, sizeof word);
    return word;
}

/* One past the last 0 bit of a word. It takes as long for every count but none: what a start does
 * does not depend on how many there were. */
static uint32_t first_free(uint32_t word) {
    return word == BLANK ? 0 : WORD_BITS - (uint32_t)__builtin_clz(~word);
}

/* The last word with a 0 bit, or the first one. Words with one come before all without. */
static uint32_t find_word(const struct flash *flash, uint32_t offset, uint32_t words) {
    uint32_t first = 0;
    uint32_t end = words;
    while (first < end) {
        const uint32_t middle = first + (end - first) / 2;
        if (read_word(flash, offset + middle * WORD) == BLANK) {
            end = middle;
        } else {
            first = middle + 1;
        }
    }
    return first > 0 ? first - 1 : 0;
}

/* Clears the bit, and those before it once more: what is weak there is sure then. Only what reads
 * as 0 afterwards is. */
static bool clear(const struct flash *flash, uint32_t offset, uint32_t bit) {
    const uint32_t cleared = BLANK >> (WORD_BITS - 1 - bit);
    const uint32_t word = ~cleared;
    return flash->program(flash->ctx, offset, &word, sizeof word) == 0 &&
           (read_word(flash, offset) & cleared) == 0;
}

uint32_t starts_count(const struct flash *flash, uint32_t offset, uint32_t size) {
    ASSERT(offset % WORD == 0 && size % WORD == 0);
    const uint32_t words = size / WORD;
    uint32_t word = find_word(flash, offset, words);
    for (uint32_t i = 0; i < TRIES && word < words; i++, word++) {
        const uint32_t at = offset + word * WORD;
        const uint32_t bit = first_free(read_word(flash, at));
        const uint32_t count = word * WORD_BITS + bit + 1;
        if (bit < WORD_BITS && count <= STARTS_MAX && clear(flash, at, bit)) {
            return count;
        }
    }
    return 0;
}
