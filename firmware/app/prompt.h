/* The console's line on the wire (UART0): the prompt, what is typed, what the terminal says. */
#pragma once

#include "lib/print.h"

/* Says one line on the terminal's own account, "source: text" without a line end. When a prompt is
   shown it is moved below the line, with what was typed so far. */
void console_say(const char *format, ...) PRINT_FORMAT(1, 2);

/* Shows the first prompt. */
void console_start(void);

/* Takes what was typed and hands complete lines to `run`, which may change them. */
void console_poll(void (*run)(char *line));

/* Leaves the prompt's line, because somebody else is going to write. */
void console_stop(void);
