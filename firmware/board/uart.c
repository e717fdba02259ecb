#include "board/uart.h"

#include "board/registers.h"

/* When the transmit FIFO is full: half of it is free again after 8 characters of 87 us. */
#define TRANSMIT_PAUSE_US 700u

static const uintptr_t bases[UART_COUNT] = {BOARD_UART0, BOARD_UART1};
static struct uart_ring rings[UART_COUNT];

void uart_init(enum uart_id id, uint8_t *buffer, uint32_t size) {
    enum {
        INTERRUPT_RX_RT = 0x50,
        FIFO_HALF = 0x12,
        WORD_8_FIFO = 0x70,
        ENABLE_TX_RX = 0x301,
        /* The divisor in 1/64: clock / (16 * baud). */
        DIVISOR = (4 * BOARD_UART_CLOCK_HZ + BOARD_BAUD / 2) / BOARD_BAUD,
    };
    const uintptr_t base = bases[id];
    rings[id] = (struct uart_ring){.data = buffer, .mask = size - 1};
    write32(base + UART_CR, 0);
    write32(base + UART_IBRD, DIVISOR / 64);
    write32(base + UART_FBRD, DIVISOR % 64);
    write32(base + UART_LCR_H, WORD_8_FIFO); /* makes the divisor count */
    write32(base + UART_IFLS, FIFO_HALF);
    write32(base + UART_ICR, 0x7ff);
    write32(base + UART_IMSC, INTERRUPT_RX_RT);
    write32(base + UART_CR, ENABLE_TX_RX);
}

struct uart_ring *uart_ring(enum uart_id id) {
    return &rings[id];
}

void uart_poll(void) {
    for (int id = 0; id < UART_COUNT; id++) {
        uart_drain(bases[id], &rings[id]);
    }
}

uint32_t uart_available(enum uart_id id) {
    return rings[id].head - rings[id].tail;
}

int uart_get(enum uart_id id) {
    struct uart_ring *ring = &rings[id];
    uart_drain(bases[id], ring);
    if (ring->head == ring->tail) {
        return -1;
    }
    const uint8_t byte = ring->data[ring->tail & ring->mask];
    ring->tail = ring->tail + 1;
    return byte;
}

bool uart_can_put(enum uart_id id) {
    return !(read32(bases[id] + UART_FR) & UART_FR_TXFF);
}

void uart_put(enum uart_id id, uint8_t byte) {
    while (!uart_can_put(id)) {
        uart_poll();
        sleep_microseconds(TRANSMIT_PAUSE_US);
    }
    write32(bases[id] + UART_DR, byte);
}

void uart_write(enum uart_id id, const void *data, size_t length) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) {
        uart_put(id, bytes[i]);
    }
}

void uart_flush(enum uart_id id) {
    for (;;) {
        const uint32_t flags = read32(bases[id] + UART_FR);
        if ((flags & UART_FR_TXFE) && !(flags & UART_FR_BUSY)) {
            return;
        }
        uart_poll();
        sleep_microseconds(100);
    }
}
