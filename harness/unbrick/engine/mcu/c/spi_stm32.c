/* The SPI of STM32F1 and F4 as a master of frames of 8 bits, without DMA and CRC. Source: RM0383
 * chapter 20, RM0008 chapter 25. */
#include "devices.h"

enum { CR1 = 0x00, CR2 = 0x04, SR = 0x08, DR = 0x0c, REGISTERS = 9 };
enum { CR1_MSTR = 1u << 2, CR1_BR_SHIFT = 3, CR1_SPE = 1u << 6 };
enum { CR2_ERRIE = 1u << 5, CR2_RXNEIE = 1u << 6, CR2_TXEIE = 1u << 7 };
enum { SR_RXNE = 1u << 0, SR_TXE = 1u << 1, SR_OVR = 1u << 6, SR_BSY = 1u << 7 };
enum { FRAME_BITS = 8 };

struct spi {
    struct bus bus;
    uint32_t interrupt, clock_hz;
    uint32_t registers[REGISTERS]; /* DR: what came */
    uint64_t end;                  /* of the frame under way; NEVER: there is none */
    uint8_t shifted, waiting;      /* sent; what is sent next */
    bool has_waiting, seen;        /* seen: DR was read since the overrun */
};

static uint32_t *at(struct spi *s, uint32_t offset) {
    return &s->registers[offset / 4];
}

static uint32_t status(struct spi *s) {
    return *at(s, SR) | (s->has_waiting ? 0 : (uint32_t)SR_TXE) |
           (s->end != NEVER ? (uint32_t)SR_BSY : 0);
}

static void show(struct mcu *m, struct spi *s) {
    uint32_t sr = status(s), cr2 = *at(s, CR2);
    bool high = (sr & SR_TXE && cr2 & CR2_TXEIE) || (sr & SR_RXNE && cr2 & CR2_RXNEIE) ||
                (sr & SR_OVR && cr2 & CR2_ERRIE);
    nvic_set_line(m, s->interrupt, high);
}

static void begin(struct mcu *m, struct spi *s, uint8_t byte) {
    uint64_t clocks = (uint64_t)FRAME_BITS << ((*at(s, CR1) >> CR1_BR_SHIFT & 7) + 1);
    s->shifted = byte;
    s->end = mcu_now(m) + clock_ns(clocks, s->clock_hz);
}

/* A frame that comes while one waits in DR is lost. */
static void end_frame(struct mcu *m, struct spi *s) {
    uint8_t came = 0xff;
    for (size_t i = 0; i < s->bus.count; i++) { /* a chip that is not selected does not drive */
        came &= s->bus.chips[i]->exchange(m, s->bus.chips[i], s->shifted);
    }
    if (*at(s, SR) & SR_RXNE) {
        *at(s, SR) |= SR_OVR;
    } else {
        *at(s, DR) = came;
        *at(s, SR) |= SR_RXNE;
    }
    s->end = NEVER;
    if (s->has_waiting) {
        s->has_waiting = false;
        begin(m, s, s->waiting);
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct spi *s = (struct spi *)d;
    bus_settle(m, &s->bus);
    if (s->end <= mcu_now(m)) {
        end_frame(m, s);
        show(m, s);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct spi *s = (struct spi *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        return plain_read(m, d->base + offset, size);
    }
    uint32_t value = reg == SR ? status(s) : *at(s, reg);
    if (reg == DR) {
        *at(s, SR) &= ~(uint32_t)SR_RXNE;
        s->seen = true;
    } else if (reg == SR && s->seen) { /* DR, then SR, clear the overrun */
        *at(s, SR) &= ~(uint32_t)SR_OVR;
        s->seen = false;
    }
    show(m, s);
    return part_of(value, offset, size);
}

static void send(struct mcu *m, struct spi *s, uint8_t byte) {
    uint32_t on = CR1_SPE | CR1_MSTR;
    if ((*at(s, CR1) & on) != on) {
        return;
    }
    if (s->end == NEVER) {
        begin(m, s, byte);
    } else {
        s->waiting = byte;
        s->has_waiting = true;
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct spi *s = (struct spi *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
        return;
    }
    if (reg == DR) {
        send(m, s, (uint8_t)value);
    } else if (reg != SR) {
        *at(s, reg) = with_part(*at(s, reg), offset, size, value);
    }
    show(m, s);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct spi *s = (struct spi *)d;
    memset(s->registers, 0, sizeof s->registers);
    s->end = NEVER;
    s->has_waiting = s->seen = false;
    bus_reset(m, &s->bus, kind);
    show(m, s);
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct spi *s = (struct spi *)d;
    (void)m;
    return sooner(s->end, bus_next(&s->bus));
}

struct bus *spi_bus(struct device *d) {
    assert(d && d->read == read);
    return (struct bus *)d;
}

void spi_stm32_add(struct mcu *m, const struct device_place *place) {
    struct spi *s = device_memory(m, sizeof *s);
    s->bus.device = (struct device){.base = place->base,
                                    .size = 0x400,
                                    .read = read,
                                    .write = write,
                                    .reset = reset,
                                    .next = next,
                                    .settle = settle,
                                    .lose_power = bus_lose_power,
                                    .outside = true,
                                    .free = bus_free};
    s->interrupt = place->interrupt;
    s->clock_hz = place->numbers[0];
    mcu_add_device(m, &s->bus.device);
}
