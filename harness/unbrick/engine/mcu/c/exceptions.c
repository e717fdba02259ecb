/* Exceptions: entry, return, faults. Source: Armv7-M ARM (DDI 0403), B1.5. */
#include <assert.h>
#include <string.h>

#include "core.h"

enum { SPSEL = 2, NPRIV = 1, FPCA = 4, SFPA = 8 };         /* CONTROL */
enum { STKALIGN = 1 << 9, NONBASETHRDENA = 1 };            /* CCR */
enum { FRAME = 0x20, FPU_FRAME = 0x68, ALIGNED = 1 << 9 }; /* bytes; bit of the stored xPSR */
enum { IS_THREAD = 8, IS_PSP = 4, NO_FPU_FRAME = 0x10 };   /* EXC_RETURN */
#define THUMB (1u << 24)
#define IT_BITS 0x0600fc00u

static bool is_v8(const struct mcu *m) {
    return m->setup.core == CORE_M33;
}

/* The priority of what runs, 256 for a thread that nothing masks. */
int execution_priority(struct mcu *m, enum masks masks) {
    int priority = 256;
    for (unsigned word = 0; word < m->nvic.words; word++) {
        for (uint32_t left = m->nvic.active[word]; left; left &= left - 1) {
            unsigned exception = word * 32 + (unsigned)__builtin_ctz(left);
            int p = nvic_group(m, nvic_priority(m, exception));
            priority = p < priority ? p : priority;
        }
    }
    if (masks & WITH_PRIMASK && priority > 0 && read_register(m, REG_PRIMASK) & 1) {
        priority = 0;
    }
    if (masks & WITH_OTHERS && is_main(m)) {
        int base = (int)(read_register(m, REG_BASEPRI) & 0xff);
        base = nvic_group(m, base);
        if (base && base < priority) {
            priority = base;
        }
        if (priority > -1 && read_register(m, REG_FAULTMASK) & 1) {
            priority = -1;
        }
    }
    return priority;
}

unsigned find_exception(struct mcu *m, enum masks masks) {
    int priority;
    unsigned best = nvic_best(m, &priority);
    if (!best || nvic_group(m, priority) >= execution_priority(m, masks)) {
        return 0;
    }
    return best;
}

/* The stack of an exception. */
struct stack {
    uint32_t address, size;
    bool privileged; /* whose accesses these are */
};

static bool may(struct mcu *m, const struct stack *s, unsigned permission) {
    if (!mpu_is_on(m)) {
        return true;
    }
    for (uint32_t i = 0; i < s->size; i += 4) {
        if (!(mpu_permissions(m, s->address + i, s->privileged) & permission)) {
            return false;
        }
    }
    return true;
}

/* 0, or what of CFSR tells why it could not be. */
static uint32_t push(struct mcu *m, const struct stack *s, const uint32_t *words) {
    if (!may(m, s, MAY_WRITE)) {
        return MSTKERR;
    }
    return dma_write(m, s->address, words, s->size) ? 0 : STKERR;
}

static uint32_t pop(struct mcu *m, const struct stack *s, uint32_t *words) {
    if (!may(m, s, MAY_READ)) {
        return MUNSTKERR;
    }
    return dma_read(m, s->address, words, s->size) ? 0 : UNSTKERR;
}

static void lock_up(struct mcu *m) {
    m->block_pc = m->pc;
    fault(m, FAULT_LOCKUP, m->pc, m->scs.cfsr);
    stop(m, STOP_LOCKUP);
}

/* Handler mode begins: everything but the stack. */
static void start_handler(struct mcu *m, unsigned exception, uint32_t exc_return) {
    uint32_t vector = 0;
    uint32_t xpsr = read_register(m, REG_XPSR);
    uint32_t flags = xpsr & 0xf8000000;
    write_register(m, REG_XPSR_ALL, (xpsr & 0xf80f0000) | THUMB | exception);
    write_register(m, REG_LR, exc_return);
    write_register(m, REG_NZCV, flags); /* Unicorn derives what it keeps of the mode anew */
    nvic_activate(m, exception);
    m->event_register = m->debug.stepped = true;
    m->waiting = m->spinning = m->waiting_for_event = false;
    if ((exception == EXC_HARD || exception == EXC_NMI) && mpu_has_exceptions(m)) {
        forget_pages(m);
    }
    m->exceptions++;
    m->now += 12ull * m->cycle_ns;
    m->spins = 0;
    if (!dma_read(m, m->scs.vtor + 4 * exception, &vector, 4)) {
        if (exception == EXC_HARD || exception == EXC_NMI) {
            lock_up(m);
        } else {
            raise_hard_fault(m, VECTTBL);
        }
        return;
    }
    m->pc = vector & ~1u;
    m->thumb = vector & 1;
}

