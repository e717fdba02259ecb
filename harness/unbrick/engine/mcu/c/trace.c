/* The operations of the flash and the faults of the firmware, kept for the host. */
#include <assert.h>
#include <string.h>

#include "core.h"
#include "grow.h"

void fault(struct mcu *m, uint32_t kind, uint32_t address, uint32_t detail) {
    if (m->stuck) {
        return;
    }
    if (m->fault_count < FAULTS_KEPT) {
        m->faults[m->fault_count] = (struct fault){kind, m->block_pc, address, detail, m->now};
    }
    m->fault_count++;
    if (m->debug.attached) {
        m->debug.faulted = true;
        m->end = 0;
    }
}

bool flash_begin(struct mcu *m, uint32_t kind, uint32_t offset, uint32_t length,
                 const uint8_t *data, uint64_t ns) {
    assert(kind == OP_PROGRAM || kind == OP_ERASE);
    assert((data != NULL) == (kind == OP_PROGRAM) && length > 0);
    assert(offset < m->image_size && length <= m->image_size - offset);
    if (m->stuck || m->browned) {
        return false;
    }
    if (m->op_count == m->cut_before) {
        stop(m, STOP_CUT);
        return false;
    }
    m->pausing = kind == OP_ERASE && m->notes.sources;
    m->ops = grown(m->ops, &m->op_capacity, m->op_count + 1, sizeof *m->ops);
    m->ops[m->op_count++] = (struct op){.kind = kind,
                                        .lanes = 1,
                                        .offset = offset,
                                        .length = length,
                                        .start = m->now,
                                        .end = m->now + ns,
                                        .data = m->op_data_size};
    if (data) {
        size_t size = m->op_data_size + length;
        m->op_data = grown(m->op_data, &m->op_data_capacity, size, 1);
        memcpy(m->op_data + m->op_data_size, data, length);
        m->op_data_size = size;
    }
    return true;
}

void mcu_cut_before(struct mcu *m, uint64_t op) {
    m->cut_before = op;
}

void mcu_brown_out_in(struct mcu *m, uint64_t op) {
    m->brown_out_in = op;
}

bool brown_out_is_due(struct mcu *m) {
    bool due = m->brown_out_in != NEVER && m->op_count == m->brown_out_in + 1;
    m->brown_out_in = due ? NEVER : m->brown_out_in;
    return due;
}

size_t mcu_ops(const struct mcu *m, struct op *out, size_t from, size_t capacity) {
    for (size_t i = 0; i < capacity && from + i < m->op_count; i++) {
        out[i] = m->ops[from + i];
    }
    return m->op_count;
}

size_t mcu_op_data(const struct mcu *m, uint8_t *out, size_t capacity) {
    if (m->op_data_size && capacity) {
        memcpy(out, m->op_data, capacity < m->op_data_size ? capacity : m->op_data_size);
    }
    return m->op_data_size;
}

size_t mcu_faults(const struct mcu *m, struct fault *out, size_t capacity) {
    for (size_t i = 0; i < capacity && i < m->fault_count && i < FAULTS_KEPT; i++) {
        out[i] = m->faults[i];
    }
    return m->fault_count;
}
