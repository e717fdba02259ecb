/* The SSI of an RP2040 with a flash behind it, which code reads where it has addresses, the control
 * of its cache, and the pin that selects the flash. Sources: the RP2040 data sheet, sections 2.6.3,
 * 2.19.6.2 and 4.10. The cache holds nothing: what is read is what the flash holds.
 *
 * Firmware sends commands frame by frame through the FIFO. Meanwhile, and as long as the SSI is not
 * set up for reads that the flash answers, nothing can be read there, nor executed. */
#include <stddef.h>

#include "devices.h"

enum {
    CTRLR0 = 0x00,
    CTRLR1 = 0x04,
    SSIENR = 0x08,
    SER = 0x10,
    BAUDR = 0x14,
    TXFLR = 0x20,
    RXFLR = 0x24,
    SR = 0x28,
    RISR = 0x34,
    ICR = 0x48,
    IDR = 0x58,
    VERSION = 0x5c,
    DR = 0x60,
    DR_END = 0xf0,
    SPI_CTRLR0 = 0xf4,
    REGISTERS = 0x100 / 4
};
enum { TX_AND_RX, TX_ONLY, RX_ONLY, EEPROM_READ }; /* TMOD */
enum { SR_BUSY = 1, SR_TFNF = 2, SR_TFE = 4, SR_RFNE = 8, SR_RFF = 16 };
enum { RISR_TXO = 1 << 1, RISR_RXU = 1 << 2, RISR_RXO = 1 << 3 };
#define SSI_ID 0x51535049u
#define SSI_VERSION 0x3430312au
#define XIP_COMMAND 0x03000000u /* SPI_CTRLR0 after a reset */

enum { XIP_CTRL = 0x00, XIP_FLUSH = 0x04, XIP_STAT = 0x08, XIP_REGISTERS = 8 };
enum { STAT_FLUSH_READY = 1, STAT_FIFO_EMPTY = 2, CTRL_RESET = 3 };

enum { SS_STATUS = 0x08, SS_CTRL = 0x0c, PIN_REGISTERS = 12 };
enum { NORMAL, INVERTED, LOW, HIGH }; /* OUTOVER */

enum { FIFO = 16, WINDOW = 0x1000000 };

struct fifo {
    uint32_t frames[FIFO];
    unsigned head, count;
};

struct ssi {
    struct bus bus;
    struct device window, xip, pins; /* the flash as code sees it; two blocks of registers */
    uint32_t clock_hz;
    uint32_t registers[REGISTERS], xip_registers[XIP_REGISTERS], pin_registers[PIN_REGISTERS];
    struct fifo tx, rx;
    uint64_t end; /* of the frame under way, or the whole read; NEVER: there is none */
    bool selected;
};

static uint32_t *at(struct ssi *s, uint32_t offset) {
    return &s->registers[offset / 4];
}

static void push(struct fifo *f, uint32_t frame) {
    f->frames[(f->head + f->count++) % FIFO] = frame;
}

static uint32_t pop(struct fifo *f) {
    uint32_t frame = f->frames[f->head];
    f->head = (f->head + 1) % FIFO;
    f->count--;
    return frame;
}

static unsigned mode(struct ssi *s) {
    return *at(s, CTRLR0) >> 8 & 3;
}

static unsigned frame_bits(struct ssi *s) {
    return (*at(s, CTRLR0) >> 16 & 31) + 1;
}

static unsigned lanes(struct ssi *s) {
    return 1u << (*at(s, CTRLR0) >> 21 & 3);
}

/* Of a read by SPI_CTRLR0. */
static unsigned address_bits(struct ssi *s) {
    return (*at(s, SPI_CTRLR0) >> 2 & 15) * 4;
}

static unsigned command_bits(struct ssi *s) {
    static const uint8_t bits[] = {0, 4, 8, 16};
    return bits[*at(s, SPI_CTRLR0) >> 8 & 3];
}

static unsigned wait_cycles(struct ssi *s) {
    return *at(s, SPI_CTRLR0) >> 11 & 31;
}

static uint64_t clocks_ns(struct ssi *s, uint64_t clocks) {
    uint32_t divider = *at(s, BAUDR) & 0xfffe;
    return clock_ns(clocks * (divider ? divider : 2), s->clock_hz);
}

