/* TIMER and RTC of nRF52. Source: the product specifications, chapters of these names. Both count
 * ticks of a clock that runs since power came, so that nothing is lost by rounding. */
#include "nrf.h"

enum {
    START = 0x000,
    STOP = 0x004,
    COUNT = 0x008, /* TIMER */
    CLEAR = 0x00c, /* TIMER */
    SHUTDOWN = 0x010,
    RTC_CLEAR = 0x008,
    RTC_TRIGOVRFLW = 0x00c,
    CAPTURE = 0x040,
    SHORTS = 0x200,
    EVTEN = 0x340,
    EVTENSET = 0x344,
    EVTENCLR = 0x348,
    COUNTER = 0x504,       /* RTC */
    MODE = 0x504,          /* TIMER */
    BITMODE = 0x508,       /* TIMER */
    RTC_PRESCALER = 0x508, /* RTC */
    PRESCALER = 0x510,     /* TIMER */
    CC = 0x540
};
enum { EVENT_TICK = 0, EVENT_OVRFLW = 1, EVENT_COMPARE = 16 };
enum { MODE_TIMER = 0, SHORT_STOP = 8 };
#define COMPARES 6u
#define TIMER_HZ 16000000u
#define RTC_HZ 32768u
#define RTC_MASK 0xffffffu
#define RTC_ALMOST 0xfffff0u /* what TRIGOVRFLW sets */

struct timer {
    struct device device;
    struct nrf nrf;
    bool is_rtc, running;
    uint32_t compares, hz;
    uint32_t cc[COMPARES], shorts, evten, mode, bitmode, prescaler;
    uint64_t zero; /* the clock's tick at which the count was 0 */
    uint64_t held; /* the count while it does not run */
    uint64_t seen; /* the count up to which events were told */
};

static uint64_t mask(const struct timer *t) {
    static const uint8_t bits[4] = {16, 8, 24, 32};
    return t->is_rtc ? RTC_MASK : (1ull << bits[t->bitmode & 3]) - 1;
}

static uint64_t divider(const struct timer *t) {
    return t->is_rtc ? t->prescaler + 1 : 1ull << t->prescaler;
}

static bool counts_time(const struct timer *t) {
    return t->running && t->mode == MODE_TIMER;
}

static uint64_t clock_now(struct mcu *m, const struct timer *t) {
    return clock_ticks(mcu_now(m), t->hz);
}

/* How far it is, without the limit of its width. */
static uint64_t count(struct mcu *m, const struct timer *t) {
    return counts_time(t) ? (clock_now(m, t) - t->zero) / divider(t) : t->held;
}

static void set_count(struct mcu *m, struct timer *t, uint64_t value) {
    t->held = t->seen = value;
    t->zero = clock_now(m, t) - value * divider(t);
}

/* The count after `seen` at which the counter is `value` next. */
static uint64_t reaches(const struct timer *t, uint64_t value) {
    uint64_t left = (value - t->seen) & mask(t);
    return t->seen + (left ? left : mask(t) + 1);
}

static void event(struct mcu *m, struct timer *t, unsigned number) {
    if (!t->is_rtc || (t->evten | t->nrf.enabled) >> number & 1) {
        nrf_event(m, &t->nrf, number);
    }
}

