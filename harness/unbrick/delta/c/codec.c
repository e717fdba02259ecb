/* The terminal's decoder, compiled so that every decision can also be told what must come of it.
 * What it is told is `struct wanted`; what it writes goes into `struct coder_sink`. One unit of
 * compilation, so that the compiler sees through all of it. */
#define DELTA_ENCODES

#include "codec.h"

#include <stdlib.h>

#include "lib/delta_state.h"

/* ---- What must come of a decision; 0 while it decodes ---- */

struct wanted {
    const struct codec_plan *plan;
    uint32_t locals; /* behind us */
    struct codec_counts *counts;
};

/* The segment whose numbers come, whether in the table or not. */
static const struct codec_segment *wanted_segment(const struct delta *delta) {
    const struct wanted *const wanted = delta->wanted;
    return delta->state == TABLE ? &wanted->plan->table[delta->known]
                                 : &wanted->plan->local[wanted->locals];
}

static uint32_t wanted_gap(const struct delta *delta) {
    return delta->wanted == NULL ? 0 : wanted_segment(delta)->new - delta->span.new;
}

static uint32_t wanted_jump(const struct delta *delta) {
    if (delta->wanted == NULL) {
        return 0;
    }
    const int32_t jump =
        (int32_t)wanted_segment(delta)->old - (int32_t)(delta->span.old + delta->gap);
    return jump > 0 ? (uint32_t)jump * 2 - 1 : (uint32_t)-jump * 2;
}

static uint32_t wanted_length(const struct delta *delta) {
    return delta->wanted == NULL ? 0 : wanted_segment(delta)->length;
}

static uint32_t wanted_behind(const struct delta *delta) {
    if (delta->wanted == NULL || delta->wanted->plan->digest == 0) {
        return 0;
    }
    return delta->wanted->plan->new_length - delta->wanted->plan->digest;
}

static uint32_t wanted_before(const struct delta *delta) {
    return delta->wanted == NULL ? 0 : delta->wanted->plan->digest - delta->wanted->plan->hashed;
}

/* Whether a segment follows that is not in the table; the one before it is behind us then. */
static uint32_t wants_local(struct delta *delta) {
    struct wanted *const wanted = delta->wanted;
    if (wanted == NULL) {
        return 0;
    }
    const struct codec_plan *const plan = wanted->plan;
    while (wanted->locals < plan->locals && plan->local[wanted->locals].new < delta->place) {
        wanted->locals++;
    }
    return wanted->locals < plan->locals && plan->local[wanted->locals].new < delta->limit;
}

static uint32_t wanted_bytes(const struct delta *delta, uint32_t p, uint32_t size) {
    uint32_t value = 0;
    for (uint32_t i = 0; delta->wanted != NULL && i < size; i++) {
        value |= (uint32_t)delta->wanted->plan->new[p + i] << (8 * i);
    }
    return value;
}

static uint32_t wanted_new(const struct delta *delta, uint32_t p, uint32_t size) {
    if (delta->wanted != NULL) {
        delta->wanted->counts->fresh += size;
    }
    return wanted_bytes(delta, p, size);
}

static uint32_t wanted_unit(const struct delta *delta, const struct unit *unit, uint32_t p) {
    const uint32_t bytes = wanted_bytes(delta, p, unit->size);
    const uint32_t value =
        unit->size == 4 && unit->kind < POOL_IMAGE ? swapped(delta, bytes) : bytes;
    if (delta->wanted != NULL && value == unit->raw) {
        delta->wanted->counts->copied += unit->size;
    }
    return value;
}

static uint32_t count_missed(const struct delta *delta, const struct unit *unit, uint32_t value) {
    if (delta->wanted != NULL) {
        delta->wanted->counts->fresh += unit->size;
    }
    return value;
}

#include "lib/delta.c"
#include "lib/delta_code.c"
#include "lib/delta_coder.c"
#include "lib/delta_image.c"
#include "lib/delta_predict.c"

__attribute__((constructor)) static void fill_stretched(void) {
    for (uint32_t p = 0; p < 1 << 16; p++) {
        stretched[p] = (int16_t)stretch(p);
        stretched_slots[p >> 4] = (int16_t)stretch((p & 0xFFF0u) | 8);
    }
}

/* ---- The range encoder ---- */