/* What of CONTROL an exception changes. A thread without privileges cannot write it, and Armv7-M
 * does not let a handler write SPSEL: so the mode goes to and fro. To be called in handler mode. */
static void write_control(struct mcu *m, uint32_t control) {
    uint32_t xpsr = read_register(m, REG_XPSR), sp = read_register(m, REG_SP);
    write_register(m, REG_CONTROL, 0);
    write_register(m, REG_XPSR_ALL, xpsr & ~0x1ffu);
    write_register(m, REG_CONTROL, control);
    write_register(m, REG_XPSR_ALL, xpsr);
    assert(sp == read_register(m, REG_SP));
    (void)sp;
}

static void read_fpu(struct mcu *m, uint32_t *words) {
    for (int i = 0; i < 8; i++) {
        uint64_t pair = 0;
        m->u.reg_read(m->u.uc, REG_D0 + i, &pair);
        words[2 * i] = (uint32_t)pair;
        words[2 * i + 1] = (uint32_t)(pair >> 32);
    }
    words[16] = read_register(m, REG_FPSCR);
    words[17] = 0;
}

static void write_fpu(struct mcu *m, const uint32_t *words) {
    for (int i = 0; i < 8; i++) {
        uint64_t pair = words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
        m->u.reg_write(m->u.uc, REG_D0 + i, &pair);
    }
    write_register(m, REG_FPSCR, words[16]);
}

/* The registers that an exception puts on the stack. */
static const int STACKED[] = {REG_R0, REG_R0 + 1, REG_R0 + 2, REG_R0 + 3, REG_R12, REG_LR};
enum { STACKED_COUNT = 6, FRAME_PC = 6, FRAME_XPSR = 7 };

/* A fault comes of putting registers on the stack for another exception, which stays pending. */
static void fail_entry(struct mcu *m, unsigned exception, uint32_t cfsr, uint32_t exc_return) {
    unsigned derived = cfsr & 0xff ? EXC_MEMORY : EXC_BUS;
    uint32_t enable = derived == EXC_MEMORY ? 1u << 16 : 1u << 17;
    m->scs.cfsr |= cfsr;
    m->block_pc = m->pc;
    fault(m, derived == EXC_MEMORY ? FAULT_MEMORY : FAULT_BUS, read_register(m, REG_SP),
          m->scs.cfsr);
    if (exception == EXC_HARD || exception == EXC_NMI || execution_priority(m, WITH_ALL) < 0) {
        lock_up(m);
        return;
    }
    bool enabled = is_main(m) && m->scs.shcsr & enable;
    if (!enabled || nvic_priority(m, derived) > nvic_priority(m, exception)) {
        m->scs.hfsr |= FORCED;
        derived = EXC_HARD;
    }
    nvic_pend(m, exception);
    start_handler(m, derived, exc_return);
}