/* What the shorts do at a compare. */
static void cut_short(struct mcu *m, struct timer *t, unsigned n) {
    if (t->shorts >> n & 1 && t->seen) {
        uint64_t period = t->seen * divider(t);
        t->zero += period;
        t->held = t->seen = 0;
        if (counts_time(t)) { /* of periods that nobody looked at two are enough */
            uint64_t missed = (clock_now(m, t) - t->zero) / period;
            t->zero += missed > 2 ? (missed - 2) * period : 0;
        }
    }
    if (t->shorts >> (SHORT_STOP + n) & 1 && t->running) {
        t->held = t->seen;
        t->running = false;
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct timer *t = (struct timer *)d;
    for (uint64_t now = count(m, t); t->seen < now; now = count(m, t)) {
        uint64_t first = now;
        for (unsigned n = 0; n < t->compares; n++) {
            first = sooner(first, reaches(t, t->cc[n]));
        }
        if (t->is_rtc) {
            event(m, t, EVENT_TICK);
            if (reaches(t, 0) <= first) {
                event(m, t, EVENT_OVRFLW);
            }
        }
        t->seen = first;
        for (unsigned n = 0; n < t->compares; n++) {
            if ((first & mask(t)) == (t->cc[n] & mask(t))) {
                event(m, t, EVENT_COMPARE + n);
                cut_short(m, t, n);
            }
        }
    }
}

static uint32_t *find_register(struct timer *t, uint32_t offset) {
    if (offset >= CC && offset < CC + 4 * t->compares) {
        return &t->cc[(offset - CC) / 4];
    }
    if (t->is_rtc) {
        return offset == RTC_PRESCALER                 ? &t->prescaler
               : offset >= EVTEN && offset <= EVTENCLR ? &t->evten
                                                       : NULL;
    }
    switch (offset) {
    case SHORTS:
        return &t->shorts;
    case MODE:
        return &t->mode;
    case BITMODE:
        return &t->bitmode;
    case PRESCALER:
        return &t->prescaler;
    default:
        return NULL;
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct timer *t = (struct timer *)d;
    const uint32_t *known = find_register(t, offset);
    uint32_t value;
    if (nrf_read(&t->nrf, offset, &value)) {
        return value;
    }
    if (t->is_rtc && offset == COUNTER) {
        return (uint32_t)(count(m, t) & mask(t));
    }
    return known ? *known : plain_read(m, d->base + offset, size);
}

static void halt(struct mcu *m, struct timer *t) {
    t->held = count(m, t);
    t->running = false;
}

static bool run_task(struct mcu *m, struct timer *t, uint32_t task) {
    uint32_t clear = t->is_rtc ? RTC_CLEAR : CLEAR;
    if (task == START) {
        if (!t->running) {
            set_count(m, t, t->held);
        }
        t->running = true;
    } else if (task == STOP) {
        halt(m, t);
    } else if (task == clear) {
        set_count(m, t, 0);
    } else if (t->is_rtc && task == RTC_TRIGOVRFLW) {
        set_count(m, t, RTC_ALMOST);
    } else if (!t->is_rtc && task == SHUTDOWN) {
        halt(m, t);
        set_count(m, t, 0);
    } else if (!t->is_rtc && task == COUNT) {
        t->held += t->running && t->mode != MODE_TIMER;
    } else if (!t->is_rtc && task >= CAPTURE && task < CAPTURE + 4 * t->compares) {
        t->cc[(task - CAPTURE) / 4] = (uint32_t)(count(m, t) & mask(t));
    } else {
        return false;
    }
    return true;
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct timer *t = (struct timer *)d;
    uint32_t *known = find_register(t, offset);
    if (nrf_write(m, &t->nrf, offset, value)) {
        return;
    }
    if (offset < EVENTS && value & 1 && run_task(m, t, offset)) {
        settle(m, d);
    } else if (known == &t->evten) {
        uint32_t before = t->evten;
        t->evten = offset == EVTEN ? value : offset == EVTENSET ? before | value : before & ~value;
    } else if (known == &t->prescaler) { /* only while it does not run */
        uint32_t most = t->is_rtc ? 0xfff : 9;
        t->prescaler = t->running ? t->prescaler : value < most ? value : most;
    } else if (known) {
        *known = value;
    } else {
        plain_write(m, d->base + offset, size, value);
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct timer *t = (struct timer *)d;
    (void)kind;
    memset(t->cc, 0, sizeof t->cc);
    t->running = false;
    t->shorts = t->evten = t->mode = t->bitmode = 0;
    t->prescaler = t->is_rtc ? 0 : 4;
    set_count(m, t, 0);
    nrf_reset(m, &t->nrf);
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct timer *t = (struct timer *)d;
    uint64_t first = NEVER;
    (void)m;
    if (!counts_time(t)) {
        return NEVER;
    }
    for (unsigned n = 0; n < t->compares; n++) {
        if (t->nrf.enabled >> (EVENT_COMPARE + n) & 1) {
            first = sooner(first, reaches(t, t->cc[n]));
        }
    }
    if (t->is_rtc && t->nrf.enabled & 1u << EVENT_TICK) {
        first = sooner(first, t->seen + 1);
    }
    if (t->is_rtc && t->nrf.enabled & 1u << EVENT_OVRFLW) {
        first = sooner(first, reaches(t, 0));
    }
    return first == NEVER ? NEVER : clock_ns(t->zero + first * divider(t), t->hz);
}

static void add(struct mcu *m, const struct device_place *place, bool is_rtc) {
    assert(place->numbers[0] <= COMPARES);
    struct timer *t = device_memory(m, sizeof *t);
    t->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    t->nrf = nrf_new(m, place->base, place->interrupt);
    t->is_rtc = is_rtc;
    t->hz = is_rtc ? RTC_HZ : TIMER_HZ;
    t->compares = place->numbers[0];
    mcu_add_device(m, &t->device);
}

void timer_nrf_add(struct mcu *m, const struct device_place *place) {
    add(m, place, false);
}

void rtc_nrf_add(struct mcu *m, const struct device_place *place) {
    add(m, place, true);
}
