/* Memory that is there, or the process ends. */
#pragma once

#include <stdint.h>
#include <stdlib.h>

static inline void *need(void *memory) {
    if (!memory) {
        abort();
    }
    return memory;
}

/* The array with room for `wanted` items of `size` bytes; `room` has how many fit. */
static inline void *grown(void *memory, uint32_t *room, uint32_t wanted, size_t size) {
    if (wanted <= *room) {
        return memory;
    }
    *room = wanted < 4 ? 4 : wanted * 2;
    return need(realloc(memory, *room * size));
}