static bool is_enabled(struct ssi *s) {
    return *at(s, SSIENR) & 1;
}

static unsigned override(const struct ssi *s) {
    return s->pin_registers[SS_CTRL / 4] >> 8 & 3;
}

/* The flash */

static uint32_t swap(struct mcu *m, struct ssi *s, uint32_t frame, unsigned bits) {
    uint32_t came = 0;
    for (unsigned left = bits; left >= 8; left -= 8) {
        uint8_t byte = 0xff;
        for (size_t i = 0; i < s->bus.count; i++) {
            byte &= s->bus.chips[i]->exchange(m, s->bus.chips[i], (uint8_t)(frame >> (left - 8)));
        }
        came = came << 8 | byte;
    }
    return came;
}

/* What the SSI is set up for now reaches the flash's cells, or nothing that code could use. */
static void show(struct mcu *m, struct ssi *s) {
    bool serves = is_enabled(s) && *at(s, SER) & 1 && mode(s) == EEPROM_READ &&
                  override(s) == NORMAL && s->end == NEVER;
    int command = command_bits(s) ? (int)(*at(s, SPI_CTRLR0) >> 24) : -1;
    for (size_t i = 0; i < s->bus.count; i++) {
        struct bus_chip *c = s->bus.chips[i];
        bool hidden = !serves || !c->gives(m, c, command);
        if (c->flash->hidden != hidden) {
            flash_hide(m, c->flash, hidden);
        }
    }
}

static void select_chips(struct mcu *m, struct ssi *s) {
    bool own = s->end != NEVER && *at(s, SER) & 1;
    const bool wanted[] = {own, !own, true, false};
    if (wanted[override(s)] == s->selected) {
        return;
    }
    s->selected = !s->selected;
    for (size_t i = 0; i < s->bus.count; i++) {
        s->bus.chips[i]->select(m, s->bus.chips[i], s->selected);
    }
    mcu_look_again(m, &s->bus.device);
}

static void receive(struct ssi *s, uint32_t frame) {
    if (s->rx.count == FIFO) {
        *at(s, RISR) |= RISR_RXO;
    } else {
        push(&s->rx, frame);
    }
}

/* A read with a command and an address, as SPI_CTRLR0 says: the frames that were given. */
static unsigned frames_of_read(struct ssi *s) {
    return (command_bits(s) != 0) + (address_bits(s) != 0);
}

static uint64_t read_ns(struct ssi *s) {
    unsigned data = ((*at(s, CTRLR1) & 0xffff) + 1) * frame_bits(s);
    return clocks_ns(s, command_bits(s) + wait_cycles(s) + (address_bits(s) + data) / lanes(s));
}

static void end_read(struct mcu *m, struct ssi *s) {
    if (command_bits(s)) {
        swap(m, s, pop(&s->tx), command_bits(s));
    }
    if (address_bits(s)) {
        swap(m, s, pop(&s->tx), address_bits(s));
    }
    for (unsigned bits = wait_cycles(s) * lanes(s); bits >= 8; bits -= 8) {
        swap(m, s, 0xff, 8);
    }
    for (uint32_t frames = (*at(s, CTRLR1) & 0xffff) + 1; frames; frames--) {
        receive(s, swap(m, s, 0, frame_bits(s)));
    }
    s->end = NEVER;
}

static void end_frame(struct mcu *m, struct ssi *s) {
    uint32_t came = swap(m, s, pop(&s->tx), frame_bits(s));
    if (mode(s) == TX_AND_RX) {
        receive(s, came);
    }
    s->end = s->tx.count ? s->end + clocks_ns(s, frame_bits(s)) : NEVER;
}

static void settle(struct mcu *m, struct device *d) {
    struct ssi *s = (struct ssi *)d;
    bus_settle(m, &s->bus);
    while (s->end <= mcu_now(m)) {
        if (mode(s) == EEPROM_READ) {
            end_read(m, s);
        } else {
            end_frame(m, s);
        }
    }
    select_chips(m, s);
    show(m, s);
}

/* Only what ends by itself is due: the pin that firmware forces changes when that says so. */
static uint64_t next(struct mcu *m, struct device *d) {
    struct ssi *s = (struct ssi *)d;
    (void)m;
    uint64_t last = NEVER;
    if (s->end != NEVER && override(s) < LOW) {
        unsigned more = mode(s) == EEPROM_READ ? 0 : s->tx.count - 1;
        last = s->end + more * clocks_ns(s, frame_bits(s));
    }
    return sooner(last, bus_next(&s->bus));
}

