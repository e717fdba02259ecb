/* Copies of the pages that code was fetched from. Unicorn executes the copy, which never changes.
 * So what it has translated is good whenever a page holds the same again: after a power-on, at
 * another place, in another session. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

enum { NOT_FOUND = 0 }; /* of the numbers of copies, which begin at 1 */

struct code {
    uint8_t *copies; /* page number n is copy n + 1 */
    uint32_t used;
    uint32_t first[COPIES], next[COPIES]; /* chains of copies with the same hash */
    uint32_t of_nor[NOR_MODELLED / PAGE], of_sram[SRAM_SIZE / PAGE]; /* the copy of each page */
};

struct code *code_new(uint8_t *copies) {
    assert(copies);
    struct code *c = calloc(1, sizeof *c);
    if (!c) {
        abort();
    }
    c->copies = copies;
    return c;
}

void code_free(struct code *c) {
    free(c);
}

static uint32_t hash(const uint8_t *page) {
    enum { SPREAD = 29 };
    uint64_t mixed = 0;
    for (size_t at = 0; at < PAGE; at += sizeof mixed) {
        uint64_t word;
        memcpy(&word, page + at, sizeof word);
        mixed = (mixed ^ word) * 0x9e3779b97f4a7c15u;
        mixed ^= mixed >> SPREAD;
    }
    return (uint32_t)(mixed % COPIES);
}

/* There is no room: all copies are given up, and what was translated of them. Unicorn takes an
 * address of 32 bits for that, and asks which page is there. */
static void begin_anew(struct board *b) {
    struct code *c = b->code;
    c->used = 0;
    memset(c->first, 0, sizeof c->first);
    memset(c->of_nor, 0, sizeof c->of_nor);
    memset(c->of_sram, 0, sizeof c->of_sram);
    b->giving_up = true;
    forget_code(b, GIVEN_UP, GIVEN_UP + COPIES * PAGE);
    b->giving_up = false;
    forget_pages(b);
}

static uint32_t find_copy(struct board *b, const uint8_t *page) {
    struct code *c = b->code;
    uint32_t chain = hash(page);
    for (uint32_t copy = c->first[chain]; copy != NOT_FOUND; copy = c->next[copy - 1]) {
        if (!memcmp(c->copies + (size_t)(copy - 1) * PAGE, page, PAGE)) {
            return copy;
        }
    }
    if (c->used == COPIES) {
        begin_anew(b);
    }
    memcpy(c->copies + (size_t)c->used * PAGE, page, PAGE);
    c->next[c->used] = c->first[chain];
    c->first[chain] = ++c->used;
    return c->used;
}

uint64_t code_address(struct board *b, uint32_t address) {
    bool in_nor = address < NOR_MODELLED;
    uint32_t at = in_nor ? address : address - SRAM_BASE;
    assert(in_nor || at < SRAM_SIZE);
    uint32_t *copy = &(in_nor ? b->code->of_nor : b->code->of_sram)[at / PAGE];
    if (*copy == NOT_FOUND) {
        uint32_t found = find_copy(b, (in_nor ? b->nor : b->sram) + at / PAGE * PAGE);
        *copy = found; /* only now: all may have begun anew */
    }
    return COPIED + (uint64_t)(*copy - 1) * PAGE + at % PAGE;
}

bool code_is_copied(const struct board *b, uint32_t page) {
    assert(page < SRAM_SIZE / PAGE);
    return b->code->of_sram[page] != NOT_FOUND;
}

void code_nor_changed(struct board *b, uint32_t low, uint32_t high) {
    assert(low < high && high <= NOR_MODELLED);
    for (uint32_t page = low / PAGE; page <= (high - 1) / PAGE; page++) {
        b->code->of_nor[page] = NOT_FOUND;
    }
}

void code_sram_changed(struct board *b, uint32_t page) {
    assert(page < SRAM_SIZE / PAGE);
    b->code->of_sram[page] = NOT_FOUND;
}
