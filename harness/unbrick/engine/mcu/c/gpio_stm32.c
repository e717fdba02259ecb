/* A port of STM32F4 and newer: outputs, and pins that select a chip while they are low. An input
 * that nobody drives reads as 0. Source: RM0383 chapter 8. */
#include "devices.h"

enum { MODER = 0x00, IDR = 0x10, ODR = 0x14, BSRR = 0x18, BRR = 0x28, REGISTERS = 11 };
enum { PINS = 16, SELECTS = 4 };

struct gpio {
    struct device device;
    uint32_t registers[REGISTERS], moder_reset;
    struct {
        struct bus_chip *chip;
        struct device *bus; /* that the chip hangs on */
        uint32_t pin;
        bool low;
    } selects[SELECTS];
    size_t count;
};

static uint32_t *at(struct gpio *g, uint32_t offset) {
    return &g->registers[offset / 4];
}

static bool is_output(struct gpio *g, uint32_t pin) {
    return (*at(g, MODER) >> 2 * pin & 3) == 1;
}

/* A pin that is no output is high, by the pull-up that a board has at a chip select. */
static void select_chips(struct mcu *m, struct gpio *g) {
    for (size_t n = 0; n < g->count; n++) {
        uint32_t pin = g->selects[n].pin;
        bool low = is_output(g, pin) && !(*at(g, ODR) >> pin & 1);
        if (low != g->selects[n].low) {
            g->selects[n].low = low;
            g->selects[n].chip->select(m, g->selects[n].chip, low);
            mcu_look_again(m, g->selects[n].bus);
        }
    }
}

static uint32_t inputs(struct gpio *g) {
    uint32_t value = 0;
    for (uint32_t pin = 0; pin < PINS; pin++) {
        value |= is_output(g, pin) ? *at(g, ODR) & 1u << pin : 0;
    }
    return value;
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct gpio *g = (struct gpio *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        return plain_read(m, d->base + offset, size);
    }
    return part_of(reg == IDR ? inputs(g) : *at(g, reg), offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct gpio *g = (struct gpio *)d;
    uint32_t reg = offset & ~3u, word = with_part(0, offset, size, value);
    if (reg / 4 >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
    } else if (reg == BSRR) { /* setting comes before resetting */
        *at(g, ODR) = (*at(g, ODR) & ~(word >> PINS)) | (word & 0xffff);
    } else if (reg == BRR) { /* of newer chips */
        *at(g, ODR) &= ~(word & 0xffff);
    } else if (reg != IDR) {
        *at(g, reg) = with_part(*at(g, reg), offset, size, value);
    }
    select_chips(m, g);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct gpio *g = (struct gpio *)d;
    (void)kind;
    memset(g->registers, 0, sizeof g->registers);
    *at(g, MODER) = g->moder_reset;
    select_chips(m, g);
}

void gpio_add_select(struct device *d, uint32_t pin, struct bus_chip *c, struct device *bus) {
    assert(d && d->read == read && pin < PINS);
    struct gpio *g = (struct gpio *)d;
    assert(g->count < SELECTS);
    g->selects[g->count].chip = c;
    g->selects[g->count].bus = bus;
    g->selects[g->count++].pin = pin;
}

void gpio_stm32_add(struct mcu *m, const struct device_place *place) {
    struct gpio *g = device_memory(m, sizeof *g);
    g->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .free = device_free};
    g->moder_reset = place->numbers[0];
    mcu_add_device(m, &g->device);
}