void enter_exception(struct mcu *m, unsigned exception) {
    uint32_t frame[FPU_FRAME / 4];
    uint32_t xpsr = read_register(m, REG_XPSR), control = read_register(m, REG_CONTROL);
    bool handler = xpsr & 0x1ff;
    bool fpu = control & FPCA && fpu_is_on(m);
    uint32_t size = fpu ? FPU_FRAME : FRAME, old = read_register(m, REG_SP), sp = old - size;
    for (int i = 0; i < STACKED_COUNT; i++) {
        frame[i] = read_register(m, STACKED[i]);
    }
    bool align = (is_v8(m) || m->scs.ccr & STKALIGN || fpu) && sp & 4;
    sp -= align ? 4 : 0;
    sp &= ~3u;
    frame[FRAME_PC] = m->pc;
    frame[FRAME_XPSR] =
        (xpsr & ~(uint32_t)ALIGNED & ~THUMB) | (align ? ALIGNED : 0) | (m->thumb ? THUMB : 0);
    if (fpu) {
        read_fpu(m, frame + FRAME / 4);
        m->scs.fpcar = sp + FRAME;
        m->scs.fpccr = (m->scs.fpccr & ~1u) | (m->scs.fpccr >> 30 & 1); /* LSPACT, if LSPEN */
    }
    struct stack stack = {sp, size, handler || !(control & NPRIV)};
    uint32_t exc_return = is_v8(m) ? 0xffffffa0 : 0xffffffe1;
    exc_return |= fpu ? 0 : NO_FPU_FRAME;
    exc_return |= handler ? 0 : control & SPSEL ? IS_THREAD | IS_PSP : IS_THREAD;
    uint32_t error = push(m, &stack, frame);
    write_register(m, REG_SP, sp);
    if (error) {
        fail_entry(m, exception, error, exc_return);
    } else {
        start_handler(m, exception, exc_return);
    }
    if (control & SPSEL || fpu) {
        write_control(m, control & NPRIV);
    }
}

static void refuse_return(struct mcu *m, uint32_t cfsr, uint32_t exc_return) {
    unsigned exception = cfsr & 0xff ? EXC_MEMORY : cfsr & 0xff00 ? EXC_BUS : EXC_USAGE;
    static const uint32_t kinds[] = {FAULT_MEMORY, FAULT_BUS, FAULT_USAGE};
    bool enabled = is_main(m) && m->scs.shcsr >> (exception - EXC_MEMORY + 16) & 1;
    int running = execution_priority(m, WITH_ALL);
    m->scs.cfsr |= cfsr;
    m->block_pc = m->pc;
    fault(m, kinds[exception - EXC_MEMORY], exc_return, m->scs.cfsr);
    if (!enabled || nvic_group(m, nvic_priority(m, exception)) >= running) {
        m->scs.hfsr |= FORCED;
        exception = EXC_HARD;
    }
    if (exception == EXC_HARD && running < 0) {
        lock_up(m);
        return;
    }
    start_handler(m, exception, exc_return);
}

static bool is_any_active(const struct mcu *m) {
    uint32_t any = 0;
    for (unsigned word = 0; word < m->nvic.words; word++) {
        any |= m->nvic.active[word];
    }
    return any;
}

static bool is_legal(const struct mcu *m, uint32_t exc_return) {
    uint32_t mode = exc_return & 0xe;
    bool fixed = is_v8(m) ? exc_return >> 7 == UINT32_MAX >> 7
                          : (exc_return & ~0x1eu) == (UINT32_MAX & ~0x1fu);
    bool fpu = !(exc_return & NO_FPU_FRAME);
    return fixed && (mode == 0 || mode == 8 || mode == 0xc) && (!fpu || m->setup.fpu);
}

static void restore(struct mcu *m, const uint32_t *frame, uint32_t exc_return, uint32_t sp) {
    bool fpu = !(exc_return & NO_FPU_FRAME), psp = exc_return & IS_PSP;
    uint32_t control = read_register(m, REG_CONTROL) & NPRIV;
    uint32_t xpsr = frame[FRAME_XPSR] & ~(uint32_t)ALIGNED, flags = xpsr & 0xf8000000;
    for (int i = 0; i < STACKED_COUNT; i++) {
        write_register(m, STACKED[i], frame[i]);
    }
    if (fpu && fpu_is_on(m)) {
        write_fpu(m, frame + FRAME / 4);
    }
    m->scs.fpccr &= ~1u;
    write_register(m, psp ? REG_PSP : REG_MSP, sp);
    control |= (psp ? SPSEL : 0) | (fpu ? FPCA | SFPA : 0); /* Unicorn wants both */
    if (exc_return & IS_THREAD) {
        write_register(m, REG_CONTROL, 0);
        write_register(m, REG_XPSR_ALL, xpsr);
        write_register(m, REG_CONTROL, control);
    } else {
        write_register(m, REG_XPSR_ALL, xpsr);
        write_register(m, REG_CONTROL, control);
    }
    write_register(m, REG_NZCV, flags);
    m->pc = frame[FRAME_PC] & ~1u;
    m->thumb = xpsr & THUMB;
}

