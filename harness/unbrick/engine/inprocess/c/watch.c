/* Watchpoints: the CPU stops before an instruction that accesses what is watched. */
#include <assert.h>
#include <string.h>

#include "parts.h"

static int register_name(unsigned number) {
    static const int others[] = {REG_SP, REG_LR, REG_CPSR};
    if (number < 13) {
        return REG_R0 + (int)number;
    }
    return number < 16 ? others[number - 13] : REG_D0 + (int)number - 16;
}

/* Accesses of the CPU near to what is watched, before they take place. Unicorn has put the CPU into
 * the state in which it began the instruction, but cannot stop there: the rest of the block may be
 * executed. Until it stops nothing is written, and the state is kept to go back to it. */
void board_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user) {
    enum { MEM_WRITE = 17, READ_EXEC = 1 | 4 };
    struct board *b = user;
    struct hit *h = &b->hit;
    const uint32_t kind = type == MEM_WRITE ? WATCH_WRITE : WATCH_READ;
    const uint64_t last = address + (uint64_t)size - 1;
    uint32_t pc = 0;
    (void)value;
    b->u.reg_read(uc, REG_PC, &pc);
    for (unsigned i = 0; i < b->watch_count && !h->pending; i++) {
        const struct watch *w = &b->watches[i];
        if (!(w->kinds & kind) || last < w->first || address > w->last || pc == b->passed) {
            continue;
        }
        *h = (struct hit){.pending = true, .watch = i, .pc = pc};
        h->address = address < w->first ? w->first : (uint32_t)address;
        for (unsigned number = 0; number < REGISTERS; number++) {
            b->u.reg_read(uc, register_name(number), &h->registers[number]);
        }
        b->u.mem_protect(uc, SRAM_BASE, SRAM_SIZE, READ_EXEC);
        b->stopping = true;
        b->end = 0;
        b->u.emu_stop(uc);
    }
    leave_it_block(b, uc);
}

/* The emulator has stopped: as if it had done so before the instruction. */
int stopped_by_watch(struct board *b) {
    enum { ALL = 7 };
    struct hit *h = &b->hit;
    assert(h->pending && h->watch < b->watch_count);
    for (unsigned number = 0; number < REGISTERS; number++) {
        b->u.reg_write(b->u.uc, register_name(number), &h->registers[number]);
    }
    b->u.mem_protect(b->u.uc, SRAM_BASE, SRAM_SIZE, ALL);
    b->pc = h->pc;
    h->pending = b->waiting = false;
    return STOP_WATCH;
}

/* What is watched from now on; the host sees to it that board_on_access() is called for it. */
void board_watch(struct board *b, const struct watch *watches, size_t count) {
    stretches_leave(b);
    assert(!b->hit.pending && (watches || count == 0));
    b->watch_count = count < WATCHES ? count : WATCHES;
    forget_pages(b);
    if (count) {
        memcpy(b->watches, watches, b->watch_count * sizeof *watches);
    }
}

/* Which watch the last STOP_WATCH was for, and where the access would begin in it. */
unsigned board_watch_hit(const struct board *b, uint32_t *address) {
    *address = b->hit.address;
    return b->hit.watch;
}
