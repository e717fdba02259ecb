/* The whole: power, reset, and the run loop. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum { SPINS = 8, RESET_NS = 1000 }; /* rounds of a loop before time passes at once */

uint32_t read_register(struct mcu *m, int reg) {
    uint32_t value = 0;
    m->u.reg_read(m->u.uc, reg, &value);
    return value;
}

void write_register(struct mcu *m, int reg, uint32_t value) {
    m->u.reg_write(m->u.uc, reg, &value);
}

/* At the next block, for a reason that lasts until power goes off and on. */
void stop(struct mcu *m, int reason) {
    assert(reason != STOP_TIME && reason != STOP_OUTPUT);
    m->stuck = reason;
    m->end = 0;
}

void mcu_elapse(struct mcu *m, uint64_t ns) {
    m->now += ns;
}

void mcu_reset_for(struct mcu *m, enum reset_cause cause) {
    m->resetting = true;
    m->cause = cause;
    m->end = 0;
}

void mcu_reset_system(struct mcu *m) {
    mcu_reset_for(m, CAUSE_SOFTWARE);
}

enum reset_cause reset_cause(const struct mcu *m) {
    return m->cause;
}

void mcu_press_reset(struct mcu *m) {
    if (m->powered && m->stuck != STOP_CUT) {
        m->stuck = 0;
        m->pressed = true;
        mcu_reset_system(m);
    }
}

void mcu_brown_out(struct mcu *m) {
    if (!m->powered || m->stuck == STOP_CUT) {
        return;
    }
    for (size_t i = 0; i < m->device_count; i++) {
        if (m->devices[i]->lose_power && !m->devices[i]->outside) {
            m->devices[i]->lose_power(m, m->devices[i]);
        }
    }
    m->stuck = 0;
    m->browned = true;
    mcu_reset_system(m);
}

/* When the run loop has to be asked again, at the latest. */
void look_again(struct mcu *m) {
    m->end = sooner(m->until, sooner(m->event, scs_next(m)));
    for (size_t i = 0; i < m->line_count; i++) {
        m->end = sooner(m->end, sooner(m->lines[i]->watched, m->lines[i]->idle));
    }
    if (m->resetting || m->stuck) {
        m->end = 0;
    }
}

/* Blocks */

static void leave(struct mcu *m) {
    m->stopping = true;
    m->u.emu_stop(m->u.uc);
}

/* Whether a block may be begun as far as time, masks and the MPU are concerned. */
static bool may_begin(struct mcu *m, uint32_t address) {
    if (m->now >= m->end || (m->look && find_exception(m, WITH_ALL))) {
        return false;
    }
    m->look = false;
    if (mpu_may_be_mixed(m, address) && !mpu_lets_execute(m, address)) {
        m->trap = (struct trap){IACCVIOL, 0};
        m->trapped = true;
        return false;
    }
    return !m->debug.looks || debug_lets_begin(m, address);
}

/* What is special about a block; false: it is not to be begun. */
static bool prepare_block(struct mcu *m, uint32_t address, uint32_t size, uint8_t what) {
    if (what & BLOCK_BROKEN && m->let_block != address) {
        m->broken = true;
        m->broken_at = address;
        return false;
    }
    m->let_block = NOWHERE;
    if (what & BLOCK_FPU && m->setup.fpu && !fpu_is_on(m) && !m->until_pc) {
        m->fpu_blocked = true;
        m->block_pc = address;
        m->block_size = size;
        m->debug.passing = address == m->debug.passed;
        return false;
    }
    if (what & BLOCK_SEV) {
        m->event_register = true;
    }
    m->look = what & BLOCK_UNMASKS && m->masked;
    m->spins = address == m->block_pc ? m->spins + 1 : 0;
    if (what & BLOCK_SPIN && m->spins >= SPINS && !m->debug.stepping) {
        m->spins = 0;
        m->waiting = m->spinning = true;
        return false;
    }
    /* A debugger sees every round. */
    if (what & BLOCK_LOOP && !m->debug.attached && ++m->rounds >= SPINS) {
        m->rounds = 0;
        skip_rounds(m, address);
    }
    return true;
}