static void send(struct mcu *m, struct ssi *s, uint32_t frame) {
    if (!is_enabled(s) || mode(s) == RX_ONLY) {
        return;
    }
    if (s->tx.count == FIFO) {
        *at(s, RISR) |= RISR_TXO;
        return;
    }
    push(&s->tx, frame);
    if (s->end != NEVER) {
        return;
    }
    if (mode(s) != EEPROM_READ) {
        s->end = mcu_now(m) + clocks_ns(s, frame_bits(s));
    } else if (s->tx.count >= frames_of_read(s)) {
        s->end = mcu_now(m) + read_ns(s);
    }
    select_chips(m, s);
    show(m, s);
}

static uint32_t status(const struct ssi *s) {
    return (s->end != NEVER ? (uint32_t)SR_BUSY : 0) |
           (s->tx.count < FIFO ? (uint32_t)SR_TFNF : 0) | (s->tx.count ? 0 : (uint32_t)SR_TFE) |
           (s->rx.count ? (uint32_t)SR_RFNE : 0) | (s->rx.count == FIFO ? (uint32_t)SR_RFF : 0);
}

static uint32_t take(struct ssi *s) {
    if (s->rx.count) {
        return pop(&s->rx);
    }
    *at(s, RISR) |= RISR_RXU;
    return 0;
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct ssi *s = (struct ssi *)d;
    uint32_t reg = offset & ~3u, value;
    (void)m;
    switch (reg) {
    case SR:
        value = status(s);
        break;
    case TXFLR:
        value = s->tx.count;
        break;
    case RXFLR:
        value = s->rx.count;
        break;
    case IDR:
        value = SSI_ID;
        break;
    case VERSION:
        value = SSI_VERSION;
        break;
    case ICR:
        value = *at(s, RISR) != 0;
        *at(s, RISR) = 0;
        break;
    default:
        value = reg >= DR && reg < DR_END ? take(s) : *at(s, reg);
        break;
    }
    return part_of(value, offset, size);
}

/* Most registers hold what they are while the SSI is enabled. */
static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct ssi *s = (struct ssi *)d;
    uint32_t reg = offset & ~3u;
    if (reg >= DR && reg < DR_END) {
        send(m, s, value);
        return;
    }
    if (reg == TXFLR || reg == RXFLR || reg == SR || reg == RISR || reg == IDR || reg == VERSION) {
        return;
    }
    if (is_enabled(s) && (reg == CTRLR0 || reg == CTRLR1 || reg == BAUDR || reg == SPI_CTRLR0)) {
        return;
    }
    *at(s, reg) = with_part(*at(s, reg), offset, size, value);
    if (!is_enabled(s)) {
        s->tx = s->rx = (struct fifo){0};
        s->end = NEVER;
    }
    select_chips(m, s);
    show(m, s);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct ssi *s = (struct ssi *)d;
    memset(s->registers, 0, sizeof s->registers);
    *at(s, SPI_CTRLR0) = XIP_COMMAND;
    s->tx = s->rx = (struct fifo){0};
    s->end = NEVER;
    select_chips(m, s);
    bus_reset(m, &s->bus, kind);
    s->selected = false;
    show(m, s);
}

/* The flash where code reads it. Behind its end it begins again. */

static struct ssi *of_window(struct device *d) {
    return (struct ssi *)((char *)d - offsetof(struct ssi, window));
}

static uint32_t read_window(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct ssi *s = of_window(d);
    const struct flash *f = s->bus.count ? s->bus.chips[0]->flash : NULL;
    uint32_t value = 0;
    if (!f || f->hidden) {
        fault(m, FAULT_FLASH_HIDDEN, f ? f->first + offset % f->size : offset, 0);
        return 0;
    }
    note_cells(m, f, offset % f->size, size);
    memcpy(&value, f->cells + offset % f->size, size);
    return value;
}

static void write_window(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                         uint32_t value) {
    struct ssi *s = of_window(d);
    const struct flash *f = s->bus.count ? s->bus.chips[0]->flash : NULL;
    (void)size;
    fault(m, FAULT_FLASH_STRAY, f ? f->first + offset % f->size : offset, value);
}

