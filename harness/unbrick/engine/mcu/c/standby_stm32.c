/* Standby of STM32 that are newer than F4; where its bits are, the chip's file says. It loses RAM
 * and ends with a reset. What wakes the chip is not modelled: it wakes by itself after a while that
 * the file says. Source: RM0351 chapter 5; for the others their headers of STMicroelectronics. */
#include "devices.h"

struct bits {
    uint32_t offset, mask;
};

struct standby {
    struct device device;
    struct bits mode, flag, clear;
    uint32_t wanted; /* of `mode` for Standby */
    uint64_t look, standby_ns;
    bool stands_by, stood_by;
};

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct standby *s = (const struct standby *)d;
    uint32_t flag = (offset & ~3u) == s->flag.offset && s->stood_by ? s->flag.mask : 0;
    return plain_read(m, d->base + offset, size) | part_of(flag, offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct standby *s = (struct standby *)d;
    uint32_t word = with_part(plain_look(m, d->base + offset), offset, size, value);
    uint32_t none = 0; /* bits that are not kept */
    if ((offset & ~3u) == s->clear.offset) {
        s->stood_by = s->stood_by && !(word & s->clear.mask);
        none |= s->clear.mask;
    }
    if ((offset & ~3u) == s->flag.offset) {
        none |= s->flag.mask;
    }
    plain_write(m, (d->base + offset) & ~3u, 4, word & ~none);
    if ((offset & ~3u) == s->mode.offset) {
        s->look = (word & s->mode.mask) == s->wanted ? mcu_now(m) + STANDBY_LOOK_NS : NEVER;
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct standby *s = (struct standby *)d;
    s->stands_by = stand_by(m, &s->look, s->standby_ns) || s->stands_by;
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct standby *s = (struct standby *)d;
    (void)m;
    s->stood_by = !lost_supply(kind) && (s->stood_by || s->stands_by);
    s->stands_by = false;
    s->look = NEVER;
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return ((const struct standby *)d)->look;
}

void standby_stm32_add(struct mcu *m, const struct device_place *place) {
    struct standby *s = device_memory(m, sizeof *s);
    const uint32_t *numbers = place->numbers;
    s->mode = (struct bits){numbers[1], numbers[2]};
    s->wanted = numbers[3];
    s->flag = (struct bits){numbers[4], numbers[5]};
    s->clear = (struct bits){numbers[6], numbers[7]};
    s->standby_ns = (uint64_t)numbers[0] * NS_PER_US;
    uint32_t last = s->mode.offset;
    last = s->flag.offset > last ? s->flag.offset : last;
    last = s->clear.offset > last ? s->clear.offset : last;
    s->device = (struct device){.base = place->base,
                                .size = last + 4,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    mcu_add_device(m, &s->device);
}
