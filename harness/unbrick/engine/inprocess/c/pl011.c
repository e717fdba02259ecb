/* A UART. Source: Arm DDI 0183 (PL011). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

/* A byte goes behind those that pass before it. */
static void put(struct byte_queue *q, uint8_t byte, uint64_t time) {
    assert(q->count == 0 || q->time[q->head + q->count - 1] <= time);
    queue_put(q, byte, time);
}

static void uart_rate(struct uart *u) {
    uint64_t divisor = (uint64_t)u->ibrd * 64 + u->fbrd; /* in 1/64 */
    unsigned bits = 1 + 5 + (u->lcr >> 5 & 3) + (u->lcr >> 1 & 1) + 1 + (u->lcr >> 3 & 1);
    /* one bit is 16 * divisor / 64 cycles of 24 MHz */
    u->byte_ns = bits * divisor * 16 * 1000 / (64 * 24);
}

static bool uart_receives(const struct uart *u) {
    return (u->cr & 0x201) == 0x201;
}

/* Bytes whose stop bit has passed come into the FIFO; when it is full they are lost, as on the
 * chip. */
static void uart_settle(struct board *b, struct uart *u) {
    size_t taken = 0;
    while (taken < u->rx.count && u->rx.time[u->rx.head + taken] <= b->now) {
        uint8_t byte = u->rx.data[u->rx.head + taken];
        uint64_t at = u->rx.time[u->rx.head + taken++];
        if (!uart_receives(u)) {
            continue;
        }
        unsigned depth = u->lcr & 0x10 ? UART_FIFO : 1;
        if (u->fifo_count >= depth) {
            u->overrun = true;
            u->overruns++;
            continue;
        }
        u->fifo[(u->fifo_head + u->fifo_count++) % UART_FIFO] = byte;
        u->last_rx = at;
    }
    queue_drop(&u->rx, taken);
}

static unsigned uart_rx_trigger(const struct uart *u) {
    static const uint8_t levels[8] = {2, 4, 8, 12, 14, 2, 2, 2};
    return u->lcr & 0x10 ? levels[u->ifls >> 3 & 7] : 1;
}

static unsigned uart_tx_level(const struct board *b, const struct uart *u) {
    if (!u->byte_ns || u->tx_done <= b->now) {
        return 0;
    }
    return (unsigned)((u->tx_done - b->now + u->byte_ns - 1) / u->byte_ns);
}

static uint64_t uart_timeout(const struct uart *u) {
    return u->byte_ns * 32 / 10;
}

enum { INT_RX = 0x10, INT_TX = 0x20, INT_RT = 0x40, INT_OE = 0x400 };

static uint32_t uart_raw(struct board *b, struct uart *u) {
    uint32_t raw = 0;
    uart_settle(b, u);
    if (u->fifo_count >= uart_rx_trigger(u)) {
        raw |= INT_RX;
    }
    if (u->fifo_count && b->now >= u->last_rx + uart_timeout(u)) {
        raw |= INT_RT;
    }
    if (uart_tx_level(b, u) <= UART_FIFO / 8) {
        raw |= INT_TX;
    }
    if (u->overrun) {
        raw |= INT_OE;
    }
    return raw;
}

/* When the interrupt line of this UART goes up if nothing is read, NEVER if not from what is known.
 */
uint64_t uart_next(struct board *b, struct uart *u) {
    if (uart_raw(b, u) & u->imsc) {
        return b->now;
    }
    uint64_t next = NEVER;
    if (uart_receives(u) && u->imsc & (INT_RX | INT_RT)) {
        unsigned have = u->fifo_count;
        uint64_t last = u->last_rx;
        for (size_t i = 0;; i++) {
            uint64_t arrival = i < u->rx.count ? u->rx.time[u->rx.head + i] : NEVER;
            if (have && u->imsc & INT_RT && last + uart_timeout(u) < arrival) {
                return sooner(next, last + uart_timeout(u));
            }
            if (arrival == NEVER) {
                break;
            }
            last = arrival;
            if (++have >= uart_rx_trigger(u) && u->imsc & INT_RX) {
                return sooner(next, arrival);
            }
        }
    }
    if (u->imsc & INT_TX && u->byte_ns) {
        next = sooner(next, later(b->now, u->tx_done - sooner(u->tx_done, u->byte_ns * 2)));
    }
    return next;
}

void look_again(struct board *b) {
    if (b->stuck) {
        return;
    }
    b->end = b->until;
    for (int i = 0; i < 2; i++) {
        b->end = sooner(b->end, sooner(b->uarts[i].watched, b->uarts[i].idle));
    }
}

static void uart_send(struct board *b, struct uart *u, uint8_t byte) {
    if ((u->cr & 0x101) != 0x101 || !u->byte_ns || uart_tx_level(b, u) > UART_FIFO) {
        fault(b, FAULT_UART_LOST, (uint32_t)(u - b->uarts), byte);
        return;
    }
    u->tx_done = later(u->tx_done, b->now) + u->byte_ns;
    put(&u->tx, byte, u->tx_done);
    u->idle = u->tx_done;
    if (u->watch == byte && u->watched == NEVER) {
        u->watched = u->tx_done;
    }
    look_again(b);
}

