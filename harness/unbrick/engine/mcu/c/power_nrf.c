/* POWER and CLOCK of nRF52, which are one device, and the watchdog, since POWER says that it reset
 * the chip. Source: the product specifications, chapters of these names. */
#include "nrf.h"

enum {
    HFCLKSTART = 0x000,
    HFCLKSTOP = 0x004,
    LFCLKSTART = 0x008,
    LFCLKSTOP = 0x00c,
    CAL = 0x010,
    RESETREAS = 0x400,
    HFCLKRUN = 0x408,
    HFCLKSTAT = 0x40c,
    LFCLKRUN = 0x414,
    LFCLKSTAT = 0x418,
    LFCLKSRCCOPY = 0x41c,
    GPREGRET = 0x51c,
    GPREGRET2 = 0x520,
    LFCLKSRC = 0x518
};
enum { EVENT_HFCLKSTARTED = 0, EVENT_LFCLKSTARTED = 1, EVENT_DONE = 3 };
enum { STAT_SOURCE = 3u << 0, STAT_CRYSTAL = 1u << 0, STAT_RUNNING = 1u << 16 };
enum { RESETREAS_RESETPIN = 1u << 0, RESETREAS_DOG = 1u << 1, RESETREAS_SREQ = 1u << 2 };
/* Typical times until a clock runs: the crystal of 64 MHz, the oscillator of 32768 Hz. */
enum { HFCLK_START_US = 360, LFCLK_START_US = 600 };

enum {
    WDT_START = 0x000,
    WDT_RUNSTATUS = 0x400,
    WDT_REQSTATUS = 0x404,
    WDT_CRV = 0x504,
    WDT_RREN = 0x508,
    WDT_CONFIG = 0x50c,
    WDT_RR = 0x600
};
enum { EVENT_TIMEOUT = 0 };
#define WDT_RELOAD 0x6e524635u
#define WDT_HZ 32768u
#define WDT_RESET_TICKS 2u /* from the event to the reset */
#define WDT_CHANNELS 8u

struct clock {
    bool started;
    uint64_t runs; /* when it does */
    bool told;
};

struct watchdog {
    struct device device;
    struct nrf nrf;
    uint32_t crv, rren, config, left; /* left: the reload requests that are still to come */
    bool running, bit;
    uint64_t ends; /* when it tells */
};

struct power {
    struct device device;
    struct nrf nrf;
    struct clock high, low;
    uint32_t source, source_used, reason, kept[2];
    struct watchdog *watchdog;
};

static bool runs(struct mcu *m, const struct clock *c) {
    return c->started && c->runs <= mcu_now(m);
}

static void start(struct mcu *m, struct clock *c, uint32_t us) {
    if (!c->started) {
        c->runs = mcu_now(m) + (uint64_t)us * NS_PER_US;
    }
    c->started = true;
    c->told = false;
}

