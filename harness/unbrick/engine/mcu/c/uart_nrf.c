/* The UART of nRF52, and the UARTE, which is the same with EasyDMA; ENABLE says which it is.
 * Source: the product specifications, chapters UART and UARTE. Without flow control. */
#include "nrf.h"

enum {
    STARTRX = 0x000,
    STOPRX = 0x004,
    STARTTX = 0x008,
    STOPTX = 0x00c,
    SUSPEND = 0x01c, /* UART */
    FLUSHRX = 0x02c, /* UARTE */
    SHORTS = 0x200,
    ERRORSRC = 0x480,
    ENABLE = 0x500,
    RXD = 0x518, /* UART */
    TXD = 0x51c, /* UART */
    BAUDRATE = 0x524,
    RXD_PTR = 0x534,
    RXD_MAXCNT = 0x538,
    RXD_AMOUNT = 0x53c,
    TXD_PTR = 0x544,
    TXD_MAXCNT = 0x548,
    TXD_AMOUNT = 0x54c,
    CONFIG = 0x56c
};
enum {
    EVENT_RXDRDY = 2,
    EVENT_ENDRX = 4,
    EVENT_TXDRDY = 7,
    EVENT_ENDTX = 8,
    EVENT_ERROR = 9,
    EVENT_RXTO = 17,
    EVENT_RXSTARTED = 19,
    EVENT_TXSTARTED = 20,
    EVENT_TXSTOPPED = 22
};
enum { IS_OFF = 0, IS_UART = 4, IS_UARTE = 8 };
enum { SHORT_ENDRX_STARTRX = 1u << 5, SHORT_ENDRX_STOPRX = 1u << 6 };
enum { ERROR_OVERRUN = 1u << 0 };
enum { CONFIG_PARITY = 7u << 1, CONFIG_STOP = 1u << 4 };
#define BAUDRATE_RESET 0x04000000u /* 250000 baud */
#define BAUDRATE_HZ 16000000u      /* the clock that BAUDRATE is a part of, of 2^32 */
#define FIFO_SIZE 6u               /* bytes (UART, Reception) */
#define DATA_RAM 0x20000000u       /* where EasyDMA reads and writes */
#define REGISTERS 0x600u

struct uart {
    struct device device;
    struct line line;
    struct nrf nrf;
    uint32_t registers[REGISTERS / 4]; /* as written */
    uint32_t most;                     /* bytes of one transfer by EasyDMA */
    bool receives, transmits;
    uint8_t fifo[FIFO_SIZE];
    unsigned waiting; /* bytes in the FIFO; the UART's first is in RXD */
    bool filling;     /* EasyDMA has a buffer for what comes */
    uint32_t rx_at, rx_size, rx_done;
    uint32_t tx_at, tx_size, tx_done;
    uint64_t sent; /* when the byte that is being sent is out; NEVER: none is */
};

static uint32_t *at(struct uart *u, uint32_t offset) {
    return &u->registers[offset / 4];
}

static bool is_uart(struct uart *u, uint32_t kind) {
    return *at(u, ENABLE) == kind;
}

static void set_speed(struct uart *u) {
    uint32_t config = *at(u, CONFIG), rate = *at(u, BAUDRATE);
    uint64_t bits = 10 + ((config & CONFIG_PARITY) == CONFIG_PARITY) + !!(config & CONFIG_STOP);
    rate = rate ? rate : BAUDRATE_RESET;
    u->line.byte_ns = (bits * NS_PER_S << 28) / ((uint64_t)rate * (BAUDRATE_HZ >> 4));
}

/* EasyDMA reaches the data RAM alone: firmware that hands it something else is told so. */
static bool is_ram(struct mcu *m, struct uart *u, uint32_t address, uint32_t length) {
    uint8_t byte;
    bool there = !length || (address >= DATA_RAM && dma_read(m, address, &byte, 1) &&
                             dma_read(m, address + length - 1, &byte, 1));
    if (!there) {
        fault(m, FAULT_BUS, address, u->device.base);
    }
    return there;
}

/* Receiving */

static void lose(struct mcu *m, struct uart *u) {
    u->line.overruns++;
    *at(u, ERRORSRC) |= ERROR_OVERRUN;
    nrf_event(m, &u->nrf, EVENT_ERROR);
}

