/* The timer of an RP2040: microseconds since its reset, and four alarms. Source: the RP2040 data
 * sheet, section 4.6. It counts whatever the watchdog's tick is set to. */
#include "devices.h"

enum {
    TIMEHW = 0x00,
    TIMELW = 0x04,
    TIMEHR = 0x08,
    TIMELR = 0x0c,
    ALARM = 0x10,
    ARMED = 0x20,
    TIMERAWH = 0x24,
    TIMERAWL = 0x28,
    PAUSE = 0x30,
    INTR = 0x34,
    INTE = 0x38,
    INTF = 0x3c,
    INTS = 0x40
};
enum { ALARMS = 4, ALL = (1 << ALARMS) - 1 };

struct timer {
    struct device device;
    uint32_t interrupt; /* of the first alarm; the others follow */
    uint64_t zero;      /* of the clock, in ns, at which the count was 0; before the first: less */
    uint64_t alarms[ALARMS]; /* the count at which each is due; NEVER: it is not armed */
    uint32_t targets[ALARMS], latched, next_high, raw, enabled, forced;
};

static uint64_t count(struct mcu *m, const struct timer *t) {
    return (mcu_now(m) - t->zero) / NS_PER_US;
}

static void show(struct mcu *m, const struct timer *t) {
    for (unsigned n = 0; n < ALARMS; n++) {
        bool high = ((t->raw & t->enabled) | t->forced) >> n & 1;
        nvic_set_line(m, t->interrupt + n, high);
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct timer *t = (struct timer *)d;
    uint64_t now = count(m, t);
    for (unsigned n = 0; n < ALARMS; n++) {
        if (t->alarms[n] <= now) {
            t->alarms[n] = NEVER;
            t->raw |= 1u << n;
        }
    }
    show(m, t);
}

static uint64_t next(struct mcu *m, struct device *d) {
    const struct timer *t = (const struct timer *)d;
    uint64_t first = NEVER;
    (void)m;
    for (unsigned n = 0; n < ALARMS; n++) {
        if (t->enabled >> n & 1) {
            first = sooner(first, t->alarms[n]);
        }
    }
    return first == NEVER ? NEVER : t->zero + first * NS_PER_US;
}

/* An alarm compares the lower word alone: it is due when that next comes. */
static void arm(struct mcu *m, struct timer *t, unsigned n, uint32_t target) {
    uint64_t now = count(m, t);
    t->targets[n] = target;
    t->alarms[n] = now + (uint32_t)(target - (uint32_t)now);
}

static uint32_t armed(const struct timer *t) {
    uint32_t bits = 0;
    for (unsigned n = 0; n < ALARMS; n++) {
        bits |= t->alarms[n] != NEVER ? 1u << n : 0;
    }
    return bits;
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct timer *t = (struct timer *)d;
    uint32_t reg = offset & ~3u, value;
    uint64_t now = count(m, t);
    switch (reg) {
    case TIMELR: /* and the upper word is held */
        t->latched = (uint32_t)(now >> 32);
        value = (uint32_t)now;
        break;
    case TIMEHR:
        value = t->latched;
        break;
    case TIMERAWL:
        value = (uint32_t)now;
        break;
    case TIMERAWH:
        value = (uint32_t)(now >> 32);
        break;
    case ARMED:
        value = armed(t);
        break;
    case INTR:
        value = t->raw;
        break;
    case INTE:
        value = t->enabled;
        break;
    case INTF:
        value = t->forced;
        break;
    case INTS:
        value = (t->raw & t->enabled) | t->forced;
        break;
    default:
        if (reg < ALARM || reg >= ARMED) {
            return plain_read(m, d->base + offset, size);
        }
        value = t->targets[(reg - ALARM) / 4];
        break;
    }
    return part_of(value, offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct timer *t = (struct timer *)d;
    uint32_t reg = offset & ~3u, word = with_part(0, offset, size, value);
    switch (reg) {
    case TIMELW:
        t->zero = mcu_now(m) - ((uint64_t)t->next_high << 32 | word) * NS_PER_US;
        break;
    case TIMEHW:
        t->next_high = word;
        break;
    case ARMED: /* disarms */
        for (unsigned n = 0; n < ALARMS; n++) {
            t->alarms[n] = word >> n & 1 ? NEVER : t->alarms[n];
        }
        break;
    case INTR:
        t->raw &= ~word;
        break;
    case INTE:
        t->enabled = word & ALL;
        break;
    case INTF:
        t->forced = word & ALL;
        break;
    default:
        if (reg >= ALARM && reg < ARMED) {
            arm(m, t, (reg - ALARM) / 4, word);
        } else {
            plain_write(m, d->base + offset, size, value);
        }
        break;
    }
    show(m, t);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct timer *t = (struct timer *)d;
    (void)kind;
    t->zero = mcu_now(m);
    t->latched = t->next_high = t->raw = t->enabled = t->forced = 0;
    for (unsigned n = 0; n < ALARMS; n++) {
        t->alarms[n] = NEVER;
        t->targets[n] = 0;
    }
    show(m, t);
}

void timer_rp2040_add(struct mcu *m, const struct device_place *place) {
    struct timer *t = device_memory(m, sizeof *t);
    t->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    t->interrupt = place->interrupt;
    mcu_add_device(m, &t->device);
}
