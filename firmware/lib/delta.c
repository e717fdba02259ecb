#include "lib/delta.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/delta_state.h"

/* ---- The header ---- */

static void parse_first(struct delta_header *header, const uint8_t *data) {
    header->isa = data[3];
    header->slots = data[4] & 15;
    header->repeats = data[4] >> 4;
    header->base_length = get24(data + 5);
    header->length = get24(data + 8);
    header->segments = (uint16_t)get16(data + 11);
    header->base_address = get32(data + 13);
    header->window = get16(data + 17) * WINDOW_UNIT;
    header->window_size = data[19] * (uint32_t)WINDOW_UNIT;
    header->base_digest_size = 16;
    header->digest_size = 8;
}

/* What the fourth byte of version 2 says beside the instruction set: which fields follow. */
enum { OTHER_LENGTH = 4, MANY_SEGMENTS = 8, HAS_ADDRESS = 16, HAS_WINDOW = 32, UNKNOWN = 192 };

static uint32_t second_size(uint8_t fields) {
    return DELTA_MIN_HEADER_SIZE + ((fields & OTHER_LENGTH) != 0 ? 3 : 0) +
           ((fields & MANY_SEGMENTS) != 0 ? 1 : 0) + ((fields & HAS_ADDRESS) != 0 ? 4 : 0) +
           ((fields & HAS_WINDOW) != 0 ? 3 : 0);
}

/* The fields up to the digests, all of which are there. */
static void parse_second(struct delta_header *header, const uint8_t *data) {
    const uint8_t fields = data[3];
    header->isa = (fields & UNKNOWN) != 0 ? UINT8_MAX : fields & 3;
    header->slots = data[4] & 15;
    header->repeats = data[4] >> 4;
    header->base_length = get24(data + 5);
    header->length = header->base_length;
    data += 8;
    if ((fields & OTHER_LENGTH) != 0) {
        header->length = get24(data);
        data += 3;
    }
    header->segments = *data++;
    if ((fields & MANY_SEGMENTS) != 0) {
        header->segments |= (uint16_t)(*data++ << 8);
    }
    if ((fields & HAS_ADDRESS) != 0) {
        header->base_address = get32(data);
        data += 4;
    }
    if ((fields & HAS_WINDOW) != 0) {
        header->window = get16(data) * WINDOW_UNIT;
        header->window_size = data[2] * (uint32_t)WINDOW_UNIT;
    }
    header->base_digest_size = 4;
    header->digest_size = 4;
}

/* Whether no field is there in vain: one file has one header. */
static bool is_shortest(const struct delta_header *header, uint8_t fields) {
    return ((fields & OTHER_LENGTH) == 0 || header->length != header->base_length) &&
           ((fields & MANY_SEGMENTS) == 0 || header->segments > 255) &&
           ((fields & HAS_ADDRESS) == 0 || header->base_address != 0) &&
           ((fields & HAS_WINDOW) == 0 || header->window_size != 0);
}

static bool is_sound(const struct delta_header *header) {
    return header->isa <= DELTA_ARM && header->slots >= MIN_LOG2 && header->slots <= MAX_LOG2 &&
           header->repeats >= MIN_LOG2 && header->repeats <= MAX_LOG2 && header->base_length != 0 &&
           header->length != 0 && (header->base_address & 3) == 0;
}

int delta_parse_header(struct delta_header *header, const uint8_t *data, size_t length) {
    memset(header, 0, sizeof *header);
    if (length < 4) {
        return DELTA_TRUNCATED;
    }
    if (data[0] != 'U' || data[1] != 'B' || data[2] == 0 || data[2] > 2) {
        return DELTA_BAD_MAGIC;
    }
    header->version = data[2];
    header->size = header->version == 1 ? DELTA_MAX_HEADER_SIZE : second_size(data[3]);
    if (length < header->size) {
        return DELTA_TRUNCATED;
    }
    if (header->version == 1) {
        parse_first(header, data);
    } else {
        parse_second(header, data);
    }
    const uint8_t *const digests =
        data + header->size - header->base_digest_size - header->digest_size;
    memcpy(header->base_digest, digests, header->base_digest_size);
    memcpy(header->digest, digests + header->base_digest_size, header->digest_size);
    if (!is_sound(header) || (header->version == 2 && !is_shortest(header, data[3]))) {
        return DELTA_BAD_HEADER;
    }
    header->memory =
        ((header->version == 1 ? FIXED_MEMORY : FIXED_MEMORY_2) + (2u << header->slots) +
         (2u << header->repeats) + (uint32_t)SEGMENT_MEMORY * header->segments + 7) &
        ~7u;
    return header->memory <= DELTA_MAX_MEMORY ? DELTA_OK : DELTA_BAD_HEADER;
}