/* A block that begins has been read. Where Unicorn ends one before the last halfword of a page, it
 * has seen that this begins an instruction of two. */
static void note_block(struct mcu *m, uint32_t address, uint32_t size) {
    uint32_t offset = 0;
    const struct region *r = find_flash(m, address, &offset);
    if (!r) {
        return;
    }
    if (r->mapped) {
        r->coded[offset / PAGE] = true;
    }
    uint32_t first = r->flash->first;
    size += (offset + size) % PAGE == PAGE - 2 || !size ? 2 : 0;
    uint32_t left = m->image_size - first - offset;
    notes_add_units(&m->notes, first + offset, size < left ? size : left);
}

/* What there is to do as a block begins that is not plain; false: it is not to be begun. */
static NEVER_INLINE bool begin_block(struct mcu *m, uint32_t at, uint32_t size, uint8_t what) {
    if (m->letting) {
        return at == m->pc;
    }
    if (m->pausing) {
        if (!joins_look(m, at)) {
            return false;
        }
        what &= (uint8_t)~BLOCK_NOTED; /* from here on it is to be noted again */
    }
    if (m->notes.sources & NOTE_FETCHES && !(what & BLOCK_NOTED)) {
        note_block(m, at, size);
    }
    bool look = m->look || m->debug.looks || mpu_may_be_mixed(m, at);
    if ((m->now >= m->end || look) && !may_begin(m, at)) {
        return false;
    }
    what = what ? what : look_at_block(m, at, size);
    if ((what & ~BLOCK_NOTED) != BLOCK_SEEN && !prepare_block(m, at, size, what)) {
        return false;
    }
    uint32_t offset = at - m->fast_base;
    if (offset < m->fast_size && m->fast_blocks[offset >> 1]) {
        m->fast_blocks[offset >> 1] |= BLOCK_NOTED;
    }
    return true;
}

static void on_block(void *uc, uint64_t address, uint32_t size, void *user) {
    struct mcu *m = user;
    uint32_t at = (uint32_t)address, offset = at - m->fast_base;
    uint8_t what = offset < m->fast_size ? m->fast_blocks[offset >> 1] : 0;
    (void)uc;
    bool look = m->look || m->debug.looks || mpu_may_be_mixed(m, at) || m->letting || m->pausing;
    if ((what != (BLOCK_SEEN | BLOCK_NOTED) || m->now >= m->end || look) &&
        !begin_block(m, at, size, what)) {
        leave(m);
        return;
    }
    m->block_pc = at;
    m->block_size = size;
    m->bytes += size;
    m->now += (uint64_t)size * m->pace >> 10;
}

static void on_interrupt(void *uc, uint32_t number, void *user) {
    struct mcu *m = user;
    m->interrupt = (int)number;
    m->u.emu_stop(uc);
}

/* Run */

static void raise_trap(struct mcu *m) {
    uint32_t cfsr = m->trap.cfsr;
    unsigned exception = cfsr & 0xff ? EXC_MEMORY : cfsr & 0xff00 ? EXC_BUS : EXC_USAGE;
    bool data = cfsr & (MMARVALID | BFARVALID);
    raise_fault(m, exception, cfsr, data ? m->trap.address : m->pc);
}

static void call_supervisor(struct mcu *m) {
    int priority = nvic_group(m, nvic_priority(m, EXC_SVC));
    if (priority >= execution_priority(m, WITH_ALL)) {
        raise_hard_fault(m, FORCED);
    } else {
        enter_exception(m, EXC_SVC);
    }
}

