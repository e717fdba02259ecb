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

#pragma GCC visibility pop