static int check_job(const struct delta_header *header, const struct delta_job *job) {
    uint8_t digest[DELTA_SHA256_SIZE];
    if (job->base_size < header->base_length) {
        return DELTA_WRONG_BASE;
    }
    job->sha256(digest, job->base, header->base_length);
    if (memcmp(digest, header->base_digest, header->base_digest_size) != 0) {
        return DELTA_WRONG_BASE;
    }
    if (job->memory_size < header->memory || job->image_size < header->length ||
        ((uintptr_t)job->memory & 7) != 0) {
        return DELTA_NO_MEMORY;
    }
    return DELTA_OK;
}

/* Behind `struct delta` lie the coder's flags and weights, then its slots and repeats, then the
 * segments. */
static void lay_out(struct delta *delta) {
    const struct delta_header *const header = &delta->header;
    uint8_t *const memory = (uint8_t *)delta;
    const bool first = header->version == 1;
    uint16_t *const slots = (uint16_t *)(void *)(memory + (first ? FIXED_MEMORY : FIXED_MEMORY_2));
    uint16_t *const repeats = slots + (1u << header->slots);
    delta->segments = (struct segment *)(void *)(repeats + (1u << header->repeats));
    delta->order = (uint8_t *)(delta->segments + header->segments);
    uint32_t *const flags = (uint32_t *)(void *)(memory + STRUCT_MEMORY);
    const uint32_t count = first ? FLAGS_1 : CODER_FLAGS;
    const struct coder_areas areas = {
        .flags = flags,
        .flag_count = count,
        .weights = (int32_t (*)[CODER_INPUTS])(void *)(flags + count),
        .mixers = first ? MIXERS_1 : CODER_MIXERS,
        .slots = slots,
        .log2_slots = header->slots,
        .repeats = repeats,
        .log2_repeats = header->repeats,
    };
    coder_init(&delta->coder, &areas);
}

struct delta *delta_begin(const struct delta_job *job, const struct delta_header *header,
                          int *error) {
    ASSERT(job->base != NULL && job->image != NULL && job->memory != NULL);
    ASSERT(job->sha256 != NULL);
    ASSERT(header->memory != 0); /* it was parsed */
    ASSERT(job->image + job->image_size <= job->base || job->base + job->base_size <= job->image);
    *error = check_job(header, job);
    if (*error != DELTA_OK) {
        return NULL;
    }
    struct delta *const delta = job->memory;
    memset(delta, 0, sizeof *delta);
    delta->header = *header;
    delta->job = *job;
    lay_out(delta);
    struct coder *const coder = &delta->coder;
    coder_set_flags(coder, 0, FLAG_NEXT, 3984588, 1);                               /* 0.95 */
    coder_set_flags(coder, FLAG_NEXT, CODER_REPEAT_FLAGS - FLAG_NEXT, 1u << 21, 0); /* 0.5 */
    coder_set_flags(coder, CODER_REPEAT_FLAGS, FLAG_NUMBER - CODER_REPEAT_FLAGS, 2936012, 0);
    coder_set_flags(coder, FLAG_NUMBER, FLAG_LOCAL - FLAG_NUMBER, 1u << 21, 0);
    coder_set_flags(coder, FLAG_LOCAL, 1, 419430, 0); /* 0.1 */
    if (header->version > 1) {
        coder_set_flags(coder, FLAG_COPY, FLAG_COPY_NUMBER - FLAG_COPY, 838860, 0); /* 0.2 */
        coder_set_flags(coder, FLAG_COPY_NUMBER, CODER_FLAGS - FLAG_COPY_NUMBER, 1u << 21, 0);
    }
    delta->limit = header->length;
    return delta;
}

/* ---- The table ---- */

static uint32_t number_flag(struct delta *delta, uint32_t flag WANT(uint32_t bit)) {
    const uint16_t context = (uint16_t)flag;
    return coder_flag(&delta->coder, &context, 1, MIX_NUMBER WANT(bit));
}

/* A number below 2^25: its length in bits, then its bits. */
uint32_t delta_number(struct delta *delta, uint32_t kind WANT(uint32_t wanted)) {
    ASSERT(kind < NUMBERS);
    const uint32_t context = kind < DISTANCE_OLD
                                 ? FLAG_NUMBER + kind * NUMBER_FLAGS
                                 : FLAG_COPY_NUMBER + (kind - DISTANCE_OLD) * NUMBER_FLAGS;
    uint32_t length = 0;
    while (length < NUMBER_BITS &&
           number_flag(delta, context + length WANT(wanted >> length != 0)) != 0) {
        length++;
    }
    if (length == 0) {
        return 0;
    }
    uint32_t value = 1;
    for (uint32_t bit = length - 1; bit-- > 0;) {
        uint32_t here;
        if (bit == length - 2) {
            here = number_flag(delta, context + 25 + (bit < 6 ? bit : 6) WANT(wanted >> bit & 1));
        } else if (bit < 2) {
            here = number_flag(delta, context + 32 + bit * 4 + (value & 3) WANT(wanted >> bit & 1));
        } else {
            here = coder_bit(&delta->coder, 1u << 15 WANT(wanted >> bit & 1));
        }
        value = value << 1 | here;
    }
    return value;
}

