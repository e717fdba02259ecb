/* The operations of the NOR and the faults of the firmware, kept for the host. */
#include <assert.h>
#include <string.h>

#include "grow.h"
#include "parts.h"

void trace_op(struct board *b, uint32_t lanes, uint32_t failed) {
    const struct job *j = &b->chips[lanes & 1 ? 0 : 1].job;
    assert(lanes > 0 && lanes < 1u << NOR_CHIPS);
    assert(j->kind == BUSY_ERASE || j->kind == BUSY_WORD || j->kind == BUSY_BUFFER);
    b->ops = grown(b->ops, &b->op_capacity, b->op_count + 1, sizeof *b->ops);
    uint32_t kind = j->kind == BUSY_ERASE ? OP_ERASE : j->kind == BUSY_WORD ? OP_WORD : OP_BUFFER;
    b->ops[b->op_count++] = (struct op){.kind = kind,
                                        .lanes = lanes,
                                        .offset = j->word * 4,
                                        .length = j->count * 4,
                                        .start = j->start,
                                        .end = j->end,
                                        .data = b->op_data_size,
                                        .failed = failed};
    if (kind == OP_ERASE) {
        return;
    }
    size_t size = b->op_data_size + j->count * 4;
    b->op_data = grown(b->op_data, &b->op_data_capacity, size, 1);
    uint8_t *out = b->op_data + b->op_data_size;
    memset(out, 0xff, j->count * 4);
    for (int chip = 0; chip < NOR_CHIPS; chip++) {
        const struct job *part = &b->chips[chip].job;
        for (uint32_t i = 0; lanes & 1u << chip && i < part->count; i++) {
            if (part->given[i]) {
                put16(out + i * 4 + chip * 2, part->data[i]);
            }
        }
    }
    b->op_data_size = size;
}

size_t board_ops(const struct board *b, struct op *out, size_t from, size_t capacity) {
    for (size_t i = 0; i < capacity && from + i < b->op_count; i++) {
        out[i] = b->ops[from + i];
    }
    return b->op_count;
}

size_t board_op_data(const struct board *b, uint8_t *out, size_t capacity) {
    if (b->op_data_size && capacity) {
        memcpy(out, b->op_data, capacity < b->op_data_size ? capacity : b->op_data_size);
    }
    return b->op_data_size;
}

size_t board_faults(const struct board *b, struct fault *out, size_t capacity) {
    for (size_t i = 0; i < capacity && i < b->fault_count && i < FAULTS_KEPT; i++) {
        out[i] = b->faults[i];
    }
    return b->fault_count;
}
