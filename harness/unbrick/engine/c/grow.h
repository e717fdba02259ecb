/* Arrays that grow. */
#pragma once

#include <stdlib.h>

/* The array with room for `wanted` items of `size` bytes; `capacity` has how many fit. */
static inline void *grown(void *memory, size_t *capacity, size_t wanted, size_t size) {
    if (wanted <= *capacity) {
        return memory;
    }
    *capacity = wanted * 2;
    memory = realloc(memory, *capacity * size);
    if (!memory) {
        abort();
    }
    return memory;
}