/* The numbers of a segment, one a call: how far it is from the end of the last one in the new
 * image, how far in the old one, its length. */
static int read_gap(struct delta *delta) {
    delta->gap = delta_number(delta, GAP WANT(wanted_gap(delta)));
    if (delta->gap > delta->limit - delta->span.new) {
        return DELTA_MALFORMED;
    }
    delta->span.new += delta->gap;
    return DELTA_OK;
}

static int read_jump(struct delta *delta) {
    const uint32_t folded = delta_number(delta, JUMP WANT(wanted_jump(delta)));
    const int32_t distance =
        (folded & 1) != 0 ? (int32_t)((folded + 1) >> 1) : -(int32_t)(folded >> 1);
    const int32_t old = (int32_t)(delta->span.old + delta->gap) + distance;
    if (old < 0 || (uint32_t)old > delta->header.base_length) {
        return DELTA_MALFORMED;
    }
    delta->span.old = (uint32_t)old;
    return DELTA_OK;
}

static int read_length(struct delta *delta) {
    delta->span.length = delta_number(delta, LENGTH WANT(wanted_length(delta)));
    if (delta->span.length == 0 || delta->span.length > delta->limit - delta->span.new ||
        delta->span.length > delta->header.base_length - delta->span.old) {
        return DELTA_MALFORMED;
    }
    return DELTA_OK;
}

/* What follows the segment begins where it ends. */
static void end_span(struct delta *delta) {
    delta->span.new += delta->span.length;
    delta->span.old += delta->span.length;
    delta->span.length = 0;
}

/* Enters a segment that is in the table into the order. */
static void insert_ordered(struct delta *delta, uint32_t number) {
    ASSERT(number == delta->known);
    ASSERT(number < delta->header.segments);
    const uint32_t old = get24(delta->segments[number].old);
    uint32_t at = number;
    while (at > 0 && get24(ordered(delta, at - 1)->old) > old) {
        memcpy(delta->order + 2 * at, delta->order + 2 * (at - 1), 2);
        at--;
    }
    put_little(delta->order + 2 * at, 2, number);
}

static int add_segment(struct delta *delta) {
    const int error = read_length(delta);
    if (error != DELTA_OK) {
        return error;
    }
    struct segment *const segment = &delta->segments[delta->known];
    put_little(segment->new, 3, delta->span.new);
    put_little(segment->length, 3, delta->span.length);
    put_little(segment->old, 3, delta->span.old);
    insert_ordered(delta, delta->known);
    delta->known++;
    end_span(delta);
    return DELTA_OK;
}

static int set_digest(struct delta *delta, uint32_t before) {
    if (before > delta->digest || delta->header.length - delta->digest < DELTA_SHA256_SIZE) {
        return DELTA_MALFORMED;
    }
    delta->hashed = delta->digest - before;
    return DELTA_OK;
}

/* One number of the table. */
static int step_table(struct delta *delta) {
    const uint32_t number = delta->read++;
    int error = DELTA_OK;
    if (number == 0) {
        const uint32_t behind = delta_number(delta, GAP WANT(wanted_behind(delta)));
        if (behind > delta->header.length) {
            error = DELTA_MALFORMED;
        } else if (behind == 0) {
            delta->read++;
        } else {
            delta->digest = delta->header.length - behind;
        }
    } else if (number == 1) {
        error = set_digest(delta, delta_number(delta, JUMP WANT(wanted_before(delta))));
    } else if (number % 3 == 2) {
        error = read_gap(delta);
    } else if (number % 3 == 0) {
        error = read_jump(delta);
    } else {
        error = add_segment(delta);
    }
    if (error == DELTA_OK && delta->read >= 2 && delta->known == delta->header.segments) {
        memset(&delta->span, 0, sizeof delta->span);
        delta->state = NEXT;
    }
    return error;
}

/* ---- Walking ---- */

