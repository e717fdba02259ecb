/* The timers of STM32: up-counters with a prescaler, updates and compares. Sources: RM0008 chapters
 * 14 to 17, RM0090 chapters 17 to 20, RM0351 chapters 30 to 33. The clock is taken as one that runs
 * since power came, so that nothing is lost by rounding. */
#include "devices.h"

enum { CR1 = 0x00, DIER = 0x0c, SR = 0x10, EGR = 0x14, CNT = 0x24, PSC = 0x28, ARR = 0x2c };
enum { CCR1 = 0x34, REGISTERS = 20, COMPARES = 4 };
enum { CR1_CEN = 1u << 0, CR1_UDIS = 1u << 1, CR1_URS = 1u << 2, CR1_OPM = 1u << 3 };
enum { CR1_ARPE = 1u << 7 };
enum { UPDATE = 1u << 0, EGR_COMPARES = 0x1e }; /* the same bits in DIER, SR and EGR */

struct timer {
    struct device device;
    uint32_t interrupt, hz, mask;
    uint32_t registers[REGISTERS]; /* CNT: while it does not run */
    uint32_t prescaler, top;       /* as they are in force */
    uint64_t zero;                 /* the clock's tick at which the count was 0 */
    uint64_t seen;                 /* the count up to which flags were set */
};

static uint32_t *at(struct timer *t, uint32_t offset) {
    return &t->registers[offset / 4];
}

static bool runs(struct timer *t) {
    return *at(t, CR1) & CR1_CEN && t->top;
}

static uint64_t divider(const struct timer *t) {
    return (uint64_t)t->prescaler + 1;
}

/* How far it is, without its limit. */
static uint64_t count(struct mcu *m, struct timer *t) {
    return runs(t) ? (clock_ticks(mcu_now(m), t->hz) - t->zero) / divider(t) : *at(t, CNT);
}

static void set_count(struct mcu *m, struct timer *t, uint32_t value) {
    *at(t, CNT) = value;
    t->seen = value;
    t->zero = clock_ticks(mcu_now(m), t->hz) - value * divider(t);
}

static void show(struct mcu *m, struct timer *t) {
    nvic_set_line(m, t->interrupt, (*at(t, SR) & *at(t, DIER)) != 0);
}

/* The compares at counts from `first` to `last` have come. */
static void compare(struct timer *t, uint64_t first, uint64_t last) {
    for (unsigned n = 0; n < COMPARES; n++) {
        uint32_t value = *at(t, CCR1 + 4 * n);
        *at(t, SR) |= value >= first && value <= last ? UPDATE << (n + 1) : 0;
    }
}

/* The preloaded registers come in force. */
static void update(struct timer *t, bool tell) {
    if (*at(t, CR1) & CR1_UDIS) {
        return;
    }
    t->prescaler = *at(t, PSC);
    t->top = *at(t, ARR);
    *at(t, SR) |= tell ? UPDATE : 0;
}

/* It begins again at 0, once or as often as that was due and nothing changed between. */
static void overflow(struct mcu *m, struct timer *t, uint64_t now) {
    uint64_t period = (uint64_t)t->top + 1;
    bool changes = *at(t, PSC) != t->prescaler || *at(t, ARR) != t->top;
    changes = changes && !(*at(t, CR1) & CR1_UDIS);
    uint64_t passed = changes ? 1 : now / period;
    compare(t, passed > 1 ? 0 : t->seen + 1, t->top);
    t->zero += passed * period * divider(t);
    update(t, true);
    if (*at(t, CR1) & CR1_OPM) {
        *at(t, CR1) &= ~(uint32_t)CR1_CEN;
        set_count(m, t, 0);
    }
    t->seen = 0;
    compare(t, 0, 0);
}

static void settle(struct mcu *m, struct device *d) {
    struct timer *t = (struct timer *)d;
    while (runs(t) && count(m, t) > t->top) {
        overflow(m, t, count(m, t));
    }
    if (runs(t)) {
        uint64_t now = count(m, t);
        compare(t, t->seen + 1, now);
        t->seen = now;
    }
    show(m, t);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct timer *t = (struct timer *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        return plain_read(m, d->base + offset, size);
    }
    return part_of(reg == CNT ? (uint32_t)count(m, t) : *at(t, reg), offset, size);
}

static void set(struct mcu *m, struct timer *t, uint32_t reg, uint32_t value) {
    if (reg == SR) { /* written 0 clears */
        *at(t, SR) &= value;
    } else if (reg == EGR) {
        *at(t, SR) |= value & EGR_COMPARES;
        if (value & UPDATE) {
            update(t, !(*at(t, CR1) & CR1_URS));
            set_count(m, t, 0);
        }
    } else if (reg == CNT) {
        set_count(m, t, value & t->mask);
    } else {
        uint32_t now = (uint32_t)count(m, t);
        bool ran = runs(t);
        *at(t, reg) = reg == ARR || reg >= CCR1 ? value & t->mask : value;
        if (reg == ARR && !(*at(t, CR1) & CR1_ARPE)) {
            t->top = value & t->mask;
        }
        if (runs(t) != ran) {
            set_count(m, t, now);
        }
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct timer *t = (struct timer *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
        return;
    }
    set(m, t, reg, with_part(reg == SR || reg == EGR ? 0 : *at(t, reg), offset, size, value));
    show(m, t);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct timer *t = (struct timer *)d;
    (void)kind;
    memset(t->registers, 0, sizeof t->registers);
    *at(t, ARR) = t->top = t->mask;
    t->prescaler = 0;
    set_count(m, t, 0);
    show(m, t);
}

/* When a flag comes that interrupts. */
static uint64_t next(struct mcu *m, struct device *d) {
    struct timer *t = (struct timer *)d;
    uint64_t first = NEVER;
    (void)m;
    if (!runs(t)) {
        return NEVER;
    }
    for (unsigned n = 0; n <= COMPARES; n++) {
        uint64_t due = n ? *at(t, CCR1 + 4 * (n - 1)) : (uint64_t)t->top + 1;
        if (*at(t, DIER) >> n & 1 && due <= (uint64_t)t->top + 1) {
            first = sooner(first, due > t->seen ? due : due + t->top + 1);
        }
    }
    return first == NEVER ? NEVER : clock_ns(t->zero + first * divider(t), t->hz);
}

void timer_stm32_add(struct mcu *m, const struct device_place *place) {
    struct timer *t = device_memory(m, sizeof *t);
    t->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    t->interrupt = place->interrupt;
    t->hz = place->numbers[0];
    t->mask = place->numbers[1] ? UINT32_MAX : UINT16_MAX;
    mcu_add_device(m, &t->device);
}