struct coder_sink {
    uint64_t low;
    uint32_t range;
    uint32_t pending; /* bytes of 0xFF that wait, because a carry may yet come */
    int held;         /* the byte before them; -1 at the start */
    uint8_t *out;
    size_t size;
    size_t count; /* may be beyond `size` */
};

static void put_byte(struct coder_sink *sink, uint32_t byte) {
    if (sink->count < sink->size) {
        sink->out[sink->count] = (uint8_t)byte;
    }
    sink->count++;
}

/* Moves the highest byte out. */
static void shift_out(struct coder_sink *sink) {
    if (sink->low < 0xFF000000u || sink->low > 0xFFFFFFFFu) {
        const uint32_t carry = (uint32_t)(sink->low >> 32);
        if (sink->held >= 0) {
            put_byte(sink, (uint32_t)sink->held + carry);
        }
        for (; sink->pending > 0; sink->pending--) {
            put_byte(sink, 0xFF + carry);
        }
        sink->held = (int)(sink->low >> 24 & 255);
    } else {
        sink->pending++;
    }
    sink->low = sink->low << 8 & 0xFFFFFFFFu;
}

static uint32_t put_bit(struct coder_sink *sink, uint32_t p, uint32_t bit) {
    const uint32_t bound = (sink->range >> 16) * p;
    if (bit != 0) {
        sink->range = bound;
    } else {
        sink->low += bound;
        sink->range -= bound;
    }
    while (sink->range < TOP) {
        sink->range <<= 8;
        shift_out(sink);
    }
    return bit;
}

/* The fewest bytes that say where in the range we are. A decoder reads zeros beyond them. */
static void finish_sink(struct coder_sink *sink) {
    for (int zeros = 32; zeros >= 0; zeros -= 8) {
        const uint64_t unit = (uint64_t)1 << zeros;
        const uint64_t rounded = (sink->low + unit - 1) & ~(unit - 1);
        if (rounded < sink->low + sink->range) {
            sink->low = rounded;
            break;
        }
    }
    for (int i = 0; i < 5; i++) {
        shift_out(sink);
    }
    for (int spare = 4; spare > 0 && sink->count > 0 && sink->count <= sink->size; spare--) {
        if (sink->out[sink->count - 1] != 0) {
            break;
        }
        sink->count--;
    }
}

/* ---- Both directions ---- */

int64_t codec_encode(const struct codec_plan *plan, codec_sha256 *sha256, uint8_t *out, size_t size,
                     struct codec_counts *counts) {
    uint64_t *const memory = malloc(DELTA_MAX_MEMORY);
    uint8_t *const image = malloc(plan->new_length);
    struct coder_sink sink = {0, 0xFFFFFFFFu, 0, -1, out, size, 0};
    struct wanted wanted = {plan, 0, counts};
    const struct delta_job job = {
        .base = plan->old,
        .base_size = plan->old_length,
        .image = image,
        .image_size = plan->new_length,
        .memory = memory,
        .memory_size = DELTA_MAX_MEMORY,
        .sha256 = sha256,
    };
    *counts = (struct codec_counts){0, 0};
    int error = DELTA_NO_MEMORY;
    if (memory != NULL && image != NULL) {
        struct delta *const delta = delta_begin(&job, plan->header, &error);
        if (delta != NULL) {
            delta->wanted = &wanted;
            delta->coder.sink = &sink;
            error = delta_finish(delta);
            finish_sink(&sink);
        }
    }
    free(image);
    free(memory);
    return error == DELTA_OK ? (int64_t)sink.count : error;
}

int codec_decode(const uint8_t *old, uint32_t old_length, const uint8_t *file, size_t file_length,
                 codec_sha256 *sha256, uint8_t *image, uint32_t length) {
    uint64_t *const memory = malloc(DELTA_MAX_MEMORY);
    const struct delta_job job = {
        .base = old,
        .base_size = old_length,
        .image = image,
        .image_size = length,
        .memory = memory,
        .memory_size = DELTA_MAX_MEMORY,
        .sha256 = sha256,
    };
    int error = DELTA_NO_MEMORY;
    if (file_length < DELTA_HEADER_SIZE) {
        error = DELTA_TRUNCATED;
    } else if (memory != NULL) {
        struct delta *const delta = delta_begin(&job, file, &error);
        if (delta != NULL) {
            delta_feed(delta, file + DELTA_HEADER_SIZE, file_length - DELTA_HEADER_SIZE);
            error = delta_finish(delta);
        }
    }
    free(memory);
    return error;
}
