/* Interrupts and the priorities of all exceptions. Source: Armv7-M ARM (DDI 0403), B1.5 and B3.4.
 */
#include <assert.h>
#include <string.h>

#include "core.h"

static bool get(const uint32_t *bits, unsigned n) {
    return bits[n / 32] >> n % 32 & 1;
}

static void set(uint32_t *bits, unsigned n, bool value) {
    uint32_t bit = 1u << n % 32;
    bits[n / 32] = value ? bits[n / 32] | bit : bits[n / 32] & ~bit;
}

void nvic_reset(struct mcu *m) {
    struct nvic *v = &m->nvic;
    uint32_t level[WORDS];
    memcpy(level, v->level, sizeof level);
    memset(v, 0, sizeof *v);
    memcpy(v->level, level, sizeof level);
    v->count = EXC_EXTERNAL + m->setup.interrupts;
    v->words = (v->count + 31) / 32;
    v->implemented = (uint8_t)(0xff00u >> m->setup.priority_bits);
    v->enabled[0] = 0xffff; /* those of the core cannot be switched off here */
}

void nvic_pend(struct mcu *m, unsigned exception) {
    assert(exception >= EXC_NMI && exception < m->nvic.count);
    if (get(m->nvic.pending, exception)) {
        return;
    }
    set(m->nvic.pending, exception, true);
    enum { SEVONPEND = 1 << 4 };
    if (m->scs.scr & SEVONPEND) {
        m->event_register = true;
    }
    m->end = 0;
}

void nvic_pend_nmi(struct mcu *m) {
    nvic_pend(m, EXC_NMI);
}

void nvic_unpend(struct mcu *m, unsigned exception) {
    set(m->nvic.pending, exception, get(m->nvic.level, exception));
}

bool nvic_is_active(const struct mcu *m, unsigned exception) {
    return exception < m->nvic.count && get(m->nvic.active, exception);
}

void nvic_activate(struct mcu *m, unsigned exception) {
    set(m->nvic.active, exception, true);
    set(m->nvic.pending, exception, false);
}

/* An interrupt whose line is still high pends again. */
void nvic_deactivate(struct mcu *m, unsigned exception) {
    set(m->nvic.active, exception, false);
    if (get(m->nvic.level, exception)) {
        nvic_pend(m, exception);
    }
}

void nvic_set_line(struct mcu *m, unsigned interrupt, bool high) {
    unsigned exception = EXC_EXTERNAL + interrupt;
    assert(exception < m->nvic.count);
    if (get(m->nvic.level, exception) == high) {
        return;
    }
    set(m->nvic.level, exception, high);
    if (high && !get(m->nvic.active, exception)) {
        nvic_pend(m, exception);
    }
}

int nvic_priority(const struct mcu *m, unsigned exception) {
    return exception <= EXC_HARD ? (int)exception - 4 : m->nvic.priority[exception];
}

/* The part of a priority by which exceptions preempt each other. */
int nvic_group(const struct mcu *m, int priority) {
    unsigned subpriority = is_main(m) ? (m->scs.aircr >> 8 & 7) + 1 : 0;
    return priority < 0 ? priority : priority & ~((1 << subpriority) - 1);
}

unsigned nvic_best(struct mcu *m, int *priority) {
    const struct nvic *v = &m->nvic;
    unsigned best = 0;
    *priority = 256;
    for (unsigned word = 0; word < v->words; word++) {
        uint32_t ready = v->pending[word] & v->enabled[word];
        while (ready) {
            unsigned exception = word * 32 + (unsigned)__builtin_ctz(ready);
            ready &= ready - 1;
            int p = nvic_priority(m, exception);
            if (p < *priority) {
                *priority = p;
                best = exception;
            }
        }
    }
    return best;
}

/* 32 bits of a set, of the interrupts from 32 * word on: exceptions are 16 further. */
static uint32_t interrupts(const struct mcu *m, const uint32_t *bits, unsigned word) {
    unsigned first = EXC_EXTERNAL + word * 32;
    if (first >= m->nvic.count) {
        return 0;
    }
    uint32_t high = word + 1 < WORDS ? bits[word + 1] << 16 : 0;
    return bits[word] >> 16 | high;
}

enum { ISER = 0x100, IPR = 0x400, IPR_END = 0x5f0, STIR = 0xf00 };

uint32_t nvic_read(struct mcu *m, uint32_t offset) {
    const struct nvic *v = &m->nvic;
    if (offset >= IPR && offset < IPR_END) {
        uint32_t value = 0;
        for (unsigned i = 0; i < 4; i++) {
            unsigned exception = EXC_EXTERNAL + (offset & ~3u) - IPR + i;
            value |= exception < v->count ? (uint32_t)v->priority[exception] << 8 * i : 0;
        }
        return value;
    }
    unsigned word = offset / 4 & 0xf;
    switch (offset & ~0x7fu) {
    case 0x100: /* ISER, ICER */
    case 0x180:
        return interrupts(m, v->enabled, word);
    case 0x200: /* ISPR, ICPR */
    case 0x280:
        return interrupts(m, v->pending, word);
    case 0x300: /* IABR */
        return is_main(m) ? interrupts(m, v->active, word) : 0;
    default:
        return 0;
    }
}

static void write_bits(struct mcu *m, uint32_t offset, uint32_t value) {
    struct nvic *v = &m->nvic;
    for (unsigned i = 0; i < 32; i++) {
        unsigned exception = EXC_EXTERNAL + (offset / 4 & 0xf) * 32 + i;
        if (!(value >> i & 1) || exception >= v->count) {
            continue;
        }
        switch (offset & ~0x7fu) {
        case 0x100:
            set(v->enabled, exception, true);
            break;
        case 0x180:
            set(v->enabled, exception, false);
            break;
        case 0x200:
            nvic_pend(m, exception);
            break;
        case 0x280:
            nvic_unpend(m, exception);
            break;
        default:
            break;
        }
    }
    m->end = 0;
}

void nvic_write(struct mcu *m, uint32_t offset, unsigned size, uint32_t value) {
    struct nvic *v = &m->nvic;
    if (offset >= IPR && offset < IPR_END) {
        for (unsigned i = 0; i < size; i++) {
            unsigned exception = EXC_EXTERNAL + offset - IPR + i;
            if (exception < v->count) {
                v->priority[exception] = (uint8_t)(value >> 8 * i) & v->implemented;
            }
        }
        m->end = 0;
    } else if (offset == STIR) {
        unsigned exception = EXC_EXTERNAL + (value & 0x1ff);
        if (exception < v->count && is_main(m)) {
            nvic_pend(m, exception);
        }
    } else {
        write_bits(m, offset & ~3u, value << 8 * (offset & 3));
    }
}
