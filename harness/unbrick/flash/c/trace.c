/* The operations of a session; see trace.h. */
#include "trace.h"

void trace_program(uint8_t *cells, const struct op *ops, size_t count, const uint8_t *data) {
    for (const struct op *op = ops; op < ops + count; op++) {
        for (uint32_t i = 0; i < op->length; i++) {
            cells[op->offset + i] &= data[op->data + i];
        }
    }
}
