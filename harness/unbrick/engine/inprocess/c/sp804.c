/* A timer. Source: Arm DDI 0271 (SP804). */
#include <assert.h>
#include <string.h>

#include "parts.h"

enum { TIMER_ONE_SHOT = 1, TIMER_32 = 2, TIMER_INT = 0x20, TIMER_PERIODIC = 0x40, TIMER_ON = 0x80 };

static uint64_t tick_ns(const struct timer *t) {
    static const uint16_t prescale[4] = {1, 16, 256, 256};
    return 1000u * prescale[t->control >> 2 & 3]; /* 1 MHz */
}

static uint64_t timer_expiry(const struct timer *t) {
    return t->control & TIMER_ON ? t->start + (uint64_t)t->from * tick_ns(t) : NEVER;
}

static void timer_settle(struct board *b, struct timer *t) {
    while (timer_expiry(t) <= b->now) {
        uint64_t at = timer_expiry(t);
        t->raw = true;
        if (t->control & TIMER_ONE_SHOT) {
            t->control &= ~(uint32_t)TIMER_ON;
            t->from = 0;
        } else {
            t->from = t->control & TIMER_PERIODIC ? t->load
                      : t->control & TIMER_32     ? 0xffffffffu
                                                  : 0xffffu;
            if (!t->from) {
                t->from = 1;
            }
            uint64_t period = t->from * tick_ns(t);
            assert(period > 0 && at <= b->now);
            t->start = at + (b->now - at) / period * period; /* skip whole periods at once */
        }
    }
}

uint64_t timer_next(struct board *b, struct timer *t) {
    timer_settle(b, t);
    if (!(t->control & TIMER_INT)) {
        return NEVER;
    }
    return t->raw ? b->now : timer_expiry(t);
}

static void timer_begin(struct board *b, struct timer *t) {
    t->from = t->control & TIMER_32 ? t->load : t->load & 0xffff;
    t->start = b->now;
}

uint32_t timer_read(struct board *b, struct timer *t, uint32_t reg) {
    timer_settle(b, t);
    switch (reg) {
    case 0x00:
    case 0x18:
        return t->load;
    case 0x04:
        return t->control & TIMER_ON ? t->from - (uint32_t)((b->now - t->start) / tick_ns(t))
                                     : t->from;
    case 0x08:
        return t->control;
    case 0x10:
        return t->raw;
    case 0x14:
        return t->raw && t->control & TIMER_INT;
    default:
        fault(b, FAULT_BOUNDS, reg, 0);
        return 0;
    }
}

void timer_write(struct board *b, struct timer *t, uint32_t reg, uint32_t value) {
    timer_settle(b, t);
    switch (reg) {
    case 0x00:
        t->load = value;
        timer_begin(b, t);
        break;
    case 0x08: {
        bool was_on = t->control & TIMER_ON;
        t->control = value & 0xef;
        if (!was_on && value & TIMER_ON) {
            timer_begin(b, t);
        }
        break;
    }
    case 0x0c:
        t->raw = false;
        break;
    case 0x18:
        t->load = value;
        break;
    default:
        fault(b, FAULT_BOUNDS, reg, value);
        break;
    }
}

void timer_reset(struct timer *t) {
    memset(t, 0, sizeof *t);
    t->control = TIMER_INT;
    t->from = 0xffffffffu;
}
