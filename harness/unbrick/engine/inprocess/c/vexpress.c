/* The motherboard: which device is where, the counter, the reset, and the interrupt controller.
 * Sources: Arm DUI 0448 (motherboard registers), IHI 0048 (GIC). */
#include <assert.h>

#include "parts.h"

#define SYS_CFGCTRL_REBOOT 0xc0900000u /* start, write, function 9, motherboard */

bool gic_passes(const struct board *b, unsigned irq) {
    const struct gic *g = &b->gic;
    assert(irq < 32 * sizeof g->enable / sizeof g->enable[0]);
    return g->dist_control & 1 && g->cpu_control & 1 && g->priority_mask > 0 &&
           g->enable[irq / 32] & 1u << irq % 32;
}

static uint32_t private_read(struct board *b, uint32_t offset) {
    const struct gic *g = &b->gic;
    if (offset == 0x100) {
        return g->cpu_control;
    }
    if (offset == 0x104) {
        return g->priority_mask;
    }
    if (offset == 0x1000) {
        return g->dist_control;
    }
    if (offset == 0x1004) {
        return 0x62; /* 96 lines, two CPU interfaces: as the A9 of this board */
    }
    if (offset >= 0x1100 && offset < 0x1110) {
        return g->enable[(offset - 0x1100) / 4];
    }
    if (offset >= 0x1180 && offset < 0x1190) {
        return g->enable[(offset - 0x1180) / 4];
    }
    fault(b, FAULT_BOUNDS, 0x1e000000u + offset, 0);
    return 0;
}

static void private_write(struct board *b, uint32_t offset, uint32_t value) {
    struct gic *g = &b->gic;
    if (offset == 0x100) {
        g->cpu_control = value;
    } else if (offset == 0x104) {
        g->priority_mask = value & 0xff;
    } else if (offset == 0x1000) {
        g->dist_control = value;
    } else if (offset >= 0x1100 && offset < 0x1110) {
        g->enable[(offset - 0x1100) / 4] |= value;
    } else if (offset >= 0x1180 && offset < 0x1190) {
        g->enable[(offset - 0x1180) / 4] &= ~value;
    } else if (offset != 0x108 && offset != 0x110 && !(offset >= 0x1080 && offset < 0x2000)) {
        fault(b, FAULT_BOUNDS, 0x1e000000u + offset, value);
    }
}

/* The motherboard's page range: 0x10000000 to 0x10011fff. */
uint64_t board_mmio_motherboard_read(void *uc, uint64_t offset, unsigned size, void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    uint32_t reg = offset & 0xfff;
    if (!takes_place(b)) {
        return 0;
    }
    switch (offset >> 12) {
    case 0x00:
        if (reg == 0x5c) {
            return (uint32_t)(b->now * 24 / 1000);
        }
        break;
    case 0x09:
        return uart_read(b, &b->uarts[0], reg);
    case 0x0a:
        return uart_read(b, &b->uarts[1], reg);
    case 0x11:
        if (reg < 0x40) {
            return timer_read(b, &b->timers[reg >> 5], reg & 0x1f);
        }
        break;
    }
    fault(b, FAULT_BOUNDS, 0x10000000u + (uint32_t)offset, 0);
    return 0;
}

void board_mmio_motherboard_write(void *uc, uint64_t offset, unsigned size, uint64_t value,
                                  void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    uint32_t reg = offset & 0xfff, word = (uint32_t)value;
    if (!takes_place(b) || b->stuck) {
        return;
    }
    switch (offset >> 12) {
    case 0x00:
        if (reg == 0xa4 && word == SYS_CFGCTRL_REBOOT) {
            stop(b, STOP_RESET);
            return;
        }
        break;
    case 0x09:
        uart_write(b, &b->uarts[0], reg, word);
        return;
    case 0x0a:
        uart_write(b, &b->uarts[1], reg, word);
        return;
    case 0x11:
        if (reg < 0x40) {
            timer_write(b, &b->timers[reg >> 5], reg & 0x1f, word);
            return;
        }
        break;
    }
    fault(b, FAULT_BOUNDS, 0x10000000u + (uint32_t)offset, word);
}

uint64_t board_mmio_private_read(void *uc, uint64_t offset, unsigned size, void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    if (!takes_place(b)) {
        return 0;
    }
    return private_read(b, (uint32_t)offset);
}

void board_mmio_private_write(void *uc, uint64_t offset, unsigned size, uint64_t value,
                              void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    if (takes_place(b) && !b->stuck) {
        private_write(b, (uint32_t)offset, (uint32_t)value);
    }
}
