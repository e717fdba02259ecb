/* A UART. Source: Arm DDI 0183 (PL011). The line's speed is the host's: the divisors are not looked
 * at, nor the parity. */
#include "devices.h"

enum {
    DR = 0x00,
    RSR = 0x04,
    FR = 0x18,
    IBRD = 0x24,
    LCRH = 0x2c,
    CR = 0x30,
    IFLS = 0x34,
    IMSC = 0x38,
    RIS = 0x3c,
    MIS = 0x40,
    ICR = 0x44,
    DMACR = 0x48,
    IDENTITY = 0xfe0
};
enum { FR_BUSY = 1 << 3, FR_RXFE = 1 << 4, FR_TXFF = 1 << 5, FR_RXFF = 1 << 6, FR_TXFE = 1 << 7 };
enum { CR_ON = 1 << 0, CR_TXE = 1 << 8, CR_RXE = 1 << 9, CR_RESET = CR_TXE | CR_RXE };
enum { INT_RX = 1 << 4, INT_TX = 1 << 5, INT_RT = 1 << 6, INT_OE = 1 << 10 };
enum { LCRH_FIFO = 1 << 4, DR_OVERRUN = 1 << 11, FIFO = 16, FRAME_BITS = 10 /* 8N1 */ };

struct pl011 {
    struct device device;
    struct line line;
    uint32_t interrupt;
    uint32_t registers[DMACR / 4 + 1];
    uint8_t fifo[FIFO];
    unsigned head, count;
    bool overrun;
    bool filled,
        drained;   /* the transmitter has more than half; it came down to that: DDI 0183, 2.8 */
    uint64_t sent; /* when all bytes will have been sent */
};

static unsigned depth(const struct pl011 *u) {
    return u->registers[LCRH / 4] & LCRH_FIFO ? FIFO : 1;
}

/* Bytes that wait to be shifted out, and the one that is. */
static unsigned waiting(struct mcu *m, const struct pl011 *u) {
    uint64_t now = mcu_now(m);
    return u->sent <= now ? 0 : (unsigned)((u->sent - now + u->line.byte_ns - 1) / u->line.byte_ns);
}

/* With the FIFO, reception asks at half of it, or after a pause, which here is none. */
static uint32_t raised(const struct pl011 *u) {
    return (u->count ? (uint32_t)INT_RX | INT_RT : 0) | (u->drained ? (uint32_t)INT_TX : 0) |
           (u->overrun ? (uint32_t)INT_OE : 0);
}

static void settle(struct mcu *m, struct device *d) {
    struct pl011 *u = (struct pl011 *)d;
    uint32_t cr = u->registers[CR / 4];
    while (line_next(&u->line) <= mcu_now(m)) {
        uint8_t byte = line_take(m, &u->line);
        if (!(cr & CR_ON) || !(cr & CR_RXE)) {
            continue;
        }
        if (u->count == depth(u)) {
            u->overrun = true;
            u->line.overruns++;
        } else {
            u->fifo[(u->head + u->count++) % FIFO] = byte;
        }
    }
    if (u->filled && waiting(m, u) <= depth(u) / 2) {
        u->filled = false;
        u->drained = true;
    }
    nvic_set_line(m, u->interrupt, raised(u) & u->registers[IMSC / 4]);
}

static void send(struct mcu *m, struct pl011 *u, uint8_t byte) {
    uint32_t on = CR_ON | CR_TXE;
    if ((u->registers[CR / 4] & on) != on || waiting(m, u) > depth(u)) {
        fault(m, FAULT_UART_LOST, u->device.base, byte);
        return;
    }
    u->sent = later(u->sent, mcu_now(m)) + u->line.byte_ns;
    line_send(m, &u->line, byte, u->sent);
    u->filled = waiting(m, u) > depth(u) / 2;
    u->drained = u->drained && !u->filled;
}

static uint32_t take(struct pl011 *u) {
    uint32_t value = u->count ? u->fifo[u->head] : 0;
    value |= u->overrun ? DR_OVERRUN : 0;
    if (u->count) {
        u->head = (u->head + 1) % FIFO;
        u->count--;
    }
    u->overrun = false;
    return value;
}

static uint32_t flags(struct mcu *m, const struct pl011 *u) {
    unsigned level = waiting(m, u);
    return (u->count ? 0 : (uint32_t)FR_RXFE) | (u->count == depth(u) ? (uint32_t)FR_RXFF : 0) |
           (level > depth(u) ? (uint32_t)FR_TXFF : 0) | (level <= 1 ? (uint32_t)FR_TXFE : 0) |
           (level ? (uint32_t)FR_BUSY : 0);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    static const uint8_t identity[8] = {0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
    struct pl011 *u = (struct pl011 *)d;
    uint32_t at = offset & ~3u, value;
    if (at == DR) {
        value = take(u);
        settle(m, d);
    } else if (at == FR) {
        value = flags(m, u);
    } else if (at == RSR) {
        value = u->overrun ? 1 << 3 : 0;
    } else if (at == RIS || at == MIS) {
        value = raised(u) & (at == MIS ? u->registers[IMSC / 4] : UINT32_MAX);
    } else if (at >= IDENTITY) {
        value = identity[(at - IDENTITY) / 4];
    } else {
        value = at <= DMACR ? u->registers[at / 4] : 0;
    }
    return part_of(value, offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct pl011 *u = (struct pl011 *)d;
    uint32_t at = offset & ~3u;
    if (at == DR) {
        send(m, u, (uint8_t)value);
    } else if (at == RSR) {
        u->overrun = false;
    } else if (at == ICR) {
        u->overrun = u->overrun && !(value & INT_OE);
        u->drained = u->drained && !(value & INT_TX);
    } else if (at >= IBRD && at <= DMACR && at != RIS && at != MIS && at != ICR) {
        u->registers[at / 4] = with_part(u->registers[at / 4], offset, size, value);
    }
    settle(m, d);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct pl011 *u = (struct pl011 *)d;
    (void)kind;
    memset(u->registers, 0, sizeof u->registers);
    u->registers[CR / 4] = CR_RESET;
    u->registers[IFLS / 4] = 0x12;
    u->head = u->count = 0;
    u->overrun = u->filled = u->drained = false;
    u->sent = 0;
    nvic_set_line(m, u->interrupt, false);
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct pl011 *u = (struct pl011 *)d;
    (void)m;
    uint32_t mask = u->registers[IMSC / 4];
    uint64_t when = mask & (INT_RX | INT_RT) ? line_next(&u->line) : NEVER;
    if (mask & INT_TX && u->filled) {
        when = sooner(when, u->sent - depth(u) / 2 * u->line.byte_ns);
    }
    return when;
}

void uart_pl011_add(struct mcu *m, const struct device_place *place) {
    assert(place->baud && place->interrupt != NO_INTERRUPT);
    struct pl011 *u = device_memory(m, sizeof *u);
    u->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    u->interrupt = place->interrupt;
    mcu_add_device(m, &u->device);
    mcu_add_line(m, &u->line, &u->device);
    u->line.byte_ns = clock_ns(FRAME_BITS, place->baud);
}
