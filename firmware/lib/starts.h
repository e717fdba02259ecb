/* Counts the terminal's starts in the NOR, and never wears it: each start clears the next bit of a
 * partition that is never erased (docs/firmware.md, "The start counter").
 *
 * What is built on the count, the numbers of messages, must never be used twice. So a start counts
 * from when its bit is programmed and read back. A bit on which the power was cut reads as 0 or 1,
 * and belongs to no start: it is passed over, or programmed by the next. */
#pragma once

#include <stdint.h>

#include "lib/flash.h"

/* The highest count: as many starts have numbers (OSCORE_NUMBER_BITS of lib/oscore.h). */
#define STARTS_MAX ((1u << 20) - 1)

/* Counts this start in the partition of `size` bytes at `offset`, both of whole words. Returns the
 * count, from 1, which no other start has; 0: it cannot be counted, or there were too many. */
uint32_t starts_count(const struct flash *flash, uint32_t offset, uint32_t size);
