/* The operations of a session; see trace.h. */
#include "trace.h"

#include <stdbool.h>
#include <string.h>

void trace_program(uint8_t *cells, const struct op *ops, size_t count, const uint8_t *data) {
    for (const struct op *op = ops; op < ops + count; op++) {
        for (uint32_t i = 0; i < op->length; i++) {
            cells[op->offset + i] &= data[op->data + i];
        }
    }
}

/* An erase has no data. */
static bool do_the_same(const struct op *one, const uint8_t *one_data, const struct op *other,
                        const uint8_t *other_data, uint32_t erase) {
    return one->kind == other->kind && one->lanes == other->lanes && one->offset == other->offset &&
           one->length == other->length && one->failed == other->failed &&
           (one->kind == erase ||
            memcmp(one_data + one->data, other_data + other->data, one->length) == 0);
}

size_t trace_common_end(const struct op *one, size_t one_count, const uint8_t *one_data,
                        const struct op *other, size_t other_count, const uint8_t *other_data,
                        uint32_t erase) {
    size_t count = 0;
    while (count < one_count && count < other_count &&
           do_the_same(&one[one_count - 1 - count], one_data, &other[other_count - 1 - count],
                       other_data, erase)) {
        count++;
    }
    return count;
}