uint32_t uart_read(struct board *b, struct uart *u, uint32_t reg) {
    static const uint8_t id[8] = {0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
    uart_settle(b, u);
    switch (reg) {
    case 0x00: {
        if (!u->fifo_count) {
            return 0;
        }
        uint32_t value = u->fifo[u->fifo_head];
        if (u->overrun) {
            value |= 0x800;
            u->overrun = false;
        }
        u->fifo_head = (u->fifo_head + 1) % UART_FIFO;
        u->fifo_count--;
        return value;
    }
    case 0x04:
        return u->errors;
    case 0x18: {
        unsigned level = uart_tx_level(b, u);
        return (u->fifo_count ? 0 : 0x10u) | (u->fifo_count >= UART_FIFO ? 0x40u : 0) |
               (level > UART_FIFO ? 0x20u : 0) | (level <= 1 ? 0x80u : 0) | (level ? 0x08u : 0);
    }
    case 0x24:
        return u->ibrd;
    case 0x28:
        return u->fbrd;
    case 0x2c:
        return u->lcr;
    case 0x30:
        return u->cr;
    case 0x34:
        return u->ifls;
    case 0x38:
        return u->imsc;
    case 0x3c:
        return uart_raw(b, u);
    case 0x40:
        return uart_raw(b, u) & u->imsc;
    case 0x48:
        return 0;
    default:
        if (reg >= 0xfe0) {
            return id[(reg - 0xfe0) / 4];
        }
        fault(b, FAULT_BOUNDS, reg, 0);
        return 0;
    }
}

void uart_write(struct board *b, struct uart *u, uint32_t reg, uint32_t value) {
    uart_settle(b, u);
    switch (reg) {
    case 0x00:
        uart_send(b, u, (uint8_t)value);
        break;
    case 0x04:
        u->errors = 0;
        u->overrun = false;
        break;
    case 0x24:
        u->ibrd = value & 0xffff;
        break;
    case 0x28:
        u->fbrd = value & 0x3f;
        break;
    case 0x2c: /* the divisor is taken over when LCR_H is written */
        u->lcr = value & 0xff;
        uart_rate(u);
        break;
    case 0x30:
        u->cr = value & 0xffff;
        break;
    case 0x34:
        u->ifls = value & 0x3f;
        break;
    case 0x38:
        u->imsc = value & 0x7ff;
        break;
    case 0x44:
        if (value & INT_OE) {
            u->overrun = false;
        }
        break;
    case 0x48:
        break;
    default:
        fault(b, FAULT_BOUNDS, reg, value);
        break;
    }
}

void uart_push(struct board *b, int uart, const uint8_t *data, size_t length) {
    assert(b->powered);
    struct uart *u = &b->uarts[uart];
    uint64_t byte_ns = u->byte_ns ? u->byte_ns : 86806; /* 115200 8N1 until the firmware says */
    for (size_t i = 0; i < length; i++) {
        u->rx_done = later(u->rx_done, b->now) + byte_ns;
        put(&u->rx, data[i], u->rx_done);
    }
}

void board_uart_push(struct board *b, int uart, const uint8_t *data, size_t length) {
    assert(uart == 0 || uart == 1);
    assert(data || length == 0);
    if (b->powered) {
        (b->stretches ? stretch_push : uart_push)(b, uart, data, length);
    }
}

size_t board_line_take(struct board *b, int uart, uint8_t *data, size_t capacity) {
    assert(uart == 0 || uart == 1);
    return queue_take(&b->uarts[uart].tx, b->now, data, capacity);
}

size_t board_uart_overruns(struct board *b, int uart) {
    stretches_arrive(b);
    return b->uarts[uart].overruns;
}

/* The host keeps what has been sent; what was still in a FIFO is lost. */
void uart_reset(struct board *b, struct uart *u) {
    struct byte_queue rx = u->rx, tx = u->tx;
    int watch = u->watch;
    size_t overruns = u->overruns;
    memset(u, 0, sizeof *u);
    u->tx = tx;
    u->rx = rx;
    u->rx.head = u->rx.count = 0;
    while (u->tx.count && u->tx.time[u->tx.head + u->tx.count - 1] > b->now) {
        u->tx.count--;
    }
    u->watch = watch;
    u->overruns = overruns;
    u->cr = 0x300;
    u->ifls = 0x12;
    u->watched = u->idle = NEVER;
}

void uart_free(struct uart *u) {
    free(u->rx.data);
    free(u->rx.time);
    free(u->tx.data);
    free(u->tx.time);
}

/* Whether the host wants to look now, at what was sent. */
bool uart_shows(struct board *b, struct uart *u) {
    bool shows = false;
    if (u->watched <= b->now) {
        u->watched = NEVER;
        shows = true;
    }
    if (u->idle <= b->now) {
        u->idle = NEVER;
        shows = true;
    }
    return shows;
}