/* What Unicorn calls an interrupt: EXCP_* of its target/arm/cpu.h. */
static void take_interrupt(struct mcu *m) {
    enum { SVC = 2, DATA_ABORT = 4, BKPT = 7, EXCEPTION_EXIT = 8, NO_COPROCESSOR = 17 };
    enum { STACK_OVERFLOW = 19, NOT_ALIGNED = 22 };
    if (is_application(m) && application_take_interrupt(m)) {
        return;
    }
    switch (is_application(m) ? -1 : m->interrupt) {
    case SVC:
        call_supervisor(m);
        break;
    case BKPT:
        if (!semihost(m) && !debug_takes_bkpt(m)) {
            raise_hard_fault(m, DEBUGEVT);
        }
        break;
    case EXCEPTION_EXIT:
        leave_exception(m, m->pc);
        break;
    case DATA_ABORT:
    case NOT_ALIGNED:
        raise_fault(m, EXC_USAGE, UNALIGNED, m->pc);
        break;
    case NO_COPROCESSOR:
        raise_fault(m, EXC_USAGE, NOCP, m->pc);
        break;
    case STACK_OVERFLOW:
        raise_fault(m, EXC_USAGE, STKOF, m->pc);
        break;
    default:
        m->block_pc = m->pc;
        fault(m, FAULT_EMULATOR, m->pc, (uint32_t)m->interrupt);
        stop(m, STOP_LOCKUP);
        break;
    }
}

static bool has_just_executed(struct mcu *m, uint16_t narrow, uint16_t wide) {
    uint16_t first = 0, second = 0;
    if (halfword_at(m, m->pc - 2, &second) && second == narrow) {
        return true;
    }
    return halfword_at(m, m->pc - 4, &first) && first == 0xf3af && second == wide;
}

/* Unicorn calls an instruction invalid that it does not know, but WFE and YIELD as well. */
static void take_invalid(struct mcu *m) {
    enum { UNCATEGORIZED = 0x02000000 }; /* others are of something before that */
    if (read_register(m, REG_ESR) != UNCATEGORIZED) {
        if (has_just_executed(m, 0xbf20, 0x8002)) {
            m->waiting = m->waiting_for_event = !m->event_register;
            m->event_register = false;
        }
        return;
    }
    write_register(m, REG_ESR, 0);
    bool thumb = read_register(m, REG_XPSR) >> 24 & 1;
    m->thumb = thumb;
    raise_fault(m, EXC_USAGE, thumb ? UNDEFINSTR : INVSTATE, m->pc);
}

static void run_to_fpu_instruction(struct mcu *m) {
    uint32_t at = find_fpu_instruction(m, m->pc, m->block_size);
    if (at == m->pc) {
        raise_fault(m, EXC_USAGE, NOCP, m->pc);
    } else {
        forget_range(m, m->pc, m->pc + m->block_size);
        m->until_pc = at;
    }
}

/* The time of a block passes when it begins. So the rest of one that a debugger has stopped in the
 * middle costs nothing. */
int emulate(struct mcu *m, uint32_t until) {
    uint32_t paid = m->pc == m->debug.paid_pc ? m->debug.paid : 0;
    uint64_t now = m->now, bytes = m->bytes - paid;
    m->bytes -= paid;
    m->now -= (uint64_t)paid * m->pace >> 10;
    bool thumb = !is_application(m) || application_is_thumb(m);
    if (is_application(m)) {
        until = UINT32_MAX; /* 0 is where it begins */
    }
    int error = m->u.emu_start(m->u.uc, m->pc | thumb, until, 0, 0);
    if (m->bytes == bytes) { /* nothing has begun */
        m->bytes += paid;
    } else if (!m->debug.reason) {
        m->debug.paid = 0;
    }
    m->now = later(m->now, now);
    return error;
}

