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
    uint32_t copies; /* likewise */
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

/* The copy that begins here, or would be next. */
static const struct codec_copy *wanted_copy(const struct delta *delta) {
    static const struct codec_copy none;
    const struct wanted *const wanted = delta->wanted;
    const bool left = wanted != NULL && wanted->copies < wanted->plan->copy_count;
    return left ? &wanted->plan->copies[wanted->copies] : &none;
}

static uint32_t wants_copy(const struct delta *delta) {
    struct wanted *const wanted = delta->wanted;
    if (wanted == NULL) {
        return 0;
    }
    while (wanted->copies < wanted->plan->copy_count && wanted_copy(delta)->new < delta->place) {
        wanted->copies++;
    }
    return wanted->copies < wanted->plan->copy_count && wanted_copy(delta)->new == delta->place;
}

static uint32_t wanted_distance(const struct delta *delta) {
    const struct codec_copy *const copy = wanted_copy(delta);
    const int64_t unit = alignment(delta) + 1;
    if (copy->from_old == 0) {
        return (uint32_t)((delta->place - copy->from) / unit);
    }
    const int64_t distance = ((int64_t)copy->from - delta->source) / unit;
    return (uint32_t)(distance < 0 ? -2 * distance - 1 : 2 * distance);
}

static uint32_t wanted_units(const struct delta *delta) {
    return wanted_copy(delta)->length / (alignment(delta) + 1);
}

#include "lib/delta.c"
#include "lib/delta_code.c"
#include "lib/delta_coder.c"
#include "lib/delta_image.c"
#include "lib/delta_predict.c"

__attribute__((constructor)) static void fill_tables(void) {
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

/* What a job needs in memory. */
struct work {
    struct delta_header header;
    struct delta_job job;
    uint64_t memory[DELTA_MAX_MEMORY / 8];
};

static struct delta *begin(struct work *work, const uint8_t *header, size_t length, int *error) {
    work->job.memory = work->memory;
    work->job.memory_size = sizeof work->memory;
    *error = delta_parse_header(&work->header, header, length);
    return *error == DELTA_OK ? delta_begin(&work->job, &work->header, error) : NULL;
}

int64_t codec_encode(const struct codec_plan *plan, codec_sha256 *sha256, uint8_t *out, size_t size,
                     struct codec_counts *counts) {
    struct work *const work = calloc(1, sizeof *work);
    uint8_t *const image = malloc(plan->new_length);
    struct coder_sink sink = {.range = 0xFFFFFFFFu, .held = -1, .out = out, .size = size};
    struct wanted wanted = {.plan = plan, .counts = counts};
    int error = DELTA_NO_MEMORY;
    *counts = (struct codec_counts){0, 0};
    if (work != NULL && image != NULL) {
        work->job = (struct delta_job){
            .base = plan->old,
            .base_size = plan->old_length,
            .image = image,
            .image_size = plan->new_length,
            .sha256 = sha256,
        };
        struct delta *const delta = begin(work, plan->header, plan->header_length, &error);
        if (delta != NULL) {
            delta->wanted = &wanted;
            delta->coder.sink = &sink;
            error = delta_finish(delta);
            finish_sink(&sink);
        }
    }
    free(image);
    free(work);
    return error == DELTA_OK ? (int64_t)sink.count : error;
}

int codec_decode(const uint8_t *old, uint32_t old_length, const uint8_t *file, size_t file_length,
                 codec_sha256 *sha256, uint8_t *image, uint32_t length) {
    struct work *const work = calloc(1, sizeof *work);
    int error = DELTA_NO_MEMORY;
    if (work != NULL) {
        work->job = (struct delta_job){
            .base = old,
            .base_size = old_length,
            .image = image,
            .image_size = length,
            .sha256 = sha256,
        };
        struct delta *const delta = begin(work, file, file_length, &error);
        if (delta != NULL) {
            delta_feed(delta, file + work->header.size, file_length - work->header.size);
            error = delta_finish(delta);
        }
    }
    free(work);
    return error;
}