static void tell(struct mcu *m, struct power *p, struct clock *c, unsigned event) {
    if (runs(m, c) && !c->told) {
        c->told = true;
        nrf_event(m, &p->nrf, event);
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct power *p = (struct power *)d;
    tell(m, p, &p->high, EVENT_HFCLKSTARTED);
    tell(m, p, &p->low, EVENT_LFCLKSTARTED);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct power *p = (struct power *)d;
    uint32_t value;
    if (nrf_read(&p->nrf, offset, &value)) {
        return value;
    }
    switch (offset) {
    case RESETREAS:
        return p->reason;
    case HFCLKRUN:
        return p->high.started;
    case HFCLKSTAT:
        return runs(m, &p->high) ? STAT_CRYSTAL | STAT_RUNNING : 0;
    case LFCLKRUN:
        return p->low.started;
    case LFCLKSTAT:
        return runs(m, &p->low) ? (p->source_used & STAT_SOURCE) | STAT_RUNNING : 0;
    case LFCLKSRC:
        return p->source;
    case LFCLKSRCCOPY:
        return p->source_used;
    case GPREGRET:
    case GPREGRET2:
        return p->kept[(offset - GPREGRET) / 4];
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct power *p = (struct power *)d;
    if (nrf_write(m, &p->nrf, offset, value)) {
        return;
    }
    switch (offset) {
    case HFCLKSTART:
        start(m, &p->high, HFCLK_START_US);
        break;
    case HFCLKSTOP:
        p->high.started = false;
        break;
    case LFCLKSTART:
        p->source_used = p->source;
        start(m, &p->low, LFCLK_START_US);
        break;
    case LFCLKSTOP:
        p->low.started = false;
        break;
    case CAL:
        nrf_event(m, &p->nrf, EVENT_DONE);
        break;
    case RESETREAS:
        p->reason &= ~value;
        break;
    case LFCLKSRC:
        p->source = value;
        break;
    case GPREGRET:
    case GPREGRET2:
        p->kept[(offset - GPREGRET) / 4] = value & 0xff;
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct power *p = (struct power *)d;
    if (lost_supply(kind)) {
        p->reason = 0;
    } else if (kind == RESET_PIN) {
        p->reason |= RESETREAS_RESETPIN;
    } else {
        p->reason |= p->watchdog->bit ? RESETREAS_DOG : RESETREAS_SREQ;
    }
    if (kind != RESET_SYSTEM || p->watchdog->bit) { /* Reset behavior: a soft reset keeps these */
        memset(p->kept, 0, sizeof p->kept);
    }
    p->watchdog->bit = false;
    p->high = p->low = (struct clock){0};
    p->source = p->source_used = 0;
    nrf_reset(m, &p->nrf);
}

static uint64_t next_of(const struct clock *c) {
    return c->started && !c->told ? c->runs : NEVER;
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct power *p = (struct power *)d;
    (void)m;
    return p->nrf.enabled ? sooner(next_of(&p->high), next_of(&p->low)) : NEVER;
}

/* The watchdog */

static void reload(struct mcu *m, struct watchdog *w) {
    w->left = w->rren;
    w->ends = mcu_now(m) + clock_ns((uint64_t)w->crv + 1, WDT_HZ);
}

static uint64_t bites(const struct watchdog *w) {
    return w->ends + clock_ns(WDT_RESET_TICKS, WDT_HZ);
}

static void watchdog_settle(struct mcu *m, struct device *d) {
    struct watchdog *w = (struct watchdog *)d;
    if (!w->running || w->ends > mcu_now(m)) {
        return;
    }
    nrf_event(m, &w->nrf, EVENT_TIMEOUT);
    if (bites(w) <= mcu_now(m)) {
        fault(m, FAULT_WATCHDOG, d->base, 0);
        w->bit = true;
        w->running = false;
        mcu_reset_system(m);
    }
}

static uint32_t watchdog_read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct watchdog *w = (struct watchdog *)d;
    uint32_t value;
    if (nrf_read(&w->nrf, offset, &value)) {
        return value;
    }
    switch (offset) {
    case WDT_RUNSTATUS:
        return w->running;
    case WDT_REQSTATUS:
        return w->left;
    case WDT_CRV:
        return w->crv;
    case WDT_RREN:
        return w->rren;
    case WDT_CONFIG:
        return w->config;
    default:
        return plain_read(m, d->base + offset, size);
    }
}

/* While it runs, what it was told cannot be changed. */
static void watchdog_write(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                           uint32_t value) {
    struct watchdog *w = (struct watchdog *)d;
    if (nrf_write(m, &w->nrf, offset, value)) {
        return;
    }
    if (offset >= WDT_RR && offset < WDT_RR + 4 * WDT_CHANNELS) {
        if (value == WDT_RELOAD) {
            w->left &= ~(1u << (offset - WDT_RR) / 4);
            if (w->running && !w->left) {
                reload(m, w);
            }
        }
    } else if (offset == WDT_START && value & 1 && !w->running) {
        w->running = true;
        reload(m, w);
    } else if (offset == WDT_CRV || offset == WDT_RREN || offset == WDT_CONFIG) {
        uint32_t *reg = offset == WDT_CRV ? &w->crv : offset == WDT_RREN ? &w->rren : &w->config;
        *reg = w->running ? *reg : value;
    } else {
        plain_write(m, d->base + offset, size, value);
    }
}

/* A soft reset does not stop it (Reset behavior): it counts on. */
static void watchdog_reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct watchdog *w = (struct watchdog *)d;
    nrf_reset(m, &w->nrf);
    if (kind == RESET_SYSTEM && w->running) {
        return;
    }
    w->running = false;
    w->crv = UINT32_MAX;
    w->rren = w->config = 1;
    w->left = 1;
}

static uint64_t watchdog_next(struct mcu *m, struct device *d) {
    struct watchdog *w = (struct watchdog *)d;
    if (!w->running) {
        return NEVER;
    }
    return w->ends > mcu_now(m) ? w->ends : bites(w);
}

void power_nrf_add(struct mcu *m, const struct device_place *place) {
    struct power *p = device_memory(m, sizeof *p);
    p->watchdog = device_memory(m, sizeof *p->watchdog);
    p->device = (struct device){.base = place->base,
                                .size = 0x600,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    p->nrf = nrf_new(m, place->base, place->interrupt);
    p->watchdog->nrf = nrf_new(m, place->numbers[0], place->numbers[1]);
    p->watchdog->device = (struct device){.base = place->numbers[0],
                                          .size = 0x1000,
                                          .read = watchdog_read,
                                          .write = watchdog_write,
                                          .reset = watchdog_reset,
                                          .next = watchdog_next,
                                          .settle = watchdog_settle,
                                          .free = device_free};
    mcu_add_device(m, &p->device);
    mcu_add_device(m, &p->watchdog->device);
}
