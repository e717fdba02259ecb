/* What has a say in a session; see notes.h. */
#include "notes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The bits of units `first` to `last` in word number `word` of a set. */
static uint64_t bits_of(uint32_t word, uint32_t first, uint32_t last) {
    uint64_t bits = UINT64_MAX;
    if (word == first / UNITS_AT_ONCE) {
        bits &= UINT64_MAX << first % UNITS_AT_ONCE;
    }
    if (word == last / UNITS_AT_ONCE) {
        bits &= UINT64_MAX >> (UNITS_AT_ONCE - 1 - last % UNITS_AT_ONCE);
    }
    return bits;
}

static size_t set_size(const struct notes *n) {
    return (n->size / UNIT / UNITS_AT_ONCE + 1) * sizeof *n->relevant;
}

void notes_begin(struct notes *n, uint32_t size, uint32_t sources) {
    assert(size && (!n->relevant || n->size == size));
    n->size = size;
    n->sources = sources;
    if (!n->relevant) {
        n->relevant = malloc(set_size(n));
        n->erased = malloc(set_size(n));
        if (!n->relevant || !n->erased) {
            abort();
        }
    }
    memset(n->relevant, 0, set_size(n));
    memset(n->erased, 0, set_size(n));
}

void notes_free(struct notes *n) {
    free(n->relevant);
    free(n->erased);
    *n = (struct notes){0};
}

void notes_add_range(struct notes *n, uint32_t offset, uint32_t length) {
    assert(n->sources && offset < n->size && length && length <= n->size - offset);
    uint32_t first = offset / UNIT, last = (offset + length - 1) / UNIT;
    for (uint32_t word = first / UNITS_AT_ONCE; word <= last / UNITS_AT_ONCE; word++) {
        n->relevant[word] |= bits_of(word, first, last) & ~n->erased[word];
    }
}

void notes_erase(struct notes *n, uint32_t offset, uint32_t length) {
    assert(length);
    uint32_t first = offset / UNIT, last = (offset + length - 1) / UNIT;
    for (uint32_t word = first / UNITS_AT_ONCE; n->sources && word <= last / UNITS_AT_ONCE;
         word++) {
        n->erased[word] |= bits_of(word, first, last);
    }
}

bool notes_are_complete(const struct notes *n, uint32_t offset, uint32_t length) {
    assert(offset % NOTES_AT_ONCE == 0 && length % NOTES_AT_ONCE == 0);
    assert(length <= n->size - offset);
    for (uint32_t word = offset / NOTES_AT_ONCE; word < (offset + length) / NOTES_AT_ONCE; word++) {
        if (~(n->relevant[word] | n->erased[word])) {
            return false;
        }
    }
    return true;
}

size_t notes_take(const struct notes *n, uint8_t *out, size_t capacity) {
    size_t size = n->relevant ? set_size(n) : 0;
    for (size_t i = 0; i < size && i < capacity; i++) {
        out[i] = (uint8_t)(n->relevant[i / 8] >> i % 8 * 8);
    }
    return size;
}
