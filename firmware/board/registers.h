/* Register access that all programs share, without any state. Everything here is
 * inlined, so that the agent has no code outside its own memory.
 *
 * Sources: Arm DDI 0183 (PL011), DDI 0271 (SP804), DUI 0447 (motherboard registers). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/agent.h"
#include "board_map.h"

enum pl011 {
    UART_DR = 0x00,
    UART_FR = 0x18,
    UART_IBRD = 0x24,
    UART_FBRD = 0x28,
    UART_LCR_H = 0x2c,
    UART_CR = 0x30,
    UART_IFLS = 0x34,
    UART_IMSC = 0x38,
    UART_ICR = 0x44,

    UART_DR_BAD = 0x700, /* break, parity or framing error */
    UART_FR_BUSY = 0x08,
    UART_FR_RXFE = 0x10,
    UART_FR_TXFF = 0x20,
    UART_FR_TXFE = 0x80,
    UART_FIFO_SIZE = 16,
};

/* SYS_CFGCTRL: start, write, function 9 (reboot) of the motherboard. */
#define SYS_CFGCTRL_REBOOT 0xc0900000u

enum sp804 {
    TIMER_LOAD = 0x00,
    TIMER_CONTROL = 0x08,
    TIMER_INTCLR = 0x0c,

    TIMER_ONE_SHOT_32_BIT = 0xa3, /* enabled, with interrupt */
};

static inline uint32_t read32(uintptr_t address) {
    return *(const volatile uint32_t *)address;
}

static inline void write32(uintptr_t address, uint32_t value) {
    *(volatile uint32_t *)address = value;
}

/* Resets the whole board: CPU, devices and the NOR chips. Boot starts at 0 and relies on nothing.
 */
_Noreturn static inline void board_reset(void) {
    write32(BOARD_SYS_CFGCTRL, SYS_CFGCTRL_REBOOT);
    for (;;) {
        __asm__ volatile("wfi");
    }
}

/* Moves what the UART received into the ring (NULL: away). Bounded, whatever the other side does.
 */
static inline void uart_drain(uintptr_t base, struct uart_ring *ring) {
    for (int i = 0; i < 2 * UART_FIFO_SIZE && !(read32(base + UART_FR) & UART_FR_RXFE); i++) {
        uint32_t data = read32(base + UART_DR);
        if (ring && !(data & UART_DR_BAD) && ring->head - ring->tail <= ring->mask) {
            ring->data[ring->head & ring->mask] = (uint8_t)data;
            ring->head = ring->head + 1;
        }
    }
}

/* Sleeps for `microseconds` (1 or more) or until a UART has received something. */
static inline void sleep_microseconds(uint32_t microseconds) {
    write32(BOARD_TIMER + TIMER_CONTROL, 0);
    write32(BOARD_TIMER + TIMER_INTCLR, 1);
    write32(BOARD_TIMER + TIMER_LOAD, microseconds);
    write32(BOARD_TIMER + TIMER_CONTROL, TIMER_ONE_SHOT_32_BIT);
    __asm__ volatile("dsb\n\twfi" ::: "memory");
    write32(BOARD_TIMER + TIMER_CONTROL, 0);
    write32(BOARD_TIMER + TIMER_INTCLR, 1);
}
