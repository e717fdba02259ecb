/* The line console on the wire (UART0). */
#pragma once

#include "lib/print.h"

/* Says one line on the terminal's own account, "source: text" without a line end. When a prompt is
   shown it is moved below the line, with what was typed so far. */
void console_say(const char *format, ...) PRINT_FORMAT(1, 2);

/* Shows the first prompt. */
void console_start(void);

/* Takes what was typed and runs complete lines. */
void console_poll(void);

/* Leaves the prompt's line, because somebody else is going to write. */
void console_stop(void);
