#include "board/timer.h"

#include "board/registers.h"
#include "board/uart.h"

#define TICKS_PER_US (BOARD_COUNTER_HZ / 1000000u)
/* Less than the 178 s after which the counter begins anew. */
#define LONGEST_SLEEP_US 60000000u

static uint32_t last_tick;
static uint64_t microseconds;

void timer_init(void) {
    last_tick = read32(BOARD_SYS_24MHZ);
    microseconds = 0;
}

uint64_t timer_now(void) {
    const uint32_t passed = (read32(BOARD_SYS_24MHZ) - last_tick) / TICKS_PER_US;
    last_tick += passed * TICKS_PER_US; /* what is left counts the next time */
    microseconds += passed;
    return microseconds;
}

void timer_sleep_until(uint64_t deadline) {
    const uint64_t now = timer_now();
    if (deadline <= now || !(read32(BOARD_UART0 + UART_FR) & UART_FR_RXFE) ||
        !(read32(BOARD_UART1 + UART_FR) & UART_FR_RXFE)) {
        return;
    }
    const uint64_t left = deadline - now;
    sleep_microseconds(left < LONGEST_SLEEP_US ? (uint32_t)left : LONGEST_SLEEP_US);
    timer_now();
}

void timer_delay(uint32_t wanted) {
    const uint64_t deadline = timer_now() + wanted;
    while (timer_now() < deadline) {
        timer_sleep_until(deadline);
        uart_poll();
    }
}
