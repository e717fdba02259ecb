/* What a debugger wants: to stop the core before an instruction, and to see what it holds.
 *
 * Time passes as it would without: that of a block passes when the block begins, and once. */
#include <assert.h>
#include <stdlib.h>

#include "core.h"

static bool is_watched(const struct watch *w, uint32_t first, uint32_t last, uint32_t kind) {
    return w->kinds & kind && first <= w->last && last >= w->first;
}

/* Stop in the middle of a block, at an instruction of it. */
static void stop_at(struct mcu *m, uint32_t address, int reason) {
    struct debug *d = &m->debug;
    assert(!d->reason && address - m->block_pc <= m->block_size);
    d->reason = reason;
    d->paid_pc = address;
    d->paid = m->block_pc + m->block_size - address;
    m->stopping = true;
    m->u.emu_stop(m->u.uc);
}

bool debug_lets_begin(struct mcu *m, uint32_t address) {
    struct debug *d = &m->debug;
    if (d->stepping && d->begun) {
        d->stepped = true;
        return false;
    }
    if (d->passing && address == d->passed) {
        d->passing = false;
    } else if (!d->passing) {
        d->passed = NOWHERE;
        d->looks = d->stepping;
    }
    return true;
}

static void on_breakpoint(void *uc, uint64_t address, uint32_t size, void *user) {
    struct mcu *m = user;
    (void)uc;
    (void)size;
    if (!m->debug.reason && (uint32_t)address != m->debug.passed) {
        stop_at(m, (uint32_t)address, STOP_BREAK);
    }
}

static void on_step(void *uc, uint64_t address, uint32_t size, void *user) {
    struct mcu *m = user;
    (void)uc;
    (void)size;
    if (!m->debug.begun) {
        m->debug.begun = true;
    } else if (!m->debug.reason) {
        stop_at(m, (uint32_t)address, STOP_STEP);
    }
}

/* Every access while something is watched, before it takes place. The state of the core is kept,
 * and what the rest of the block writes is taken back, as for accesses that are not aligned. */
static void on_watch(void *uc, int type, uint64_t at, int size, int64_t value, void *user) {
    struct mcu *m = user;
    struct debug *d = &m->debug;
    uint32_t address = code_address(m, at), length = (uint32_t)size, target = 0;
    uint32_t kind = type == ACCESS_WRITE ? WATCH_WRITE : WATCH_READ;
    (void)value;
    assert(length);
    uint32_t first = is_bit_band(m, address, &target) ? target : address;
    uint32_t last = first == target ? target : first + length - 1;
    uint32_t pc = read_register(m, REG_PC);
    bool passed = d->past_watch && pc == d->passed;
    for (size_t i = 0; i < d->watch_count && !passed && !m->aborting && !m->trapped; i++) {
        const struct watch *w = &d->watches[i];
        if (is_watched(w, first, last, kind)) {
            d->hit = i;
            d->hit_address = first < w->first ? w->first : first;
            m->u.context_save(uc, m->u.scratch);
            m->aborting = true;
            stop_at(m, pc, STOP_WATCH);
        }
    }
    if (m->aborting && type == ACCESS_WRITE) {
        keep_bytes(m, address, length);
    } else if (!m->aborting && is_main(m)) {
        leave_it_block(m);
    }
}

/* The core is reset: nothing is under way any more. */
void debug_reset(struct mcu *m) {
    m->debug.passed = m->debug.paid_pc = NOWHERE;
    m->debug.passing = false;
    m->debug.reason = 0;
    m->debug.stepped = true;
}

int debug_reason(struct mcu *m) {
    struct debug *d = &m->debug;
    int reason = d->reason;
    d->reason = 0;
    if (!reason && d->faulted) {
        d->faulted = false;
        reason = STOP_FAULT;
    }
    if (!reason && d->stepping && d->stepped && !m->waiting && !m->stuck) {
        reason = STOP_STEP;
    }
    return reason;
}

/* A BKPT that is passed is what it is without a debugger. */
bool debug_takes_bkpt(struct mcu *m) {
    if (!m->debug.attached || m->pc == m->debug.passed) {
        return false;
    }
    m->debug.reason = STOP_BREAK;
    return true;
}

/* What the host says */

enum { HOOK_CODE = 4, HOOK_READ_AND_WRITE = 3072 };

/* Unicorn asks for pages when it forgets code. */
static void remove_hook(struct mcu *m, size_t hook) {
    m->host = true;
    m->u.hook_del(m->u.uc, hook);
    m->host = false;
    forget_all_code(m);
}

static size_t add_hook(struct mcu *m, int type, void *function, uint64_t begin, uint64_t end) {
    size_t hook = 0;
    if (m->u.hook_add(m->u.uc, &hook, type, function, m, begin, end)) {
        abort();
    }
    forget_all_code(m);
    return hook;
}

void mcu_debug(struct mcu *m, bool attached) {
    m->debug.attached = attached;
    m->debug.faulted = false;
}

