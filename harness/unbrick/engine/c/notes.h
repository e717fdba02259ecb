/* What has a say in a session: the units of the flash whose first contents are read before an erase
 * of their block has ended. Sets have a bit for each unit of the flash image. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNIT = 4, UNITS_AT_ONCE = 64 };         /* bytes; as unbrick/campaign/book.py has them */
enum { NOTES_AT_ONCE = UNIT * UNITS_AT_ONCE }; /* bytes */

/* What reads flash, so that its contents have a say. */
enum note_source {
    NOTE_LOADS = 1 << 0,      /* of the processor */
    NOTE_FETCHES = 1 << 1,    /* of instructions */
    NOTE_TRANSFERS = 1 << 2,  /* of devices by DMA, and of vectors */
    NOTE_CONTROLLER = 1 << 3, /* the flash controller's own looks at the cells */
    NOTE_HOST = 1 << 4
};

struct notes {
    uint32_t sources;            /* of enum note_source; 0: nothing is noted */
    uint32_t size;               /* bytes of the flash image */
    uint64_t *relevant, *erased; /* sets; NULL before anything was noted */
};

/* Nothing has been read yet; from now on it is noted. */
void notes_begin(struct notes *n, uint32_t size, uint32_t sources);
void notes_free(struct notes *n);
void notes_add_range(struct notes *n, uint32_t offset, uint32_t length);
void notes_erase(struct notes *n, uint32_t offset, uint32_t length);

/* Whether nothing is left to be noted in a part; it begins and ends at NOTES_AT_ONCE. */
bool notes_are_complete(const struct notes *n, uint32_t offset, uint32_t length);

/* The set of the relevant units, as bytes; returns how many. */
size_t notes_take(const struct notes *n, uint8_t *out, size_t capacity);

/* A part was read, and is to be noted. Most are short. */
static inline void notes_add_units(struct notes *n, uint32_t offset, uint32_t length) {
    uint32_t first = offset / UNIT, last = (offset + length - 1) / UNIT;
    uint32_t word = first / UNITS_AT_ONCE;
    if (last / UNITS_AT_ONCE != word || length > UNITS_AT_ONCE) {
        notes_add_range(n, offset, length);
        return;
    }
    uint64_t bits = (UINT64_C(2) << (last - first)) - 1;
    n->relevant[word] |= bits << first % UNITS_AT_ONCE & ~n->erased[word];
}

/* Something has read a part of the flash image. */
static inline void notes_add(struct notes *n, enum note_source source, uint32_t offset,
                             uint32_t length) {
    if (n->sources & source) {
        notes_add_units(n, offset, length);
    }
}