/* EXC_RETURN has come to the PC, in a handler; bit 0 of it is lost on the way. */
void leave_exception(struct mcu *m, uint32_t exc_return) {
    enum { SLEEPONEXIT = 2 };
    unsigned exception = read_register(m, REG_IPSR) & 0x1ff;
    bool was_active = nvic_is_active(m, exception);
    exc_return &= ~1u;
    if (was_active) {
        nvic_deactivate(m, exception);
    }
    if ((exception == EXC_HARD || exception == EXC_NMI) && mpu_has_exceptions(m)) {
        forget_pages(m);
    }
    if (exception != EXC_NMI && is_main(m)) {
        write_register(m, REG_FAULTMASK, 0);
    }
    uint32_t tail = is_v8(m) ? exc_return : exc_return | 1;
    bool thread = exc_return & IS_THREAD;
    if (!was_active || !is_legal(m, exc_return) ||
        (thread && is_any_active(m) && !(m->scs.ccr & NONBASETHRDENA)) ||
        (!thread && !is_any_active(m))) {
        refuse_return(m, INVPC, tail);
        return;
    }
    m->event_register = true;
    unsigned next = find_exception(m, WITH_ALL);
    if (next) { /* tail-chaining: nothing is taken from the stack in between */
        start_handler(m, next, tail);
        return;
    }
    uint32_t frame[FPU_FRAME / 4];
    bool psp = exc_return & IS_PSP;
    uint32_t size = exc_return & NO_FPU_FRAME ? FRAME : FPU_FRAME;
    uint32_t sp = read_register(m, psp ? REG_PSP : REG_MSP);
    bool privileged = !thread || !(read_register(m, REG_CONTROL) & NPRIV);
    struct stack stack = {sp, size, privileged};
    uint32_t error = pop(m, &stack, frame);
    if (!error && (frame[FRAME_XPSR] & 0x1ff) != 0 == thread) {
        error = INVPC;
    }
    if (error) {
        refuse_return(m, error, tail);
        return;
    }
    bool aligned = frame[FRAME_XPSR] & ALIGNED;
    restore(m, frame, exc_return, sp + size + (aligned ? 4 : 0));
    m->now += 10ull * m->cycle_ns;
    m->waiting = thread && m->scs.scr & SLEEPONEXIT;
}

void raise_hard_fault(struct mcu *m, uint32_t hfsr) {
    if (is_main(m)) {
        m->scs.hfsr |= hfsr;
    }
    if (hfsr != FORCED) { /* else the fault that was behind it is told */
        m->block_pc = m->pc;
        fault(m, FAULT_HARD, m->pc, hfsr);
    }
    if (execution_priority(m, WITH_ALL) < 0) {
        lock_up(m);
    } else {
        enter_exception(m, EXC_HARD);
    }
}

/* The instruction at the PC cannot be executed. */
void raise_fault(struct mcu *m, unsigned exception, uint32_t cfsr, uint32_t address) {
    static const uint32_t kinds[] = {FAULT_MEMORY, FAULT_BUS, FAULT_USAGE};
    assert(exception >= EXC_MEMORY && exception <= EXC_USAGE);
    m->block_pc = m->pc;
    fault(m, kinds[exception - EXC_MEMORY], address, is_main(m) ? m->scs.cfsr | cfsr : cfsr);
    take_fault(m, exception, cfsr, address);
}

void take_fault(struct mcu *m, unsigned exception, uint32_t cfsr, uint32_t address) {
    if (is_application(m)) { /* whose exceptions are not modelled */
        stop(m, STOP_LOCKUP);
        return;
    }
    if (!is_main(m)) {
        raise_hard_fault(m, FORCED);
        return;
    }
    m->scs.cfsr |= cfsr;
    if (cfsr & MMARVALID) {
        m->scs.mmfar = address;
    }
    if (cfsr & BFARVALID) {
        m->scs.bfar = address;
    }
    bool enabled = m->scs.shcsr >> (exception - EXC_MEMORY + 16) & 1;
    int priority = nvic_group(m, nvic_priority(m, exception));
    if (!enabled || priority >= execution_priority(m, WITH_ALL)) {
        raise_hard_fault(m, FORCED);
    } else {
        enter_exception(m, exception);
    }
}