static void execute(struct mcu *m) {
    enum { INSTRUCTION_INVALID = 10, NO_EXIT = 0 };
    uint32_t until = m->until_pc;
    m->stopping = m->trapped = m->aborting = m->fpu_blocked = m->look = m->broken = false;
    m->interrupt = -1;
    if (!m->pc &&
        !is_application(m)) { /* the table of vectors, or nothing: Unicorn would not begin */
        raise_fault(m, EXC_USAGE, UNDEFINSTR, 0);
        return;
    }
    int error = emulate(m, until);
    m->until_pc = 0;
    if (m->aborting) {
        m->u.context_restore(m->u.uc, m->u.scratch);
        take_back(m);
        m->aborting = false;
        forget_pages(m);
    }
    m->pc = read_register(m, REG_PC);
    if (m->stuck || m->debug.reason) {
        return;
    }
    if (m->broken) {
        pass_broken(m);
    } else if (m->trapped) {
        raise_trap(m);
    } else if (m->interrupt >= 0) {
        take_interrupt(m);
    } else if (error == INSTRUCTION_INVALID && is_application(m)) {
        application_take_invalid(m);
    } else if (error == INSTRUCTION_INVALID) {
        take_invalid(m);
    } else if (error) {
        m->block_pc = m->pc;
        fault(m, FAULT_EMULATOR, m->pc, (uint32_t)error);
        stop(m, STOP_LOCKUP);
    } else if (m->fpu_blocked) {
        run_to_fpu_instruction(m);
    } else if (!m->stopping && until && m->pc == until) {
        raise_fault(m, EXC_USAGE, NOCP, m->pc);
    } else if (!m->stopping) {
        m->waiting = true; /* WFI */
    }
}

static void settle_what_is_due(struct mcu *m) {
    scs_settle(m);
    if (m->now < m->event) {
        return;
    }
    m->event = NEVER;
    for (size_t i = 0; i < m->device_count; i++) {
        struct device *d = m->devices[i];
        if (d->due <= m->now) {
            if (d->settle) {
                d->settle(m, d);
            }
            d->due = d->next ? d->next(m, d) : NEVER;
            d->due = d->due <= m->now ? m->now + 1 : d->due;
        }
        m->event = sooner(m->event, d->due);
    }
}

void mcu_settle(struct mcu *m) {
    for (size_t i = 0; i < m->device_count && m->powered; i++) {
        if (m->devices[i]->settle) {
            m->devices[i]->settle(m, m->devices[i]);
        }
    }
}

/* Whether SysTick's interrupt could end the waiting. */
static bool systick_wakes(struct mcu *m) {
    int priority = nvic_group(m, nvic_priority(m, EXC_SYSTICK));
    return priority < execution_priority(m, m->spinning ? WITH_ALL : WITH_OTHERS);
}

static uint64_t next_wake(struct mcu *m) {
    uint64_t systick = scs_next(m);
    return sooner(m->event, systick != NEVER && systick_wakes(m) ? systick : NEVER);
}

bool mcu_quiet(struct mcu *m) {
    return m->powered && !m->stuck && !m->resetting && m->waiting && next_wake(m) == NEVER &&
           !find_exception(m, m->spinning ? WITH_ALL : WITH_OTHERS);
}

/* Time passes until something may end the waiting, if that is not over. */
static void wait(struct mcu *m) {
    if (!m->spinning) {
        bool woken = m->waiting_for_event && m->event_register;
        if (woken || find_exception(m, m->waiting_for_event ? WITH_ALL : WITH_OTHERS)) {
            m->event_register = m->event_register && !woken;
            m->waiting = m->waiting_for_event = false;
            return;
        }
    }
    if (next_wake(m) == NEVER) {
        m->end = m->until; /* a SysTick that cannot end it is no reason to look */
        for (size_t i = 0; i < m->line_count; i++) {
            m->end = sooner(m->end, sooner(m->lines[i]->watched, m->lines[i]->idle));
        }
    }
    m->now = later(m->now, m->end);
}

static void reset_core(struct mcu *m) {
    m->u.context_restore(m->u.uc, m->u.reset_state);
    nvic_reset(m);
    scs_reset(m);
    plain_reset_all(m);
    m->waiting = m->spinning = m->waiting_for_event = m->event_register = false;
    m->masked = m->look = m->trapped = m->aborting = m->broken = false;
    m->until_pc = 0;
    m->let_block = NOWHERE;
    m->spins = 0;
    m->block_pc = NOWHERE;
    m->polling = (struct polling){0};
    debug_reset(m);
    m->looks = 0;
}