static void start_filling(struct mcu *m, struct uart *u) {
    uint32_t size = *at(u, RXD_MAXCNT) & u->most;
    u->rx_at = *at(u, RXD_PTR);
    u->rx_size = is_ram(m, u, u->rx_at, size) ? size : 0;
    u->rx_done = 0;
    u->filling = u->rx_size > 0;
    nrf_event(m, &u->nrf, EVENT_RXSTARTED);
}

static void stop_receiving(struct mcu *m, struct uart *u);

static void end_filling(struct mcu *m, struct uart *u) {
    uint32_t shorts = *at(u, SHORTS);
    u->filling = false;
    *at(u, RXD_AMOUNT) = u->rx_done;
    nrf_event(m, &u->nrf, EVENT_ENDRX);
    if (shorts & SHORT_ENDRX_STARTRX) {
        start_filling(m, u);
    } else if (shorts & SHORT_ENDRX_STOPRX) {
        stop_receiving(m, u);
    }
}

static void stop_receiving(struct mcu *m, struct uart *u) {
    if (!u->receives) {
        return;
    }
    u->receives = false;
    if (is_uart(u, IS_UARTE) && u->filling) {
        u->filling = false;
        *at(u, RXD_AMOUNT) = u->rx_done;
        nrf_event(m, &u->nrf, EVENT_ENDRX);
    }
    nrf_event(m, &u->nrf, EVENT_RXTO);
}

static uint8_t take_first(struct uart *u) {
    uint8_t byte = u->fifo[0];
    memmove(u->fifo, u->fifo + 1, --u->waiting);
    return byte;
}

static void fill(struct mcu *m, struct uart *u) {
    while (u->filling && u->waiting) {
        uint8_t byte = take_first(u);
        dma_write(m, u->rx_at + u->rx_done++, &byte, 1);
        if (u->rx_done == u->rx_size) {
            end_filling(m, u);
        }
    }
}

/* What came after the receiver was stopped goes to the buffer (UARTE, Reception). */
static void flush(struct mcu *m, struct uart *u) {
    uint32_t size = *at(u, RXD_MAXCNT) & u->most, at_address = *at(u, RXD_PTR), done = 0;
    while (u->waiting && done < size && is_ram(m, u, at_address, size)) {
        uint8_t byte = take_first(u);
        dma_write(m, at_address + done++, &byte, 1);
    }
    *at(u, RXD_AMOUNT) = done;
    nrf_event(m, &u->nrf, EVENT_ENDRX);
}

static void receive(struct mcu *m, struct uart *u) {
    uint8_t byte = line_take(m, &u->line);
    if (!u->receives) {
        return;
    }
    if (u->waiting == FIFO_SIZE) {
        lose(m, u);
        return;
    }
    u->fifo[u->waiting++] = byte;
    if (is_uart(u, IS_UARTE)) {
        nrf_event(m, &u->nrf, EVENT_RXDRDY);
        fill(m, u);
    } else if (u->waiting == 1) {
        nrf_event(m, &u->nrf, EVENT_RXDRDY);
    }
}

/* The next byte of the FIFO is announced as soon as it is in RXD. */
static uint32_t read_byte(struct mcu *m, struct uart *u) {
    if (u->waiting) {
        *at(u, RXD) = take_first(u);
        if (u->waiting) {
            nrf_event(m, &u->nrf, EVENT_RXDRDY);
        }
    }
    return *at(u, RXD);
}

/* Sending */

static void send(struct mcu *m, struct uart *u, uint8_t byte, uint64_t start) {
    u->sent = start + u->line.byte_ns;
    line_send(m, &u->line, byte, u->sent);
}

static void send_next(struct mcu *m, struct uart *u, uint64_t start) {
    uint8_t byte = 0;
    if (u->tx_done < u->tx_size) {
        dma_read(m, u->tx_at + u->tx_done, &byte, 1);
        send(m, u, byte, start);
    } else {
        *at(u, TXD_AMOUNT) = u->tx_done;
        u->tx_size = u->tx_done = 0;
        nrf_event(m, &u->nrf, EVENT_ENDTX);
    }
}

static void start_sending(struct mcu *m, struct uart *u) {
    u->transmits = true;
    if (!is_uart(u, IS_UARTE)) {
        return;
    }
    uint32_t size = *at(u, TXD_MAXCNT) & u->most;
    u->tx_at = *at(u, TXD_PTR);
    u->tx_size = is_ram(m, u, u->tx_at, size) ? size : 0;
    u->tx_done = 0;
    nrf_event(m, &u->nrf, EVENT_TXSTARTED);
    if (u->sent == NEVER) {
        send_next(m, u, mcu_now(m));
    }
}

