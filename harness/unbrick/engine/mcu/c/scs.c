/* The system control space: SysTick, system control block, FPU, DWT. Source: Armv7-M ARM (DDI
 * 0403), B3.2, B3.3, C1.8; Armv6-M ARM (DDI 0419), B3; Armv8-M ARM (DDI 0553), D1. */
#include <assert.h>
#include <string.h>

#include "core.h"

/* Offsets from 0xE0000000. */
enum {
    DWT_CTRL = 0x1000,
    DWT_CYCCNT = 0x1004,
    SCS = 0xe000,
    ICTR = 0xe004,
    SYST_CSR = 0xe010,
    SYST_RVR = 0xe014,
    SYST_CVR = 0xe018,
    SYST_CALIB = 0xe01c,
    NVIC = 0xe100,
    NVIC_END = 0xe600,
    CPUID = 0xed00,
    ICSR = 0xed04,
    VTOR = 0xed08,
    AIRCR = 0xed0c,
    SCR = 0xed10,
    CCR = 0xed14,
    SHPR = 0xed18,
    SHCSR = 0xed24,
    CFSR = 0xed28,
    HFSR = 0xed2c,
    MMFAR = 0xed34,
    BFAR = 0xed38,
    CPACR = 0xed88,
    MPU = 0xed90,
    MPU_END = 0xedd0,
    DEMCR = 0xedfc,
    STIR = 0xef00,
    FPCCR = 0xef34,
    FPCAR = 0xef38,
    FPDSCR = 0xef3c,
    MVFR0 = 0xef40,
    MVFR1 = 0xef44
};

/* SysTick */

enum { SYSTICK_ENABLE = 1, SYSTICK_INTERRUPT = 2, SYSTICK_CORE = 4, SYSTICK_COUNTED = 1 << 16 };

static uint32_t systick_hz(const struct mcu *m) {
    bool core = m->scs.systick.control & SYSTICK_CORE || !m->setup.systick_hz;
    return core ? m->setup.hz : m->setup.systick_hz;
}

static void systick_start(struct mcu *m, uint64_t ticks) {
    struct systick *s = &m->scs.systick;
    s->zero = s->reload ? m->now + clock_ns(ticks, systick_hz(m)) : NEVER;
    m->end = 0;
}

static uint32_t systick_value(const struct mcu *m) {
    const struct systick *s = &m->scs.systick;
    if (s->zero == NEVER) {
        return s->value;
    }
    uint64_t left = s->zero > m->now ? clock_ticks(s->zero - m->now, systick_hz(m)) : 0;
    return left > s->reload ? 0 : (uint32_t)left; /* it is loaded with the next tick */
}

static void systick_settle(struct mcu *m) {
    struct systick *s = &m->scs.systick;
    if (m->now < s->zero) {
        return;
    }
    uint64_t period = clock_ns((uint64_t)s->reload + 1, systick_hz(m));
    s->zero += ((m->now - s->zero) / period + 1) * period;
    if (!s->reload) {
        s->zero = NEVER;
    }
    s->control |= SYSTICK_COUNTED;
    if (s->control & SYSTICK_INTERRUPT) {
        nvic_pend(m, EXC_SYSTICK);
    }
}

static void systick_write(struct mcu *m, uint32_t offset, uint32_t value) {
    struct systick *s = &m->scs.systick;
    if (offset == SYST_RVR) {
        s->reload = value & 0xffffff;
    } else if (offset == SYST_CVR) {
        s->control &= ~(uint32_t)SYSTICK_COUNTED;
        s->value = 0;
        if (s->control & SYSTICK_ENABLE) {
            systick_start(m, (uint64_t)s->reload + 1);
        }
    } else {
        uint32_t left = systick_value(m);
        bool was_on = s->control & SYSTICK_ENABLE;
        s->control = (s->control & SYSTICK_COUNTED) | (value & 7);
        if (!m->setup.systick_hz) {
            s->control |= SYSTICK_CORE;
        }
        if (!(value & SYSTICK_ENABLE)) {
            s->value = left;
            s->zero = NEVER;
        } else if (!was_on) {
            systick_start(m, left ? left : (uint64_t)s->reload + 1);
        }
        m->end = 0;
    }
}

static uint32_t systick_read(struct mcu *m, uint32_t offset) {
    struct systick *s = &m->scs.systick;
    switch (offset) {
    case SYST_CSR: {
        uint32_t value = s->control;
        s->control &= ~(uint32_t)SYSTICK_COUNTED;
        return value;
    }
    case SYST_RVR:
        return s->reload;
    case SYST_CVR:
        return systick_value(m);
    default:
        return m->setup.systick_hz ? 0 : 1u << 31; /* CALIB: no reference clock */
    }
}

