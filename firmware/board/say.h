/* Text on UART0, for people. */
#pragma once

#include "lib/print.h"

/* Formats as lib/print.h says and sends; LF becomes CR LF. */
void say(const char *format, ...) PRINT_FORMAT(1, 2);
