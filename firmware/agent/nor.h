/* The driver of the pair of chips. Every call returns with the array readable again and must itself
 * lie outside the NOR. Results are of enum agent_status. */
#pragma once

#include <stdint.h>

#include "agent/agent.h"

int nor_open(struct uart_ring *uart0, struct uart_ring *uart1);
const struct nor_geometry *nor_geometry(void);
int nor_erase(uint32_t offset);
int nor_program(uint32_t offset, const void *data, uint32_t length);
int nor_lock_down(uint32_t offset, uint32_t length);
void nor_on_wait(void (*hook)(void));

/* Where `offset` of the NOR can be read. */
const uint8_t *nor_at(uint32_t offset);

/* Waits until the chips are ready, whatever they were doing, and makes them show their array. For
 * the way to a reset: the rings and the hook are forgotten. */
void nor_show_array(void);
