/* Bytes on a serial line, each with the virtual time at which it has passed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct byte_queue {
    uint8_t *data;
    uint64_t *time;
    size_t head, count, capacity;
};

void queue_put(struct byte_queue *q, uint8_t byte, uint64_t time);

/* The first `n` bytes are gone; there are so many. */
void queue_drop(struct byte_queue *q, size_t n);

/* Takes the first bytes that have passed by `now`, at most `capacity`. Returns how many it took.
 */
size_t queue_take(struct byte_queue *q, uint64_t now, uint8_t *data, size_t capacity);