bool mcu_break_at(struct mcu *m, uint32_t address, bool wanted) {
    struct debug *d = &m->debug;
    size_t at = 0;
    while (at < d->breakpoint_count && d->breakpoints[at].address != address) {
        at++;
    }
    bool there = at < d->breakpoint_count;
    if (wanted && !there) {
        if (at == MOST_BREAKPOINTS) {
            return false;
        }
        size_t hook = add_hook(m, HOOK_CODE, (void *)on_breakpoint, address, address);
        d->breakpoints[at] = (struct breakpoint){address, hook};
        d->breakpoint_count++;
    } else if (!wanted && there) {
        remove_hook(m, d->breakpoints[at].hook);
        d->breakpoints[at] = d->breakpoints[--d->breakpoint_count];
    }
    return true;
}

void mcu_watch(struct mcu *m, const struct watch *watches, size_t count) {
    struct debug *d = &m->debug;
    assert(count <= MOST_WATCHES && (watches || !count));
    if (count && !d->watch_count) {
        d->watch_hook = add_hook(m, HOOK_READ_AND_WRITE, (void *)on_watch, 1, 0);
    } else if (!count && d->watch_count) {
        remove_hook(m, d->watch_hook);
    }
    d->watch_count = count;
    for (size_t i = 0; i < count; i++) {
        d->watches[i] = watches[i];
    }
}

size_t mcu_watch_hit(const struct mcu *m, uint32_t *address) {
    *address = m->debug.hit_address;
    return m->debug.hit;
}

void mcu_pass(struct mcu *m, bool past_watch) {
    m->debug.passed = m->pc;
    m->debug.past_watch = past_watch;
    m->debug.passing = m->debug.looks = true;
}

int mcu_step(struct mcu *m, uint64_t until) {
    struct debug *d = &m->debug;
    if (m->spinning) {
        m->waiting = m->spinning = false;
    }
    d->begun = d->stepped = m->waiting;
    d->stepping = d->looks = true;
    size_t hook = add_hook(m, HOOK_CODE, (void *)on_step, 1, 0);
    int reason = mcu_run(m, until);
    remove_hook(m, hook);
    d->stepping = false;
    d->looks = d->passed != NOWHERE;
    return reason;
}

/* Registers */

static int find_register(unsigned number) {
    static const int others[] = {REG_SP,  REG_LR,      -1,          REG_XPSR,      REG_MSP,
                                 REG_PSP, REG_PRIMASK, REG_BASEPRI, REG_FAULTMASK, REG_CONTROL};
    if (number < CORE_SP) {
        return REG_R0 + (int)number;
    }
    if (number < CORE_D0) {
        return others[number - CORE_SP];
    }
    return number == CORE_FPSCR ? REG_FPSCR : REG_D0 + (int)(number - CORE_D0);
}

uint64_t mcu_core_read(struct mcu *m, unsigned number) {
    enum { THUMB = 1 << 24 };
    assert(number < CORE_REGISTERS);
    uint64_t value = 0;
    if (number == CORE_PC) {
        return m->pc;
    }
    m->u.reg_read(m->u.uc, find_register(number), &value);
    if (number == CORE_XPSR) {
        return (value & ~(uint64_t)THUMB) | (m->thumb ? THUMB : 0);
    }
    return value;
}

/* The exception that is active stays what it is. */
static void write_xpsr(struct mcu *m, uint32_t value) {
    enum { EXCEPTION = 0x1ff, THUMB = 1 << 24 };
    uint32_t exception = read_register(m, REG_XPSR) & EXCEPTION;
    write_register(m, REG_XPSR_ALL, (value & ~(uint32_t)EXCEPTION) | THUMB | exception);
    write_register(m, REG_NZCV, value & 0xf8000000);
    m->thumb = value & THUMB;
}

void mcu_core_write(struct mcu *m, unsigned number, uint64_t value) {
    assert(number < CORE_REGISTERS);
    if (mcu_core_read(m, number) == value) {
        return;
    }
    if (number == CORE_PC) {
        m->pc = (uint32_t)value & ~1u;
        m->waiting = m->spinning = m->waiting_for_event = false;
    } else if (number == CORE_XPSR) {
        write_xpsr(m, (uint32_t)value);
    } else {
        m->u.reg_write(m->u.uc, find_register(number), &value);
    }
}

bool mcu_poke(struct mcu *m, uint32_t address, const uint8_t *data, uint32_t length) {
    uint32_t offset;
    mcu_settle(m);
    return find_ram(m, address, &offset) && dma_write(m, address, data, length);
}

bool mcu_look(struct mcu *m, uint32_t address, uint32_t *value) {
    enum { SIZE = 0x100000 };
    const uint32_t private = 0xe0000000u;
    if (address - private >= SIZE) {
        return false;
    }
    *value = scs_look(m, address - private);
    return true;
}

void mcu_reflash(struct mcu *m, uint32_t offset, const uint8_t *data, uint32_t length) {
    assert(offset <= m->image_size && length <= m->image_size - offset);
    mcu_settle(m);
    for (size_t i = 0; i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        for (uint32_t at = 0; at < length; at++) {
            if (offset + at - f->first < f->size) {
                uint8_t *cell = &f->cells[offset + at - f->first];
                *cell = data ? *cell & data[at] : 0xff;
            }
        }
        if (offset - f->first < f->size && length <= f->size - (offset - f->first)) {
            check_mend(m, &m->regions[i], offset - f->first, length);
        }
    }
    flash_changed(m, offset, length);
}