/* When it interrupts; nothing else of all this comes by itself. */
uint64_t scs_next(const struct mcu *m) {
    const struct systick *s = &m->scs.systick;
    return s->control & SYSTICK_INTERRUPT ? s->zero : NEVER;
}

void scs_settle(struct mcu *m) {
    systick_settle(m);
}

/* Cycle counter */

enum { TRCENA = 1 << 24, CYCCNTENA = 1 };

static bool cycles_run(const struct mcu *m) {
    return m->scs.demcr & TRCENA && m->scs.dwt_control & CYCCNTENA;
}

static uint32_t cycles_read(const struct mcu *m) {
    uint32_t since =
        cycles_run(m) ? (uint32_t)clock_ticks(m->now - m->scs.cycles_from, m->setup.hz) : 0;
    return m->scs.cycles + since;
}

static void cycles_write(struct mcu *m, uint32_t value) {
    m->scs.cycles = value;
    m->scs.cycles_from = m->now;
}

/* System control block */

enum {
    NMIPENDSET = 1u << 31,
    PENDSVSET = 1 << 28,
    PENDSVCLR = 1 << 27,
    PENDSTSET = 1 << 26,
    PENDSTCLR = 1 << 25,
    ISRPENDING = 1 << 22
};

static uint32_t pending_bit(const struct mcu *m, unsigned exception, uint32_t bit) {
    return m->nvic.pending[0] >> exception & 1 ? bit : 0;
}

static uint32_t icsr_read(struct mcu *m) {
    int priority;
    unsigned best = nvic_best(m, &priority), active = 0;
    uint32_t value = read_register(m, REG_IPSR) & 0x1ff;
    for (unsigned word = 0; word < m->nvic.words; word++) {
        active += (unsigned)__builtin_popcount(m->nvic.active[word]);
    }
    value |= best << 12;
    for (unsigned word = 0; word < m->nvic.words; word++) {
        uint32_t external = m->nvic.pending[word] & (word ? UINT32_MAX : 0xffff0000);
        value |= external ? (uint32_t)ISRPENDING : 0;
    }
    if (is_main(m) && active <= 1) {
        value |= 1 << 11; /* RETTOBASE */
    }
    value |= pending_bit(m, EXC_NMI, NMIPENDSET) | pending_bit(m, EXC_PENDSV, PENDSVSET) |
             pending_bit(m, EXC_SYSTICK, PENDSTSET);
    return value;
}

static void icsr_write(struct mcu *m, uint32_t value) {
    if (value & NMIPENDSET) {
        nvic_pend(m, EXC_NMI);
    }
    if (value & PENDSVSET) {
        nvic_pend(m, EXC_PENDSV);
    } else if (value & PENDSVCLR) {
        nvic_unpend(m, EXC_PENDSV);
    }
    if (value & PENDSTSET) {
        nvic_pend(m, EXC_SYSTICK);
    } else if (value & PENDSTCLR) {
        nvic_unpend(m, EXC_SYSTICK);
    }
}

/* SHCSR: which exception each bit tells about. */
struct state_bit {
    uint8_t bit, exception;
};

static const struct state_bit ACTIVE_BITS[] = {{0, EXC_MEMORY},  {1, EXC_BUS},   {3, EXC_USAGE},
                                               {7, EXC_SVC},     {8, EXC_DEBUG}, {10, EXC_PENDSV},
                                               {11, EXC_SYSTICK}};
static const struct state_bit PENDING_BITS[] = {
    {12, EXC_USAGE}, {13, EXC_MEMORY}, {14, EXC_BUS}, {15, EXC_SVC}};
#define ENABLE_BITS 0x70000u

static uint32_t shcsr_read(const struct mcu *m) {
    uint32_t value = m->scs.shcsr & ENABLE_BITS;
    if (!is_main(m)) {
        return pending_bit(m, EXC_SVC, 1 << 15);
    }
    for (size_t i = 0; i < sizeof ACTIVE_BITS / sizeof *ACTIVE_BITS; i++) {
        value |= (uint32_t)nvic_is_active(m, ACTIVE_BITS[i].exception) << ACTIVE_BITS[i].bit;
    }
    for (size_t i = 0; i < sizeof PENDING_BITS / sizeof *PENDING_BITS; i++) {
        value |= pending_bit(m, PENDING_BITS[i].exception, 1u << PENDING_BITS[i].bit);
    }
    return value;
}

