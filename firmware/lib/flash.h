/* The NOR as the portable code sees it. Offsets and sizes are in bytes. */
#pragma once

#include <stdint.h>

struct flash {
    /* Where NOR offset 0 can be read. Prefer an alias that is not address 0: arithmetic on a null
     * pointer is undefined in C. */
    const uint8_t *base;
    uint32_t block_size; /* of an erase block, from CFI; a power of two */
    /* Clears bits; any alignment. 0, or an error of the driver. `data` lies in RAM: the flash
     * cannot be read while it is written. */
    int (*program)(void *ctx, uint32_t offset, const void *data, uint32_t length);
    /* Sets all bits of the block that starts at `offset`. 0, or an error of the driver. */
    int (*erase)(void *ctx, uint32_t offset);
    void *ctx;
};
