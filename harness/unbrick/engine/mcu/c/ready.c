/* Registers without a model: what they read as after a reset, and bits that follow others, as
 * "ready" follows "enable". Those of the core's own addresses are devices, too, since the core
 * would answer for them. */
#include "devices.h"

#define PRIVATE 0xe0000000u /* where the core's own registers begin */

struct follower { /* bits that follow those of a register */
    struct cell *enable, *ready;
    uint32_t enable_mask, ready_mask;
};

struct cell { /* a register that a rule is about */
    struct device device;
    struct rules *rules;
    uint32_t value, reset;
};

struct rules {
    struct cell *cells;
    struct follower *followers;
    size_t cell_count, follower_count, freed;
};

/* The bits of a field, as those of a mask; both have as many. */
static uint32_t move_field(uint32_t value, uint32_t from, uint32_t to) {
    uint32_t moved = 0;
    while (from && to) {
        uint32_t bit = to & -to;
        moved |= value & from & -from ? bit : 0;
        from &= from - 1;
        to &= to - 1;
    }
    return moved;
}

static void follow(const struct rules *r) {
    for (size_t i = 0; i < r->follower_count; i++) {
        const struct follower *f = &r->followers[i];
        f->ready->value = (f->ready->value & ~f->ready_mask) |
                          move_field(f->enable->value, f->enable_mask, f->ready_mask);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct cell *c = (const struct cell *)d;
    plain_read(m, d->base + offset, size); /* it is counted */
    return part_of(c->value, offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct cell *c = (struct cell *)d;
    c->value = with_part(c->value, offset, size, value);
    follow(c->rules);
    plain_write(m, d->base, 4, c->value);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct cell *c = (struct cell *)d;
    (void)m;
    (void)kind;
    c->value = c->reset;
}

static void free_rules(struct rules *r) {
    free(r->cells);
    free(r->followers);
    free(r);
}

static void release(struct device *d) {
    struct rules *r = ((struct cell *)d)->rules;
    if (++r->freed == r->cell_count) { /* the last one frees for all */
        free_rules(r);
    }
}

static uint32_t find_reset(const struct register_place *registers, size_t count, uint32_t address) {
    for (size_t i = 0; i < count; i++) {
        if (registers[i].address == address) {
            return registers[i].reset;
        }
    }
    return 0;
}

static struct cell *take_cell(struct rules *r, uint32_t address) {
    for (size_t i = 0; i < r->cell_count; i++) {
        if (r->cells[i].device.base == address) {
            return &r->cells[i];
        }
    }
    struct cell *c = &r->cells[r->cell_count++];
    c->device = (struct device){
        .base = address, .size = 4, .read = read, .write = write, .reset = reset, .free = release};
    c->rules = r;
    return c;
}

void mcu_add_registers(struct mcu *m, const struct register_place *registers, size_t count,
                       const struct ready_place *rules, size_t rule_count) {
    enum { AREA = 1024, PERIPHERALS = 0x40000000, PERIPHERALS_SIZE = 0x20000000 };
    for (size_t i = 0; i < count; i++) {
        uint32_t area = registers[i].address / AREA * AREA;
        bool known = i && registers[i - 1].address / AREA * AREA == area;
        if (!known && area - PERIPHERALS >= PERIPHERALS_SIZE) {
            mcu_add_plain(m, area, AREA);
        }
        plain_set_reset(m, registers[i].address, registers[i].reset);
    }
    struct rules *r = device_memory(m, sizeof *r);
    r->cells = device_memory(m, (count + 2 * rule_count + 1) * sizeof *r->cells);
    r->followers = device_memory(m, (rule_count + 1) * sizeof *r->followers);
    for (size_t i = 0; i < count; i++) {
        if (registers[i].address >= PRIVATE) {
            take_cell(r, registers[i].address);
        }
    }
    for (; r->follower_count < rule_count; r->follower_count++) {
        const struct ready_place *rule = &rules[r->follower_count];
        r->followers[r->follower_count] =
            (struct follower){take_cell(r, rule->enable), take_cell(r, rule->ready),
                              rule->enable_mask, rule->ready_mask};
    }
    if (!r->cell_count) {
        device_disown(m, r->cells);
        device_disown(m, r->followers);
        device_disown(m, r);
        free_rules(r);
        return;
    }
    for (size_t i = 0; i < r->cell_count; i++) {
        r->cells[i].reset = find_reset(registers, count, r->cells[i].device.base);
        mcu_add_device(m, &r->cells[i].device);
    }
}
