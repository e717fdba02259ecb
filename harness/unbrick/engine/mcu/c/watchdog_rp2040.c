/* The watchdog of an RP2040, its scratch registers, and why the chip was reset. Source: the RP2040
 * data sheet, sections 2.12 and 4.7. Its counter goes down twice each microsecond (RP2040-E1). What
 * PSM's WDSEL leaves out of a reset is reset all the same. */
#include <stddef.h>

#include "devices.h"

enum { CTRL = 0x00, LOAD = 0x04, REASON = 0x08, SCRATCH = 0x0c, TICK = 0x2c, REGISTERS = 12 };
enum { CTRL_TIME = 0xffffff, CTRL_PAUSES = 7 << 24, CTRL_ENABLE = 1 << 30 };
#define CTRL_TRIGGER (1u << 31)
enum { REASON_TIMER = 1, REASON_FORCE = 2 };
enum { TICK_ENABLE = 1 << 9, TICK_RUNNING = 1 << 10 };
enum { NS_PER_COUNT = 500 };
enum { CHIP_RESET = 0x08, HAD_POR = 1 << 8, HAD_RUN = 1 << 16 };

struct watchdog {
    struct device device, chip; /* the second: VREG_AND_CHIP_RESET */
    uint32_t registers[REGISTERS], chip_reset;
    uint64_t end;  /* when it resets the chip; NEVER: it is off */
    bool resetted; /* it has asked for the reset that comes */
};

static void bite(struct mcu *m, struct watchdog *w, uint32_t reason) {
    w->registers[REASON / 4] = reason;
    w->resetted = true;
    w->end = NEVER;
    mcu_reset_system(m);
}

static void settle(struct mcu *m, struct device *d) {
    struct watchdog *w = (struct watchdog *)d;
    if (w->end <= mcu_now(m)) {
        fault(m, FAULT_WATCHDOG, d->base, 0);
        bite(m, w, REASON_TIMER);
    }
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return ((const struct watchdog *)d)->end;
}

static void start(struct mcu *m, struct watchdog *w) {
    bool runs = w->registers[CTRL / 4] & CTRL_ENABLE && w->registers[TICK / 4] & TICK_ENABLE;
    w->end = runs ? mcu_now(m) + (uint64_t)w->registers[LOAD / 4] * NS_PER_COUNT : NEVER;
}

static uint32_t left(struct mcu *m, const struct watchdog *w) {
    return w->end == NEVER ? w->registers[LOAD / 4] & CTRL_TIME
                           : (uint32_t)((w->end - mcu_now(m)) / NS_PER_COUNT);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct watchdog *w = (const struct watchdog *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        return plain_read(m, d->base + offset, size);
    }
    uint32_t value = w->registers[reg / 4];
    value = reg == CTRL   ? value | left(m, w)
            : reg == LOAD ? 0
            : reg == TICK ? value | (value & TICK_ENABLE ? (uint32_t)TICK_RUNNING : 0)
                          : value;
    return part_of(value, offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct watchdog *w = (struct watchdog *)d;
    uint32_t reg = offset & ~3u, word = with_part(0, offset, size, value);
    if (reg / 4 >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
    } else if (reg == CTRL) {
        uint32_t changed = (w->registers[0] ^ word) & CTRL_ENABLE;
        w->registers[0] = word & (CTRL_PAUSES | CTRL_ENABLE);
        if (word & CTRL_TRIGGER) {
            bite(m, w, REASON_FORCE);
        } else if (changed) {
            start(m, w);
        }
    } else if (reg == LOAD) {
        w->registers[LOAD / 4] = word & CTRL_TIME;
        start(m, w);
    } else if (reg == TICK) {
        w->registers[TICK / 4] = word & (0x1ff | TICK_ENABLE);
        start(m, w);
    } else if (reg != REASON) {
        w->registers[reg / 4] = with_part(w->registers[reg / 4], offset, size, value);
    }
}

/* The scratch registers outlive all but the loss of the power and the pin. */
static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct watchdog *w = (struct watchdog *)d;
    (void)m;
    if (kind != RESET_SYSTEM) {
        memset(w->registers, 0, sizeof w->registers);
        w->chip_reset = lost_supply(kind) ? HAD_POR : HAD_RUN;
    } else if (!w->resetted) {
        w->registers[REASON / 4] = 0;
    }
    w->registers[CTRL / 4] = CTRL_PAUSES;
    w->registers[LOAD / 4] = 0;
    w->registers[TICK / 4] = TICK_ENABLE;
    w->resetted = false;
    w->end = NEVER;
}

static struct watchdog *of_chip(struct device *d) {
    return (struct watchdog *)((char *)d - offsetof(struct watchdog, chip));
}

static uint32_t read_chip(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    if ((offset & ~3u) == CHIP_RESET) {
        return part_of(of_chip(d)->chip_reset, offset, size);
    }
    return plain_read(m, d->base + offset, size);
}

static void write_chip(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                       uint32_t value) {
    if ((offset & ~3u) != CHIP_RESET) {
        plain_write(m, d->base + offset, size, value);
    }
}

static void reset_nothing(struct mcu *m, struct device *d, enum reset_kind kind) {
    (void)m;
    (void)d;
    (void)kind;
}

static void free_both(struct device *d) {
    free(of_chip(d));
}

void watchdog_rp2040_add(struct mcu *m, const struct device_place *place) {
    struct watchdog *w = device_memory(m, sizeof *w);
    w->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle};
    w->chip = (struct device){.base = place->numbers[0],
                              .size = 0x1000,
                              .read = read_chip,
                              .write = write_chip,
                              .reset = reset_nothing,
                              .free = free_both}; /* the last one, by their addresses */
    assert(w->chip.base > w->device.base);
    w->end = NEVER;
    mcu_add_device(m, &w->device);
    mcu_add_device(m, &w->chip);
}
