/* The way from boot to the resident program. */
#pragma once

#include "resident/resident.h"

/* Copies the embedded program and `start` (all but its magic) to their places; returns the size of
 * the program, in bytes. */
uint32_t resident_load(const struct resident_start *start);

/* Starts what was loaded. */
_Noreturn void resident_run(void);
