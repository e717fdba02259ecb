/* What the flash controllers of STM32H5 and H7 share: the write buffer, the programming of words
 * with ECC, and option words. What a torn option word leads to is not public: here each has a value
 * of its own for that. */
#include "devices.h"

enum { OPTION_CELLS = 8 }; /* bytes of a word and its complement */

void buffer_clear(struct write_buffer *b) {
    b->filled = 0;
    memset(b->data, 0xff, sizeof b->data);
}

enum buffered buffer_take(struct write_buffer *b, uint32_t offset, unsigned size, uint64_t value) {
    uint32_t at = offset % b->size;
    uint32_t bits = (uint32_t)((UINT64_C(1) << size) - 1) << at;
    if (at + size > b->size || (b->filled && offset - at != b->offset)) {
        return BUFFER_ELSEWHERE;
    }
    if (b->filled & bits) {
        return BUFFER_TWICE;
    }
    b->offset = offset - at;
    b->filled |= bits;
    for (unsigned i = 0; i < size; i++) {
        b->data[at + i] = (uint8_t)(value >> 8 * i);
    }
    return b->filled == UINT32_MAX >> (FLASH_WORD_MAX - b->size) ? BUFFER_FULL : BUFFER_TOOK;
}

void options_add(struct mcu *m, struct option_words *o, const struct flash_place *place,
                 struct device *controller) {
    assert(o->count <= OPTION_WORDS_MAX && place->size >= o->count * OPTION_CELLS);
    o->flash.apart = true;
    flash_add_region(m, &o->flash, place, controller);
}

bool options_load(struct mcu *m, struct option_words *o) {
    bool all = true;
    note_cells(m, &o->flash, 0, o->count * OPTION_CELLS);
    for (uint32_t i = 0; i < o->count; i++) {
        const uint8_t *cells = o->flash.cells + i * OPTION_CELLS;
        bool fits = get32(cells) == ~get32(cells + 4);
        o->now[i] = o->next[i] = fits ? get32(cells) : o->words[i].mismatch;
        all = all && fits;
    }
    return all;
}

static bool run(struct mcu *m, struct option_words *o, struct flash_job *job, uint32_t kind,
                uint32_t offset, uint32_t length) {
    uint32_t us = kind == OP_ERASE ? o->erase_us : o->program_us;
    if (!job_begin(m, job, kind, &o->flash, offset, length, (uint64_t)us * NS_PER_US)) {
        return false;
    }
    job_wait(m, job);
    job_settle(m, job);
    return true;
}

void options_program(struct mcu *m, struct option_words *o, struct flash_job *job) {
    bool goes_on = run(m, o, job, OP_ERASE, 0, o->flash.size);
    for (uint32_t i = 0; goes_on && i < o->count; i++) {
        put32(job->data, o->next[i]);
        put32(job->data + 4, ~o->next[i]);
        goes_on = run(m, o, job, OP_PROGRAM, i * OPTION_CELLS, OPTION_CELLS);
        o->now[i] = o->next[i];
    }
}

uint32_t *options_find(struct option_words *o, uint32_t offset, bool *writable) {
    for (uint32_t i = 0; i < o->count; i++) {
        *writable = o->words[i].next == offset;
        if (*writable || o->words[i].current == offset) {
            return *writable ? &o->next[i] : &o->now[i];
        }
    }
    return NULL;
}

void options_write(struct mcu *m, uint32_t *word, uint32_t value, bool locked) {
    if (!locked) {
        *word = value;
    } else if (value != *word) {
        fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
    }
}

void program_ecc_word(struct mcu *m, struct flash *flash, struct flash_job *job, uint32_t offset,
                      uint32_t size, uint32_t us) {
    note_cells(m, flash, offset, size);
    if (!is_blank(flash->cells + offset, size) ||
        (flash->check && check_is_broken(flash, offset, size))) {
        fault(m, FAULT_FLASH_DIRTY, flash->first + offset, get32(job->data));
    }
    job_begin(m, job, OP_PROGRAM, flash, offset, size, (uint64_t)us * NS_PER_US);
}
