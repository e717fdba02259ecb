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

/* Programs cells as `count` operations do, none of which is an erase; `data` has their bytes. */
void trace_program(uint8_t *cells, const struct op *ops, size_t count, const uint8_t *data);

/* How many operations at the end of two traces do the same to a flash, at whatever times; `erase`
 * is the kind of those without data. */
size_t trace_common_end(const struct op *one, size_t one_count, const uint8_t *one_data,
                        const struct op *other, size_t other_count, const uint8_t *other_data,
                        uint32_t erase);

#pragma GCC visibility pop
