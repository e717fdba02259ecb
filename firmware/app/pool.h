/* The SRAM pool: regions of memory, each held by somebody with a name. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct pool_region {
    const char *holder; /* NUL-terminated, outlives the region */
    uintptr_t address;
    uint32_t size; /* bytes */
};

/* The pool is the `size` bytes at `address`, all free. */
void pool_init(uintptr_t address, uint32_t size);

/* A region of at least `size` bytes, first fit, aligned to 64 bytes; NULL when no free block is
   large enough or too many regions are held. Its contents are what was there before. */
void *pool_take(const char *holder, uint32_t size);

/* Gives back what pool_take returned. NULL is allowed. */
void pool_give(const void *memory);

/* The largest block that pool_take could give, in bytes. */
uint32_t pool_largest_free(void);

/* All free bytes, and all bytes. */
uint32_t pool_free(void);
uint32_t pool_size(void);

/* The region number `index` in the order of addresses; NULL after the last. */
const struct pool_region *pool_region(size_t index);