static void settle_window(struct mcu *m, struct device *d) {
    settle(m, &of_window(d)->bus.device);
}

static void reset_nothing(struct mcu *m, struct device *d, enum reset_kind kind) {
    (void)m;
    (void)d;
    (void)kind;
}

/* The cache */

static struct ssi *of_xip(struct device *d) {
    return (struct ssi *)((char *)d - offsetof(struct ssi, xip));
}

static uint32_t read_xip(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const uint32_t *registers = of_xip(d)->xip_registers;
    uint32_t reg = offset & ~3u;
    (void)m;
    uint32_t value = reg == XIP_FLUSH          ? 1
                     : reg == XIP_STAT         ? (uint32_t)STAT_FLUSH_READY | STAT_FIFO_EMPTY
                     : reg / 4 < XIP_REGISTERS ? registers[reg / 4]
                                               : 0;
    return part_of(value, offset, size);
}

static void write_xip(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                      uint32_t value) {
    uint32_t *registers = of_xip(d)->xip_registers;
    (void)m;
    if (offset / 4 < XIP_REGISTERS) {
        registers[offset / 4] = with_part(registers[offset / 4], offset, size, value);
    }
}

static void reset_xip(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct ssi *s = of_xip(d);
    (void)m;
    (void)kind;
    memset(s->xip_registers, 0, sizeof s->xip_registers);
    s->xip_registers[XIP_CTRL] = CTRL_RESET;
}

/* The pins */

static struct ssi *of_pins(struct device *d) {
    return (struct ssi *)((char *)d - offsetof(struct ssi, pins));
}

static uint32_t read_pins(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    enum { OUTTOPAD = 1 << 9, INFROMPAD = 1 << 17, OETOPAD = 1 << 13 };
    struct ssi *s = of_pins(d);
    uint32_t reg = offset & ~3u, value = s->pin_registers[reg / 4];
    (void)m;
    if (reg == SS_STATUS) {
        value = OETOPAD | (s->selected ? 0 : (uint32_t)OUTTOPAD | INFROMPAD);
    }
    return part_of(value, offset, size);
}

static void write_pins(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                       uint32_t value) {
    struct ssi *s = of_pins(d);
    uint32_t *reg = &s->pin_registers[offset / 4];
    settle(m, &s->bus.device);
    *reg = with_part(*reg, offset, size, value);
    select_chips(m, s);
    show(m, s);
    mcu_look_again(m, &s->bus.device);
}

static void reset_pins(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct ssi *s = of_pins(d);
    (void)kind;
    memset(s->pin_registers, 0, sizeof s->pin_registers);
    select_chips(m, s);
    show(m, s);
}

static void free_all(struct device *d) {
    bus_free(&of_pins(d)->bus.device);
}

struct bus *ssi_bus(struct device *d) {
    assert(d && d->read == read);
    return &((struct ssi *)d)->bus;
}

void ssi_rp2040_add(struct mcu *m, const struct device_place *place) {
    struct ssi *s = device_memory(m, sizeof *s);
    s->bus.device = (struct device){.base = place->base,
                                    .size = sizeof s->registers,
                                    .read = read,
                                    .write = write,
                                    .reset = reset,
                                    .next = next,
                                    .settle = settle,
                                    .lose_power = bus_lose_power,
                                    .outside = true};
    s->window = (struct device){.base = place->numbers[1],
                                .size = WINDOW,
                                .read = read_window,
                                .write = write_window,
                                .reset = reset_nothing,
                                .settle = settle_window};
    s->xip = (struct device){.base = place->numbers[2],
                             .size = 0x1000,
                             .read = read_xip,
                             .write = write_xip,
                             .reset = reset_xip};
    s->pins = (struct device){.base = place->numbers[3],
                              .size = sizeof s->pin_registers,
                              .read = read_pins,
                              .write = write_pins,
                              .reset = reset_pins,
                              .free = free_all}; /* the last one, by their addresses */
    assert(s->pins.base > place->base && place->base > s->xip.base && s->xip.base > s->window.base);
    s->clock_hz = place->numbers[0];
    s->end = NEVER;
    mcu_add_device(m, &s->bus.device);
    mcu_add_device(m, &s->window);
    mcu_add_device(m, &s->xip);
    mcu_add_device(m, &s->pins);
}
