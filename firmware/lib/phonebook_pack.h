/* The phonebook as it travels: whatever format it is kept in, CBOR [1, [[id, name, number], ...]],
 * oldest entry first. */
#pragma once

#include "lib/phonebook.h"

#define PHONEBOOK_PACK_VERSION 1u

/* Called between entries, every millisecond or so; may be NULL. */
typedef void phonebook_progress_fn(void *ctx);

/* Writes all entries. Returns the bytes used, or 0 when they do not fit. */
size_t phonebook_pack(const struct phonebook *book, uint8_t *buffer, size_t size,
                      phonebook_progress_fn *progress, void *ctx);

/* What phonebook_pack has written. */
struct phonebook_packed {
    const uint8_t *entries;
    size_t size; /* bytes */
    uint32_t count;
};

/* False: the bytes are no packed phonebook, or one of its entries cannot be. `packed` points into
 * them. */
bool phonebook_unpack(struct phonebook_packed *packed, const uint8_t *data, size_t length);

/* Stores the entries that are not in the phonebook, and reads them all back. An entry that was
 * packed twice is to be there twice; those that are there besides stay. Doing it again, also after
 * it was interrupted, comes to the same. `doubtful`: power may have been lost in an erase of what
 * is there, which can read well now and not the next time. `*stored`: how many were stored now.
 * Returns 0 or an error. */
int phonebook_restore(struct phonebook *book, const struct phonebook_packed *packed, bool doubtful,
                      uint32_t *stored, phonebook_progress_fn *progress, void *ctx);
