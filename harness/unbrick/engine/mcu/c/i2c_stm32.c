/* The I2C of STM32F1 and F4 as a master, without DMA, SMBus and 10-bit addresses. Source: RM0383
 * chapter 18, RM0008 chapter 26. Every byte takes the time that CCR and FREQ say. */
#include "devices.h"

enum { CR1 = 0x00, CR2 = 0x04, OAR1 = 0x08, OAR2 = 0x0c, DR = 0x10, SR1 = 0x14, SR2 = 0x18 };
enum { CCR = 0x1c, TRISE = 0x20, REGISTERS = 9 };
enum { CR1_PE = 1u << 0, CR1_START = 1u << 8, CR1_STOP = 1u << 9, CR1_ACK = 1u << 10 };
#define CR1_SWRST (1u << 15)
enum { CR2_FREQ = 0x3f, CR2_ITERREN = 1u << 8, CR2_ITEVTEN = 1u << 9, CR2_ITBUFEN = 1u << 10 };
enum {
    SR1_SB = 1u << 0,
    SR1_ADDR = 1u << 1,
    SR1_BTF = 1u << 2,
    SR1_RXNE = 1u << 6,
    SR1_TXE = 1u << 7,
    SR1_AF = 1u << 10
};
#define SR1_ERRORS 0xdf00u
enum { SR2_MSL = 1u << 0, SR2_BUSY = 1u << 1, SR2_TRA = 1u << 2 };
#define CCR_FS (1u << 15)
#define CCR_DUTY (1u << 14)
enum { BYTE_BITS = 9 }; /* with the acknowledge */

enum action { NOTHING, START, ADDRESS, SEND, RECEIVE }; /* what is under way */

struct i2c {
    struct bus bus;
    struct bus_chip *chip; /* that was addressed */
    uint32_t interrupt, error_interrupt;
    uint32_t registers[REGISTERS];
    enum action action;
    uint64_t end;             /* of the action */
    uint8_t shifted, waiting; /* a byte under way; one that waits in DR, or behind it */
    bool master, transmits, has_waiting, seen; /* seen: SR1 was read since its last event */
};

static uint32_t *at(struct i2c *i, uint32_t offset) {
    return &i->registers[offset / 4];
}

static void show(struct mcu *m, struct i2c *i) {
    uint32_t sr1 = *at(i, SR1), cr2 = *at(i, CR2);
    bool event =
        sr1 & (SR1_SB | SR1_ADDR | SR1_BTF) || (sr1 & (SR1_TXE | SR1_RXNE) && cr2 & CR2_ITBUFEN);
    nvic_set_line(m, i->interrupt, event && cr2 & CR2_ITEVTEN);
    nvic_set_line(m, i->error_interrupt, sr1 & SR1_ERRORS && cr2 & CR2_ITERREN);
}

/* CCR counts halves of a clock, or thirds and 25ths in fast mode; FREQ is in MHz. */
static uint64_t bit_ns(struct i2c *i) {
    uint32_t ccr = *at(i, CCR), mhz = *at(i, CR2) & CR2_FREQ;
    uint32_t parts = !(ccr & CCR_FS) ? 2 : ccr & CCR_DUTY ? 25 : 3;
    return (uint64_t)(ccr & 0xfff ? ccr & 0xfff : 1) * parts * 1000 / (mhz ? mhz : 1);
}

static void act(struct mcu *m, struct i2c *i, enum action action) {
    i->action = action;
    i->end = mcu_now(m) + bit_ns(i) * (action == START ? 1 : BYTE_BITS);
}

static void stop(struct mcu *m, struct i2c *i) {
    if (i->chip) {
        i->chip->stop(m, i->chip);
    }
    i->chip = NULL;
    i->master = i->has_waiting = false;
    i->action = NOTHING;
    *at(i, CR1) &= ~(uint32_t)CR1_STOP;
    *at(i, SR1) &= ~((uint32_t)SR1_TXE | SR1_BTF | SR1_SB | SR1_ADDR);
}

/* Between two bytes: what was asked for takes place. Whether something was. */
static bool obey(struct mcu *m, struct i2c *i) {
    if (i->master && *at(i, CR1) & CR1_STOP) {
        stop(m, i);
        return true;
    }
    if (*at(i, CR1) & CR1_START && *at(i, CR1) & CR1_PE) {
        *at(i, SR1) &= ~((uint32_t)SR1_TXE | SR1_BTF);
        act(m, i, START);
        return true;
    }
    return false;
}

static void end_address(struct mcu *m, struct i2c *i) {
    bool reads = i->shifted & 1;
    i->chip = NULL;
    for (size_t n = 0; n < i->bus.count; n++) {
        struct bus_chip *c = i->bus.chips[n];
        if (c->address == i->shifted >> 1 && c->start(m, c, reads)) {
            i->chip = c;
        }
    }
    i->transmits = !reads;
    *at(i, SR1) |= i->chip ? SR1_ADDR : SR1_AF;
}

static void end_send(struct mcu *m, struct i2c *i) {
    if (!i->chip || !i->chip->take(m, i->chip, i->shifted)) {
        *at(i, SR1) |= SR1_AF;
    }
    if (i->has_waiting) {
        i->shifted = i->waiting;
        i->has_waiting = false;
        *at(i, SR1) |= SR1_TXE;
        act(m, i, SEND);
    } else if (!obey(m, i)) {
        *at(i, SR1) |= SR1_TXE | SR1_BTF;
    }
}