static void shcsr_write(struct mcu *m, uint32_t value) {
    m->scs.shcsr = is_main(m) ? value & ENABLE_BITS : 0;
    for (size_t i = 0; i < sizeof ACTIVE_BITS / sizeof *ACTIVE_BITS && is_main(m); i++) {
        unsigned exception = ACTIVE_BITS[i].exception;
        uint32_t bit = 1u << exception;
        m->nvic.active[0] =
            value >> ACTIVE_BITS[i].bit & 1 ? m->nvic.active[0] | bit : m->nvic.active[0] & ~bit;
    }
    for (size_t i = 0; i < sizeof PENDING_BITS / sizeof *PENDING_BITS; i++) {
        unsigned exception = PENDING_BITS[i].exception;
        if (value >> PENDING_BITS[i].bit & 1) {
            nvic_pend(m, exception);
        } else {
            nvic_unpend(m, exception);
        }
    }
}

static void aircr_write(struct mcu *m, uint32_t value) {
    enum { KEY = 0x05fa, SYSRESETREQ = 4, PRIGROUP = 0x700 };
    if (value >> 16 != KEY) {
        return;
    }
    m->scs.aircr = is_main(m) ? value & PRIGROUP : 0;
    m->end = 0;
    if (value & SYSRESETREQ) {
        mcu_reset_system(m);
    }
}

bool fpu_is_on(const struct mcu *m) {
    return m->setup.fpu && (m->scs.cpacr >> 20 & 3) == 3;
}

static uint32_t cpuid(const struct mcu *m) {
    switch (m->setup.core) {
    case CORE_M0:
        return 0x410cc200;
    case CORE_M0PLUS:
        return 0x410cc601;
    case CORE_M3:
        return 0x412fc231;
    case CORE_M4:
        return 0x410fc241;
    case CORE_M7:
        return 0x411fc272;
    default:
        return 0x410fd213;
    }
}

/* FPCCR.LSPACT, bit 0: the registers of the FPU were put on the stack and not used since. */
static uint32_t fpccr_read(struct mcu *m) {
    enum { LSPACT = 1, FPCA = 4 };
    bool used = read_register(m, REG_CONTROL) & FPCA;
    return used ? m->scs.fpccr & ~(uint32_t)LSPACT : m->scs.fpccr;
}

static uint32_t read_main(struct mcu *m, uint32_t offset) {
    const struct scs *s = &m->scs;
    switch (offset) {
    case DWT_CTRL:
        return s->dwt_control | 0x40000000; /* four comparators, of which none does anything */
    case DWT_CYCCNT:
        return cycles_read(m);
    case ICTR:
        return (m->setup.interrupts + 31) / 32 - 1;
    case SHCSR:
        return shcsr_read(m);
    case CFSR:
        return s->cfsr;
    case HFSR:
        return s->hfsr;
    case MMFAR:
        return s->mmfar;
    case BFAR:
        return s->bfar;
    case DEMCR:
        return s->demcr;
    default:
        break;
    }
    if (!m->setup.fpu) {
        return 0;
    }
    switch (offset) {
    case CPACR:
        return s->cpacr;
    case FPCCR:
        return fpccr_read(m);
    case FPCAR:
        return s->fpcar;
    case FPDSCR:
        return s->fpdscr;
    case MVFR0:
        return m->setup.fpu == 2 ? 0x10110221 : 0x10110021;
    case MVFR1:
        return m->setup.fpu == 2 ? 0x12000011 : 0x11000011;
    default:
        return 0;
    }
}

static uint32_t read_word(struct mcu *m, uint32_t offset) {
    if (offset >= NVIC && offset < NVIC_END) {
        return nvic_read(m, offset - SCS);
    }
    if (offset >= MPU && offset < MPU_END) {
        return mpu_read(m, offset - 0xed00);
    }
    switch (offset) {
    case SYST_CSR:
    case SYST_RVR:
    case SYST_CVR:
    case SYST_CALIB:
        return systick_read(m, offset);
    case CPUID:
        return cpuid(m);
    case ICSR:
        return icsr_read(m);
    case VTOR:
        return m->scs.vtor;
    case AIRCR:
        return 0xfa050000 | m->scs.aircr;
    case SCR:
        return m->scs.scr;
    case CCR:
        return m->scs.ccr;
    case SHPR:
    case SHPR + 4:
    case SHPR + 8:
        return get32(&m->nvic.priority[4 + offset - SHPR]);
    case SHCSR:
        return shcsr_read(m);
    default:
        return is_main(m) ? read_main(m, offset) : 0;
    }
}

/* A word, for a debugger: to look does not change it. */
uint32_t scs_look(struct mcu *m, uint32_t offset) {
    struct systick before = m->scs.systick;
    uint32_t value = read_word(m, offset & ~3u);
    m->scs.systick = before;
    return value;
}