/* Before a segment of the table, or the end, others may come. */
static void step_next(struct delta *delta) {
    const bool last = delta->segment == delta->known;
    struct span next = {delta->header.length, delta->header.base_length, 0};
    if (!last) {
        const struct segment *const segment = &delta->segments[delta->segment];
        next = (struct span){get24(segment->new), get24(segment->old), get24(segment->length)};
    }
    delta->limit = next.new;
    delta->trained = false;
    delta->local =
        delta->place < next.new && number_flag(delta, FLAG_LOCAL WANT(wants_local(delta))) != 0;
    if (delta->local) {
        delta->state = LOCAL_GAP;
    } else if (last && delta->place == next.new) {
        delta->state = DONE;
    } else {
        delta->span = next;
        delta->state = SPAN;
    }
}

static int step_span(struct delta *delta) {
    const uint32_t end = delta->span.new + delta->span.length;
    ASSERT(delta->place <= end && end <= delta->header.length);
    ASSERT(delta->span.old + delta->span.length <= delta->header.base_length);
    int error = DELTA_OK;
    if (delta->place < delta->span.new) {
        error = delta_step_gap(delta, delta->span.new, delta->span.old);
    } else {
        if (delta->place == delta->span.new) {
            delta->source = delta->span.old;
        }
        if (delta->place < end) {
            error = delta_step_copy(delta, end);
        }
    }
    if (error == DELTA_OK && delta->place == end) {
        end_span(delta);
        if (!delta->local && delta->segment < delta->known) {
            delta->segment++;
        }
        delta->state = NEXT;
    }
    return error;
}

static int step_state(struct delta *delta) {
    int error = DELTA_OK;
    switch (delta->state) {
    case TABLE:
        return step_table(delta);
    case NEXT:
        step_next(delta);
        return DELTA_OK;
    case LOCAL_GAP:
        error = read_gap(delta);
        delta->state = LOCAL_JUMP;
        return error;
    case LOCAL_JUMP:
        error = read_jump(delta);
        delta->state = LOCAL_LENGTH;
        return error;
    case LOCAL_LENGTH:
        error = read_length(delta);
        delta->state = SPAN;
        return error;
    case SPAN:
        return step_span(delta);
    case DONE:
        break;
    }
    return DELTA_OK;
}

static void step(struct delta *delta) {
    delta_pace(delta);
    if (!delta->started) {
        coder_start(&delta->coder);
        delta->started = true;
    }
    const int error = step_state(delta);
    if (delta->coder.truncated) {
        delta->error = DELTA_TRUNCATED;
    } else if (error != DELTA_OK) {
        delta->error = error;
    }
}

int delta_feed(struct delta *delta, const uint8_t *data, size_t length) {
    ASSERT(data != NULL || length == 0);
    ASSERT(delta->place <= delta->header.length);
    while (delta->error == DELTA_OK && length > 0) {
        if (delta->state == DONE) {
            delta->error = DELTA_TRAILING;
            break;
        }
        const size_t taken = coder_take(&delta->coder, data, length);
        data += taken;
        length -= taken;
        while (delta->error == DELTA_OK && delta->state != DONE &&
               delta->coder.count >= STEP_INPUT) {
            step(delta);
        }
    }
    return delta->error;
}

/* Whether another file would give the same: one with other last bytes. */
static bool ends_badly(const struct delta *delta) {
#ifdef DELTA_ENCODES
    if (delta->wanted != NULL) {
        return false;
    }
#endif
    return delta->header.version > 1 && !coder_ends_well(&delta->coder);
}

int delta_finish(struct delta *delta) {
    ASSERT(delta->place <= delta->header.length);
    while (delta->error == DELTA_OK && delta->state != DONE) {
        step(delta);
    }
    if (delta->error == DELTA_OK && delta->coder.count > 0) {
        delta->error = DELTA_TRAILING;
    }
    if (delta->error == DELTA_OK && ends_badly(delta)) {
        delta->error = DELTA_MALFORMED;
    }
    if (delta->error == DELTA_OK) {
        uint8_t digest[DELTA_SHA256_SIZE];
        delta->job.sha256(digest, delta->job.image, delta->header.length);
        if (memcmp(digest, delta->header.digest, delta->header.digest_size) != 0) {
            delta->error = DELTA_WRONG_DIGEST;
        }
    }
    return delta->error;
}

uint32_t delta_rebuilt(const struct delta *delta) {
    return delta->place;
}

const char *delta_error_text(int error) {
    switch (error) {
    case DELTA_OK:
        return "no error";
    case DELTA_TRUNCATED:
        return "truncated";
    case DELTA_BAD_MAGIC:
        return "not a differential file";
    case DELTA_BAD_HEADER:
        return "malformed header";
    case DELTA_WRONG_BASE:
        return "made against another image";
    case DELTA_NO_MEMORY:
        return "not enough memory";
    case DELTA_MALFORMED:
        return "malformed";
    case DELTA_TRAILING:
        return "longer than it should be";
    case DELTA_WRONG_DIGEST:
        return "gives another image than it says";
    default:
        return "unknown differential file error";
    }
}