static void stop_sending(struct mcu *m, struct uart *u) {
    u->transmits = false;
    u->tx_size = u->tx_size ? u->tx_done + (u->sent != NEVER) : 0;
    if (u->sent == NEVER) {
        nrf_event(m, &u->nrf, EVENT_TXSTOPPED);
    }
}

static void finish_byte(struct mcu *m, struct uart *u) {
    uint64_t when = u->sent;
    u->sent = NEVER;
    nrf_event(m, &u->nrf, EVENT_TXDRDY);
    if (u->tx_size) {
        u->tx_done++;
        send_next(m, u, when);
    }
    if (!u->transmits && u->sent == NEVER) {
        nrf_event(m, &u->nrf, EVENT_TXSTOPPED);
    }
}

static void send_byte(struct mcu *m, struct uart *u, uint8_t byte) {
    if (!is_uart(u, IS_UART) || !u->transmits || u->sent != NEVER) {
        fault(m, FAULT_UART_LOST, u->device.base + TXD, byte);
    } else {
        send(m, u, byte, mcu_now(m));
    }
}

/* Registers */

static void settle(struct mcu *m, struct device *d) {
    struct uart *u = (struct uart *)d;
    while (u->sent <= mcu_now(m)) {
        finish_byte(m, u);
    }
    while (line_next(&u->line) <= mcu_now(m)) {
        receive(m, u);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct uart *u = (struct uart *)d;
    uint32_t value;
    if (nrf_read(&u->nrf, offset & ~3u, &value)) {
        return part_of(value, offset, size);
    }
    if ((offset & ~3u) == RXD && is_uart(u, IS_UART)) {
        return part_of(read_byte(m, u), offset, size);
    }
    return offset < REGISTERS ? part_of(*at(u, offset), offset, size)
                              : plain_read(m, d->base + offset, size);
}

static void run_task(struct mcu *m, struct uart *u, uint32_t task) {
    if (is_uart(u, IS_OFF)) {
        return;
    }
    switch (task) {
    case STARTRX:
        u->receives = true;
        if (is_uart(u, IS_UARTE)) {
            start_filling(m, u);
            fill(m, u);
        }
        break;
    case STOPRX:
        stop_receiving(m, u);
        break;
    case STARTTX:
        start_sending(m, u);
        break;
    case STOPTX:
        stop_sending(m, u);
        break;
    case SUSPEND:
        stop_receiving(m, u);
        stop_sending(m, u);
        break;
    case FLUSHRX:
        flush(m, u);
        break;
    default:
        break;
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct uart *u = (struct uart *)d;
    if (nrf_write(m, &u->nrf, offset, value)) {
        return;
    }
    if (offset >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
        return;
    }
    value = with_part(*at(u, offset), offset, size, value);
    if (offset < EVENTS) {
        if (value & 1) {
            run_task(m, u, offset);
        }
    } else if (offset == TXD) {
        send_byte(m, u, (uint8_t)value);
    } else if (offset == ERRORSRC) {
        *at(u, ERRORSRC) &= ~value;
    } else if (offset != RXD_AMOUNT && offset != TXD_AMOUNT) {
        *at(u, offset) = value;
    }
    if (offset == ENABLE && is_uart(u, IS_OFF)) {
        u->receives = u->transmits = u->filling = false;
        u->waiting = u->tx_size = 0;
    }
    set_speed(u);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct uart *u = (struct uart *)d;
    (void)kind;
    memset(u->registers, 0, sizeof u->registers);
    *at(u, BAUDRATE) = BAUDRATE_RESET;
    u->receives = u->transmits = u->filling = false;
    u->waiting = u->tx_size = u->tx_done = 0;
    u->sent = NEVER;
    nrf_reset(m, &u->nrf);
    set_speed(u);
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct uart *u = (struct uart *)d;
    (void)m;
    return sooner(u->sent, u->nrf.enabled || u->filling ? line_next(&u->line) : NEVER);
}

void uart_nrf_add(struct mcu *m, const struct device_place *place) {
    assert(place->interrupt != NO_INTERRUPT && place->numbers[0] <= 16);
    struct uart *u = device_memory(m, sizeof *u);
    u->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    u->nrf = nrf_new(m, place->base, place->interrupt);
    u->most = (1u << place->numbers[0]) - 1;
    mcu_add_device(m, &u->device);
    mcu_add_line(m, &u->line, &u->device);
}
