/* Parts of what memories held, each kept once, however often it was met. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CHUNK 1024u   /* bytes */
#define CHAINS 32768u /* of chunks, by their hashes */

struct chunk {
    struct chunk *next; /* of the same hash */
    uint32_t uses, hash;
    uint8_t data[CHUNK];
};

struct chunks {
    struct chunk *chains[CHAINS];
    size_t count;
};

/* The chunk that holds this, with one use more. It is found by a hash, and compared. */
struct chunk *keep_chunk(struct chunks *all, const uint8_t *data);

/* One use less; a chunk without any is gone. */
void drop_chunk(struct chunks *all, struct chunk *c);
