/* The window watchdog of STM32: a counter that is to be reloaded, not too early and not too late.
 * Source: RM0008 chapter 20, RM0090 chapter 22, RM0351 chapter 37; for the prescaler of newer ones
 * their headers of STMicroelectronics. A reload begins a whole count, where on the chip the
 * prescaler goes on. */
#include "devices.h"

enum { CR = 0x00, CFR = 0x04, SR = 0x08 };
enum { CR_T = 0x7f, CR_T6 = 1u << 6, CR_WDGA = 1u << 7 };
enum { CFR_W = 0x7f, CFR_EWI = 1u << 9 };
enum { SR_EWIF = 1u << 0 };
enum { LEAST = 0x40, PCLKS = 4096 }; /* below it is a reset; clocks of a count */

struct wwdg {
    struct device device;
    uint32_t interrupt, clock_hz, option, option_mask;
    uint32_t shift, mask;         /* where the prescaler is in CFR */
    uint32_t counter, cfr, flags; /* the counter as it was written, at `began` */
    uint64_t began;
    bool running, warned;
};

static uint64_t time_of(const struct wwdg *w, uint32_t counts) {
    uint32_t prescaler = w->cfr >> w->shift & w->mask;
    return clock_ns((uint64_t)counts * PCLKS << prescaler, w->clock_hz);
}

static uint32_t count(struct mcu *m, const struct wwdg *w) {
    uint32_t left = w->counter;
    while (w->running && left && w->began + time_of(w, w->counter - left + 1) <= mcu_now(m)) {
        left--;
    }
    return left;
}

/* When the counter is at `left`. */
static uint64_t when(const struct wwdg *w, uint32_t left) {
    return w->began + time_of(w, w->counter - left);
}

static void show(struct mcu *m, const struct wwdg *w) {
    nvic_set_line(m, w->interrupt, w->cfr & CFR_EWI && w->flags & SR_EWIF);
}

static void begin(struct mcu *m, struct wwdg *w, uint32_t counter) {
    w->counter = counter;
    w->began = w->running ? mcu_now(m) : 0; /* while it is off, it remembers no time */
    w->warned = false;
}

static void bite(struct mcu *m, struct wwdg *w) {
    fault(m, FAULT_WATCHDOG, w->device.base, 0);
    w->running = false;
    mcu_reset_for(m, CAUSE_WINDOW);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct wwdg *w = (const struct wwdg *)d;
    switch (offset & ~3u) {
    case CR:
        return part_of(count(m, w) | (w->running ? (uint32_t)CR_WDGA : 0), offset, size);
    case CFR:
        return part_of(w->cfr, offset, size);
    case SR:
        return part_of(w->flags, offset, size);
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void take_counter(struct mcu *m, struct wwdg *w, uint32_t value) {
    bool early = w->running && count(m, w) > (w->cfr & CFR_W);
    w->running = w->running || value & CR_WDGA;
    begin(m, w, value & CR_T);
    if (w->running && (early || !(value & CR_T6))) {
        bite(m, w);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct wwdg *w = (struct wwdg *)d;
    uint32_t word = with_part(0, offset, size, value);
    switch (offset & ~3u) {
    case CR:
        take_counter(m, w, word);
        break;
    case CFR: /* what was switched on stays so until a reset */
        begin(m, w, count(m, w));
        w->cfr = (w->cfr & CFR_EWI) | (word & (CFR_W | CFR_EWI | w->mask << w->shift));
        break;
    case SR:
        w->flags &= word;
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
    show(m, w);
}

static void settle(struct mcu *m, struct device *d) {
    struct wwdg *w = (struct wwdg *)d;
    if (w->running && !w->warned && when(w, LEAST) <= mcu_now(m)) {
        w->warned = true;
        w->flags |= SR_EWIF;
        show(m, w);
    }
    if (w->running && when(w, LEAST - 1) <= mcu_now(m)) {
        bite(m, w);
    }
}

static uint64_t next(struct mcu *m, struct device *d) {
    const struct wwdg *w = (const struct wwdg *)d;
    (void)m;
    return w->running ? when(w, w->warned ? LEAST - 1 : LEAST) : NEVER;
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct wwdg *w = (struct wwdg *)d;
    uint8_t option;
    (void)kind;
    w->cfr = CFR_W;
    w->flags = 0;
    /* The option bit WWDG_SW that is 0 starts it at the reset. */
    w->running = w->option && read_option(m, w->option, &option) && !(option & w->option_mask);
    begin(m, w, CR_T);
    show(m, w);
}

void wwdg_stm32_add(struct mcu *m, const struct device_place *place) {
    enum { OLD_BITS = 2, OLD_SHIFT = 7, NEW_SHIFT = 11 };
    struct wwdg *w = device_memory(m, sizeof *w);
    w->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    w->interrupt = place->interrupt;
    w->clock_hz = place->numbers[0];
    w->shift = place->numbers[1] == OLD_BITS ? OLD_SHIFT : NEW_SHIFT;
    w->mask = (1u << place->numbers[1]) - 1;
    w->option = place->numbers[2];
    w->option_mask = place->numbers[3];
    mcu_add_device(m, &w->device);
}
