#include "app/pool.h"

#include <string.h>

#define ALIGNMENT 64u
#define MAX_REGIONS 16u

/* Sorted by address, so that the free blocks are the gaps between neighbours. */
static struct {
    uintptr_t address;
    uint32_t size;
    size_t count;
    struct pool_region regions[MAX_REGIONS];
} pool;

void pool_init(uintptr_t address, uint32_t size) {
    memset(&pool, 0, sizeof pool);
    pool.address = address;
    pool.size = size - size % ALIGNMENT;
}

/* The free block before region `index` (or the end of the pool). */
static struct pool_region gap_before(size_t index) {
    const struct pool_region *before = index > 0 ? &pool.regions[index - 1] : NULL;
    uintptr_t start = before ? before->address + before->size : pool.address;
    uintptr_t end = index < pool.count ? pool.regions[index].address : pool.address + pool.size;
    return (struct pool_region){.address = start, .size = (uint32_t)(end - start)};
}

void *pool_take(const char *holder, uint32_t size) {
    if (size == 0 || size > pool.size || pool.count == MAX_REGIONS) {
        return NULL;
    }
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (size_t i = 0; i <= pool.count; i++) {
        struct pool_region gap = gap_before(i);
        if (gap.size < size) {
            continue;
        }
        memmove(&pool.regions[i + 1], &pool.regions[i], (pool.count - i) * sizeof pool.regions[0]);
        pool.regions[i] = (struct pool_region){holder, gap.address, size};
        pool.count++;
        return (void *)gap.address;
    }
    return NULL;
}

void pool_give(const void *memory) {
    for (size_t i = 0; i < pool.count; i++) {
        if (pool.regions[i].address == (uintptr_t)memory) {
            pool.count--;
            memmove(&pool.regions[i], &pool.regions[i + 1],
                    (pool.count - i) * sizeof pool.regions[0]);
            return;
        }
    }
}

uint32_t pool_largest_free(void) {
    uint32_t largest = 0;
    for (size_t i = 0; i <= pool.count; i++) {
        uint32_t size = gap_before(i).size;
        largest = size > largest ? size : largest;
    }
    return largest;
}

uint32_t pool_free(void) {
    uint32_t sum = 0;
    for (size_t i = 0; i <= pool.count; i++) {
        sum += gap_before(i).size;
    }
    return sum;
}

uint32_t pool_size(void) {
    return pool.size;
}

const struct pool_region *pool_region(size_t index) {
    return index < pool.count ? &pool.regions[index] : NULL;
}
