/* The end of this run of the software. */
#pragma once

#include "lib/print.h"

/* Says `panic: …` on the wire and starts boot again. During a trial that uses up one start. */
_Noreturn void panic(const char *format, ...) PRINT_FORMAT(1, 2);