/* When the flash knows which of its banks is first. */
static void take_vectors(struct mcu *m) {
    uint32_t vectors[2] = {UINT32_MAX, UINT32_MAX};
    if (is_application(m)) {
        m->pc = m->setup.vectors;
        return;
    }
    dma_read(m, m->scs.vtor, vectors, sizeof vectors);
    write_register(m, REG_SP, vectors[0] & ~3u);
    write_register(m, REG_ESR, 0);
    write_register(m, REG_LR, UINT32_MAX);
    m->pc = vectors[1] & ~1u;
    m->thumb = vectors[1] & 1;
}

static void reset_devices(struct mcu *m, enum reset_kind kind) {
    m->event = NEVER;
    for (size_t i = 0; i < m->device_count; i++) {
        m->devices[i]->reset(m, m->devices[i], kind);
    }
    for (size_t i = 0; i < m->line_count; i++) {
        line_reset(m, m->lines[i]);
    }
    for (size_t i = 0; i < m->device_count; i++) {
        mcu_look_again(m, m->devices[i]);
    }
    take_vectors(m);
}

static void reset_system(struct mcu *m) {
    reset_core(m);
    reset_devices(m, m->browned ? RESET_BROWN_OUT : m->pressed ? RESET_PIN : RESET_SYSTEM);
    m->resetting = m->pressed = m->browned = false;
    m->resets++;
    m->now += RESET_NS;
}

/* Whether the host wants to look at what was sent. */
static bool shows(struct mcu *m) {
    bool shown = false;
    for (size_t i = 0; i < m->line_count; i++) {
        shown |= line_shown(m, m->lines[i]);
    }
    return shown;
}

static int halted(struct mcu *m, uint64_t until) {
    m->now = later(m->now, until);
    return m->stuck;
}

/* Run until virtual time `until`, or until the host should look (see enum stop_reason). */
int mcu_run(struct mcu *m, uint64_t until) {
    if (!m->powered || m->stuck) {
        return halted(m, until);
    }
    m->until = until;
    for (;;) {
        if (m->resetting) {
            reset_system(m);
        }
        settle_what_is_due(m);
        if (m->resetting) { /* a watchdog */
            continue;
        }
        int reason = debug_reason(m);
        if (reason) {
            return reason;
        }
        bool shown = shows(m);
        if (m->stuck) {
            return m->stuck;
        }
        if (shown) {
            return STOP_OUTPUT;
        }
        if (m->now >= until) {
            return mcu_quiet(m) ? STOP_QUIET : STOP_TIME;
        }
        unsigned exception = find_exception(m, WITH_ALL);
        if (exception) {
            enter_exception(m, exception);
            continue;
        }
        if (!m->thumb && !is_application(m)) {
            m->thumb = true;
            raise_fault(m, EXC_USAGE, INVSTATE, m->pc);
            continue;
        }
        m->masked = find_exception(m, WITHOUT);
        look_again(m);
        if (m->waiting) {
            wait(m);
            continue;
        }
        watch_accesses(m);
        execute(m);
    }
}

static int connect(struct mcu *m) {
    enum { HOOK_INTERRUPT = 1, HOOK_BLOCK = 8 };
    int error = memory_connect(m);
    if (!error) {
        error = m->u.hook_add(m->u.uc, &m->hook[2], HOOK_BLOCK, (void *)on_block, m, 1, 0);
    }
    if (!error) {
        error = m->u.hook_add(m->u.uc, &m->hook[3], HOOK_INTERRUPT, (void *)on_interrupt, m, 1, 0);
    }
    return error;
}

