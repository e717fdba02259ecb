/* The agent's own few words on UART0. */
#pragma once

#include <stdint.h>

void text_say(const char *text);
void text_say_number(uint32_t value);

/* Waits until everything has left the wire. */
void text_flush(void);
