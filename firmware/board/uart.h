/* The two PL011s, 115200 8N1, polled. Each has a ring for what it received.
 *
 * A receive FIFO holds 16 bytes, 1.4 ms at 115200 baud: somebody has to call uart_poll (or anything
 * below that does) more often than that while bytes may arrive. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/agent.h"

enum uart_id { UART_WIRE = 0, UART_RADIO = 1, UART_COUNT };

/* Sets the UART up, with `size` bytes (a power of two) at `buffer` for what it receives. */
void uart_init(enum uart_id id, uint8_t *buffer, uint32_t size);

/* The ring of a UART, for agent->init and for whoever reads it directly. */
struct uart_ring *uart_ring(enum uart_id id);

/* Moves what arrived at both UARTs into their rings. */
void uart_poll(void);

/* The next received byte, or -1 when there is none. Looks at the hardware too. */
int uart_get(enum uart_id id);

/* Received bytes that wait in the ring. */
uint32_t uart_available(enum uart_id id);

/* Sends; waits for room in the FIFO when there is none, and drains both receivers meanwhile. */
void uart_put(enum uart_id id, uint8_t byte);
void uart_write(enum uart_id id, const void *data, size_t length);

/* Whether the transmit FIFO takes another byte at once. */
bool uart_can_put(enum uart_id id);

/* Waits until everything has left the wire, draining both receivers. */
void uart_flush(enum uart_id id);
