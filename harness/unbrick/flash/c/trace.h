/* The operations of a session, as the engines keep them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The same as that of the engines. */
struct op {
    uint32_t kind, lanes, offset, length, failed, unused;
    uint64_t start, end;
    uint64_t data; /* of a program: where its bytes are kept */
};

#pragma GCC visibility push(default)

/* Changes cells as `count` operations do; `data` has their bytes, and `erases` a bit for each kind
 * of those that have none. */
void trace_apply(uint8_t *cells, const struct op *ops, size_t count, const uint8_t *data,
                 uint32_t erases);

/* How many operations at the end of two traces do the same to a flash, at whatever times; `erase`
 * is the kind of those without data. */
size_t trace_common_end(const struct op *one, size_t one_count, const uint8_t *one_data,
                        const struct op *other, size_t other_count, const uint8_t *other_data,
                        uint32_t erase);

/* Places of a flash: units of 4 bytes, as a set of `size` bytes, and `range_count` ranges, each
 * with its offset and its length. */

/* The number of the first operation that touches one of them; `count`: none does. */
size_t trace_next(const struct op *ops, size_t count, const uint8_t *units, size_t size,
                  const uint32_t *ranges, size_t range_count);

/* The number after the last operation that touches one of them; 0: none does. */
size_t trace_last(const struct op *ops, size_t count, const uint8_t *units, size_t size,
                  const uint32_t *ranges, size_t range_count);

/* Sets the mark of each block that an operation touches. `starts` has their offsets, in order. */
void trace_mark_blocks(const struct op *ops, size_t count, const uint32_t *starts,
                       size_t block_count, uint8_t *marks);

#pragma GCC visibility pop