struct mcu *mcu_new(const struct unicorn *unicorn, const struct setup *setup) {
    assert(setup->hz && setup->interrupts <= MOST_EXCEPTIONS - EXC_EXTERNAL);
    assert(setup->priority_bits >= 2 && setup->priority_bits <= 8);
    assert(setup->mpu_regions <= MOST_MPU_REGIONS);
    struct mcu *m = calloc(1, sizeof *m);
    struct plain *plain = calloc(PLAIN_SLOTS, sizeof *plain);
    uint32_t *plain_reset = calloc(PLAIN_SLOTS, sizeof *plain_reset);
    if (!m || !plain || !plain_reset) {
        free(m);
        free(plain);
        free(plain_reset);
        return NULL;
    }
    m->plain = plain;
    m->plain_reset = plain_reset;
    m->u = *unicorn;
    m->setup = *setup;
    m->pace = (uint32_t)((uint64_t)setup->pace_ps * 1024 / 1000);
    m->cycle_ns = (uint32_t)clock_ns(1, setup->hz);
    m->cut_before = m->brown_out_in = m->event = NEVER;
    debug_reset(m);
    if (setup->semihosting) {
        mcu_add_line(m, &m->semihosting, NULL);
    }
    if (connect(m)) {
        mcu_free(m);
        return NULL;
    }
    return m;
}

void mcu_free(struct mcu *m) {
    for (size_t i = 0; i < m->line_count; i++) {
        line_free(m->lines[i]);
    }
    for (size_t i = 0; i < m->device_count; i++) {
        if (m->devices[i]->free) {
            m->devices[i]->free(m->devices[i]);
        }
    }
    for (size_t i = 0; i < m->region_count; i++) {
        free(m->regions[i].blocks);
        free(m->regions[i].executed);
        free(m->regions[i].coded);
        free(m->regions[i].loads);
        free(m->regions[i].broken);
    }
    for (size_t i = 0; i < m->ram_count; i++) {
        free(m->rams[i].executed);
        free(m->rams[i].blocks);
    }
    free(m->plain);
    free(m->plain_reset);
    free(m->ops);
    free(m->op_data);
    free(m->undo);
    free(m->sent);
    free(m->recalled);
    joins_free(m);
    notes_free(&m->notes);
    free(m);
}

void mcu_power_on(struct mcu *m) {
    if (m->powered) {
        return;
    }
    m->powered = true;
    m->resetting = m->pressed = m->browned = false;
    m->stuck = 0;
    memset(m->nvic.level, 0, sizeof m->nvic.level);
    reset_core(m);
    reset_devices(m, RESET_POWER);
    forget_ram_code(m);
}

void mcu_power_off(struct mcu *m) {
    if (!m->powered) {
        return;
    }
    for (size_t i = 0; i < m->device_count; i++) {
        if (m->devices[i]->lose_power) {
            m->devices[i]->lose_power(m, m->devices[i]);
        }
    }
    for (size_t i = 0; i < m->line_count; i++) {
        line_reset(m, m->lines[i]);
    }
    joins_end(m);
    m->powered = false;
    m->stuck = 0;
}

uint64_t mcu_now(const struct mcu *m) {
    return m->now;
}

uint64_t mcu_instruction_bytes(const struct mcu *m) {
    return m->bytes;
}

uint64_t mcu_exceptions(const struct mcu *m) {
    return m->exceptions;
}

uint64_t mcu_resets(const struct mcu *m) {
    return m->resets;
}

uint32_t mcu_pc(const struct mcu *m) {
    return m->pc;
}

/* Nothing that was is of any more interest: time and counting begin anew. */
void mcu_forget(struct mcu *m) {
    assert(!m->powered);
    m->now = m->bytes = m->exceptions = m->resets = 0;
    m->op_count = m->op_data_size = m->fault_count = 0;
    m->sent_count = m->recalled_count = 0;
    m->pausing = false;
    plain_forget(m);
    for (size_t i = 0; i < m->line_count; i++) {
        line_forget(m->lines[i]);
    }
}