uint32_t scs_read(struct mcu *m, uint32_t offset, unsigned size) {
    systick_settle(m);
    return part_of(read_word(m, offset & ~3u), offset, size);
}

static void write_main(struct mcu *m, uint32_t offset, uint32_t value) {
    struct scs *s = &m->scs;
    switch (offset) {
    case DWT_CTRL:
    case DEMCR: {
        uint32_t cycles = cycles_read(m);
        *(offset == DEMCR ? &s->demcr : &s->dwt_control) = value;
        cycles_write(m, cycles);
        break;
    }
    case DWT_CYCCNT:
        cycles_write(m, value);
        break;
    case CFSR:
        s->cfsr &= ~value;
        break;
    case HFSR:
        s->hfsr &= ~value;
        break;
    case MMFAR:
        s->mmfar = value;
        break;
    case BFAR:
        s->bfar = value;
        break;
    case CPACR:
        s->cpacr = m->setup.fpu ? value & 0xf00000 : 0;
        break;
    case FPCCR:
        s->fpccr = value;
        break;
    case FPCAR:
        s->fpcar = value & ~7u;
        break;
    case FPDSCR:
        s->fpdscr = value & 0x07c00000;
        break;
    default:
        break;
    }
}

/* VTOR has as many bits as the core implements; the small ones may have none. */
static uint32_t vtor_bits(const struct mcu *m) {
    switch (m->setup.core) {
    case CORE_M0:
        return 0;
    case CORE_M0PLUS:
        return 0xffffff00;
    default:
        return 0xffffff80;
    }
}

static void write_priorities(struct mcu *m, uint32_t offset, unsigned size, uint32_t value) {
    /* Where there is an exception of the core with a priority of its own. */
    uint32_t there = is_main(m) ? 0xd870 : 0xc800;
    for (unsigned i = 0; i < size; i++) {
        unsigned exception = 4 + offset - SHPR + i;
        if (there >> exception & 1) {
            m->nvic.priority[exception] = (uint8_t)(value >> 8 * i) & m->nvic.implemented;
        }
    }
    m->end = 0;
}

static void write_word(struct mcu *m, uint32_t offset, uint32_t value) {
    switch (offset) {
    case SYST_CSR:
    case SYST_RVR:
    case SYST_CVR:
        systick_write(m, offset, value);
        break;
    case ICSR:
        icsr_write(m, value);
        break;
    case VTOR:
        m->scs.vtor = (value & vtor_bits(m)) | (vtor_bits(m) ? 0 : m->scs.vtor);
        break;
    case AIRCR:
        aircr_write(m, value);
        break;
    case SCR:
        m->scs.scr = value & 0x16;
        break;
    case CCR:
        m->scs.ccr = is_main(m) ? value : m->scs.ccr;
        m->end = 0; /* accesses may have to be looked at */
        break;
    case SHCSR:
        shcsr_write(m, value);
        break;
    default:
        if (offset >= MPU && offset < MPU_END) {
            mpu_write(m, offset - 0xed00, value);
        } else if (is_main(m)) {
            write_main(m, offset, value);
        }
        break;
    }
}

void scs_write(struct mcu *m, uint32_t offset, unsigned size, uint32_t value) {
    systick_settle(m);
    if ((offset >= NVIC && offset < NVIC_END) || offset == STIR) {
        nvic_write(m, offset - SCS, size, value);
    } else if (offset >= SHPR && offset < SHCSR) {
        write_priorities(m, offset, size, value);
    } else if ((offset & ~3u) == CFSR) { /* bits that are written as 1 are cleared */
        write_word(m, CFSR, value << 8 * (offset & 3));
    } else {
        uint32_t old = size == 4 ? 0 : read_word(m, offset & ~3u);
        write_word(m, offset & ~3u, with_part(old, offset, size, value));
    }
}

void scs_reset(struct mcu *m) {
    struct scs *s = &m->scs;
    uint32_t demcr = s->demcr;
    if (s->mpu.control) { /* not always: Unicorn's TLB can grow when it is emptied */
        forget_pages(m);
    }
    memset(s, 0, sizeof *s);
    s->demcr = m->resetting ? demcr : 0; /* debug survives a reset of the system */
    s->systick.zero = NEVER;
    s->systick.control = m->setup.systick_hz ? 0 : SYSTICK_CORE;
    s->vtor = m->setup.vectors;
    s->ccr = m->setup.core == CORE_M0 || m->setup.core == CORE_M0PLUS ? 0x208
             : m->setup.core == CORE_M33                              ? 0x201
             : m->setup.core == CORE_M7                               ? 0x40200
                                                                      : 0x200;
    s->fpccr = m->setup.fpu ? 0xc0000000 : 0;
    s->cycles_from = m->now;
}
