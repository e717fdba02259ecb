/* Time, from the 24 MHz counter, and sleep, by the SP804 timer and WFI. */
#pragma once

#include <stdint.h>

#define TIMER_NEVER UINT64_MAX

/* Time starts at 0 here. */
void timer_init(void);

/* Microseconds since timer_init. Must be called more often than every 178 s (timer_sleep_until
 * sees to that by itself). */
uint64_t timer_now(void);

/* Sleeps until the time `deadline` (microseconds, TIMER_NEVER: no deadline) or until a UART has
 * received something, whichever comes first. May return early: look at the time and at the UARTs
 * again. Returns at once when a receive FIFO is not empty. */
void timer_sleep_until(uint64_t deadline);

/* Waits for so many microseconds, draining the UARTs. */
void timer_delay(uint32_t microseconds);
