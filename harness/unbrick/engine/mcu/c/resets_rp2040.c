/* RESETS and CLOCKS of an RP2040. A block that is put into its reset has its registers as after
 * one; a clock runs on what its multiplexer chooses at once. Sources: the RP2040 data sheet,
 * sections 2.14 and 2.15. */
#include "devices.h"

enum { RESET = 0x00, WDSEL = 0x04, RESET_DONE = 0x08, BLOCKS = 0x1ffffff };

struct resets {
    struct device device;
    uint32_t reset, wdsel;
};

/* The blocks whose models have something to forget, and their bits. */
static const struct {
    uint32_t bit, base;
} KNOWN[] = {{6, 0x40018000}, {21, 0x40054000}, {22, 0x40034000}, {23, 0x40038000}};

static uint32_t read_resets(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct resets *r = (const struct resets *)d;
    uint32_t reg = offset & ~3u;
    (void)m;
    uint32_t value = reg == RESET        ? r->reset
                     : reg == WDSEL      ? r->wdsel
                     : reg == RESET_DONE ? ~r->reset & BLOCKS
                                         : 0;
    return part_of(value, offset, size);
}

static void put_into_reset(struct mcu *m, uint32_t blocks) {
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        struct device *d = blocks >> KNOWN[i].bit & 1 ? find_device_at(m, KNOWN[i].base) : NULL;
        if (d) {
            d->reset(m, d, RESET_SYSTEM);
            mcu_look_again(m, d);
        }
    }
}

static void write_resets(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                         uint32_t value) {
    struct resets *r = (struct resets *)d;
    uint32_t before = r->reset;
    if ((offset & ~3u) == RESET) {
        r->reset = with_part(r->reset, offset, size, value) & BLOCKS;
        put_into_reset(m, r->reset & ~before);
    } else if ((offset & ~3u) == WDSEL) {
        r->wdsel = with_part(r->wdsel, offset, size, value);
    }
}

static void reset_resets(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct resets *r = (struct resets *)d;
    (void)m;
    (void)kind;
    r->reset = BLOCKS;
    r->wdsel = 0;
}

void resets_rp2040_add(struct mcu *m, const struct device_place *place) {
    struct resets *r = device_memory(m, sizeof *r);
    r->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read_resets,
                                .write = write_resets,
                                .reset = reset_resets,
                                .free = device_free};
    mcu_add_device(m, &r->device);
}

enum { CLOCKS = 10, CLOCK_SIZE = 12, CTRL = 0, SELECTED = 8, CLK_REF = 4, CLK_SYS = 5 };

struct clocks {
    struct device device;
    uint32_t registers[CLOCKS * CLOCK_SIZE / 4];
};

/* One bit for what a clock is made of; those that may glitch have but one. */
static uint32_t selected(const struct clocks *c, uint32_t clock) {
    uint32_t source = c->registers[clock * CLOCK_SIZE / 4];
    return clock == CLK_REF ? 1u << (source & 3) : clock == CLK_SYS ? 1u << (source & 1) : 1;
}

static uint32_t read_clocks(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct clocks *c = (const struct clocks *)d;
    uint32_t reg = offset & ~3u;
    if (reg >= sizeof c->registers) {
        return plain_read(m, d->base + offset, size);
    }
    bool shows = reg % CLOCK_SIZE == SELECTED;
    return part_of(shows ? selected(c, reg / CLOCK_SIZE) : c->registers[reg / 4], offset, size);
}

static void write_clocks(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                         uint32_t value) {
    struct clocks *c = (struct clocks *)d;
    if (offset >= sizeof c->registers) {
        plain_write(m, d->base + offset, size, value);
        return;
    }
    c->registers[offset / 4] = with_part(c->registers[offset / 4], offset, size, value);
}

static void reset_clocks(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct clocks *c = (struct clocks *)d;
    (void)m;
    (void)kind;
    memset(c->registers, 0, sizeof c->registers);
}

void clocks_rp2040_add(struct mcu *m, const struct device_place *place) {
    struct clocks *c = device_memory(m, sizeof *c);
    c->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read_clocks,
                                .write = write_clocks,
                                .reset = reset_clocks,
                                .free = device_free};
    mcu_add_device(m, &c->device);
}
