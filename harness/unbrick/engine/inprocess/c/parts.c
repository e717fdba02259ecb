/* What all parts of the board share. */
#include "parts.h"

#include <assert.h>

void fault(struct board *b, uint32_t kind, uint32_t address, uint32_t detail) {
    if (b->fault_count < FAULTS_KEPT) {
        b->faults[b->fault_count] = (struct fault){kind, b->block_pc, address, detail, b->now};
    }
    b->fault_count++;
}

/* Stop at the next block, for a reason that lasts until power goes off and on. */
void stop(struct board *b, int reason) {
    assert(reason != STOP_TIME && reason != STOP_OUTPUT);
    assert(b->powered);
    b->stuck = b->reason = reason;
    b->end = 0;
}

/* The firmware cannot go on. */
void fatal(struct board *b, uint32_t kind, uint32_t address, uint32_t detail) {
    fault(b, kind, address, detail);
    stop(b, STOP_FAULT);
}
