/* Parts of what memories held; see chunks.h. */
#include "chunks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_chunk(const uint8_t *data) {
    uint64_t hash = 0;
    for (size_t at = 0; at < CHUNK; at += sizeof hash) {
        uint64_t word;
        memcpy(&word, data + at, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return (uint32_t)(hash >> 32);
}

struct chunk *keep_chunk(struct chunks *all, const uint8_t *data) {
    uint32_t hash = hash_chunk(data);
    struct chunk **chain = &all->chains[hash % CHAINS];
    for (struct chunk *c = *chain; c; c = c->next) {
        if (c->hash == hash && memcmp(c->data, data, CHUNK) == 0) {
            c->uses++;
            return c;
        }
    }
    struct chunk *fresh = malloc(sizeof *fresh);
    if (!fresh) {
        abort();
    }
    *fresh = (struct chunk){.next = *chain, .uses = 1, .hash = hash};
    memcpy(fresh->data, data, CHUNK);
    all->count++;
    return *chain = fresh;
}

void drop_chunk(struct chunks *all, struct chunk *c) {
    assert(c->uses > 0);
    if (--c->uses) {
        return;
    }
    struct chunk **link = &all->chains[c->hash % CHAINS];
    while (*link != c) {
        link = &(*link)->next;
    }
    *link = c->next;
    all->count--;
    free(c);
}
