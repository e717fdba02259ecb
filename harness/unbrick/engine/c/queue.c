/* Bytes on a serial line; see queue.h. */
#include "queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void queue_put(struct byte_queue *q, uint8_t byte, uint64_t time) {
    assert(q->head + q->count <= q->capacity);
    if (q->head && q->head + q->count == q->capacity) {
        memmove(q->data, q->data + q->head, q->count);
        memmove(q->time, q->time + q->head, q->count * sizeof *q->time);
        q->head = 0;
    }
    if (q->count == q->capacity) {
        q->capacity = q->capacity ? q->capacity * 2 : 1024;
        q->data = realloc(q->data, q->capacity);
        q->time = realloc(q->time, q->capacity * sizeof *q->time);
        if (!q->data || !q->time) {
            abort();
        }
    }
    q->data[q->head + q->count] = byte;
    q->time[q->head + q->count] = time;
    q->count++;
}

void queue_drop(struct byte_queue *q, size_t n) {
    assert(n <= q->count);
    q->count -= n;
    q->head = q->count ? q->head + n : 0;
}

size_t queue_take(struct byte_queue *q, uint64_t now, uint8_t *data, size_t capacity) {
    assert(data || !capacity);
    size_t n = 0;
    while (n < capacity && n < q->count && q->time[q->head + n] <= now) {
        data[n] = q->data[q->head + n];
        n++;
    }
    queue_drop(q, n);
    return n;
}