static void go_on_receiving(struct mcu *m, struct i2c *i) {
    if (!obey(m, i) && *at(i, CR1) & CR1_ACK) {
        act(m, i, RECEIVE);
    }
}

static void end_receive(struct mcu *m, struct i2c *i) {
    uint8_t byte = i->chip->give(m, i->chip);
    if (*at(i, SR1) & SR1_RXNE) { /* the clock is stretched */
        i->waiting = byte;
        i->has_waiting = true;
        *at(i, SR1) |= SR1_BTF;
    } else {
        *at(i, DR) = byte;
        *at(i, SR1) |= SR1_RXNE;
        go_on_receiving(m, i);
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct i2c *i = (struct i2c *)d;
    bus_settle(m, &i->bus);
    if (i->action == NOTHING || mcu_now(m) < i->end) {
        return;
    }
    enum action action = i->action;
    i->action = NOTHING;
    i->seen = false;
    if (action == START) {
        i->master = true;
        *at(i, CR1) &= ~(uint32_t)CR1_START;
        *at(i, SR1) |= SR1_SB;
    } else if (action == ADDRESS) {
        end_address(m, i);
    } else if (action == SEND) {
        end_send(m, i);
    } else {
        end_receive(m, i);
    }
    show(m, i);
}

static uint32_t take_data(struct mcu *m, struct i2c *i) {
    uint32_t byte = *at(i, DR);
    *at(i, SR1) &= ~((uint32_t)SR1_RXNE | SR1_BTF);
    if (i->has_waiting && !i->transmits) {
        i->has_waiting = false;
        *at(i, DR) = i->waiting;
        *at(i, SR1) |= SR1_RXNE;
        go_on_receiving(m, i);
    }
    return byte;
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct i2c *i = (struct i2c *)d;
    uint32_t value = 0;
    switch (offset & ~3u) {
    case SR1:
        i->seen = true;
        value = *at(i, SR1);
        break;
    case SR2:
        value = i->master ? SR2_MSL | SR2_BUSY | (i->transmits ? (uint32_t)SR2_TRA : 0) : 0;
        if (*at(i, SR1) & SR1_ADDR && i->seen) {
            *at(i, SR1) &= ~(uint32_t)SR1_ADDR;
            if (i->transmits) {
                *at(i, SR1) |= SR1_TXE;
            } else {
                act(m, i, RECEIVE);
            }
        }
        break;
    case DR:
        value = take_data(m, i);
        break;
    default:
        if (offset / 4 >= REGISTERS) {
            return plain_read(m, d->base + offset, size);
        }
        value = *at(i, offset & ~3u);
        break;
    }
    show(m, i);
    return part_of(value, offset, size);
}

static void send(struct mcu *m, struct i2c *i, uint8_t byte) {
    *at(i, SR1) &= ~(uint32_t)SR1_BTF;
    if (*at(i, SR1) & SR1_SB && i->seen) {
        *at(i, SR1) &= ~(uint32_t)SR1_SB;
        i->shifted = byte;
        act(m, i, ADDRESS);
    } else if (i->master && i->transmits && i->action == NOTHING) {
        i->shifted = byte;
        act(m, i, SEND);
    } else if (i->master && i->transmits && i->action == SEND) {
        i->waiting = byte;
        i->has_waiting = true;
        *at(i, SR1) &= ~(uint32_t)SR1_TXE;
    }
}

static void reset_registers(struct i2c *i) {
    memset(i->registers, 0, sizeof i->registers);
    *at(i, TRISE) = 2;
    i->chip = NULL;
    i->action = NOTHING;
    i->master = i->transmits = i->has_waiting = i->seen = false;
}

static void write_cr1(struct mcu *m, struct i2c *i, uint32_t value) {
    *at(i, CR1) = value;
    if (value & CR1_SWRST) {
        reset_registers(i);
        *at(i, CR1) = CR1_SWRST;
    } else if (i->action == NOTHING) { /* else after the byte that is under way */
        obey(m, i);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct i2c *i = (struct i2c *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
        return;
    }
    if (reg == CR1) {
        write_cr1(m, i, with_part(*at(i, CR1), offset, size, value));
    } else if (reg == SR1) { /* errors are cleared by writing 0 */
        *at(i, SR1) &= with_part(UINT32_MAX, offset, size, value) | ~SR1_ERRORS;
    } else if (reg == DR) {
        send(m, i, (uint8_t)value);
    } else if (reg != SR2) {
        *at(i, reg) = with_part(*at(i, reg), offset, size, value);
    }
    show(m, i);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct i2c *i = (struct i2c *)d;
    reset_registers(i);
    bus_reset(m, &i->bus, kind);
    show(m, i);
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct i2c *i = (struct i2c *)d;
    (void)m;
    return sooner(i->action == NOTHING ? NEVER : i->end, bus_next(&i->bus));
}

struct bus *i2c_bus(struct device *d) {
    assert(d && d->read == read);
    return (struct bus *)d;
}

void i2c_stm32_add(struct mcu *m, const struct device_place *place) {
    struct i2c *i = device_memory(m, sizeof *i);
    i->bus.device = (struct device){.base = place->base,
                                    .size = 0x400,
                                    .read = read,
                                    .write = write,
                                    .reset = reset,
                                    .next = next,
                                    .settle = settle,
                                    .lose_power = bus_lose_power,
                                    .outside = true,
                                    .free = bus_free};
    i->interrupt = place->interrupt;
    i->error_interrupt = place->numbers[0];
    mcu_add_device(m, &i->bus.device);
}
