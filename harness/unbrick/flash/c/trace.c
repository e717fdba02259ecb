/* The operations of a session; see trace.h. */
#include "trace.h"

#include <stdbool.h>
#include <string.h>

#define UNIT 4u /* bytes */

void trace_apply(uint8_t *cells, const struct op *ops, size_t count, const uint8_t *data,
                 uint32_t erases) {
    for (const struct op *op = ops; op < ops + count; op++) {
        if (erases >> op->kind & 1) {
            memset(cells + op->offset, 0xff, op->length);
            continue;
        }
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

static bool touches_unit(const struct op *op, const uint8_t *units, size_t size) {
    uint32_t last = (op->offset + op->length - 1) / UNIT;
    for (uint32_t unit = op->offset / UNIT; unit <= last && unit / 8 < size; unit++) {
        if (!units[unit / 8]) {
            unit |= 7;
        } else if (units[unit / 8] >> unit % 8 & 1) {
            return true;
        }
    }
    return false;
}

static bool touches_range(const struct op *op, const uint32_t *ranges, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t offset = ranges[2 * i], length = ranges[2 * i + 1];
        if (offset < op->offset + op->length && op->offset < offset + length) {
            return true;
        }
    }
    return false;
}

size_t trace_next(const struct op *ops, size_t count, const uint8_t *units, size_t size,
                  const uint32_t *ranges, size_t range_count) {
    size_t at = 0;
    while (at < count && !touches_unit(&ops[at], units, size) &&
           !touches_range(&ops[at], ranges, range_count)) {
        at++;
    }
    return at;
}

size_t trace_last(const struct op *ops, size_t count, const uint8_t *units, size_t size,
                  const uint32_t *ranges, size_t range_count) {
    size_t at = count;
    while (at > 0 && !touches_unit(&ops[at - 1], units, size) &&
           !touches_range(&ops[at - 1], ranges, range_count)) {
        at--;
    }
    return at;
}

void trace_mark_blocks(const struct op *ops, size_t count, const uint32_t *starts,
                       size_t block_count, uint8_t *marks) {
    size_t at = 0; /* neighbours are in the same block */
    for (const struct op *op = ops; op < ops + count; op++) {
        while (at > 0 && starts[at] > op->offset) {
            at--;
        }
        while (at + 1 < block_count && starts[at + 1] <= op->offset) {
            at++;
        }
        for (size_t to = at; to < block_count && starts[to] < op->offset + op->length; to++) {
            marks[to] = 1;
        }
    }
}
