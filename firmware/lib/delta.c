#include "delta.h"

#include <string.h>

#include "delta_code.h"
#include "delta_coder.h"

enum {
    FIXED_MEMORY = 6656,
    SEGMENT_MEMORY = 11,
    WINDOW_UNIT = 1 << 16,
    MIN_LOG2 = 8,
    MAX_LOG2 = 12,
    STEP_INPUT = 112, /* bytes of the file that one step reads at most */
    POOL_WORDS = 1024,
    DICTIONARY = 128,
    NEIGHBOURS = 32,
    LOOK_BACK = 8,
    PARTNER = 28,
    TRAIN_BEFORE = 64,
    TRAIN_OLD = 128,
    NUMBER_BITS = 25,
};

/* Kinds of units of the old image. */
enum kind {
    BYTE,
    PLAIN,
    PLAIN_LONG,
    SHORT_BRANCH,
    SHORT_LOAD,
    BRANCH,
    LOAD,
    MOVE,
    POOL_IMAGE,
    POOL_WINDOW,
    POOL_OTHER,
    WORD_IMAGE,
    WORD_WINDOW,
};

enum { FLAG_NEXT = 672, FLAG_NUMBER = 820, FLAG_LOCAL = 940, NUMBER_FLAGS = 40 };
enum { MIX_NUMBER = 13, MIX_WORD = 14, MIX_MISS = 16, MIX_HIGH = 29, MIX_LOW = 30, MIX_BYTE = 31 };

/* What is read next: the table; whether a segment comes that is not in it, and its three numbers;
 * bytes of the image. */
enum state { TABLE, NEXT, LOCAL_GAP, LOCAL_JUMP, LOCAL_LENGTH, SPAN, DONE };

/* A segment while its numbers come, and while it is copied. */
struct span {
    uint32_t new;
    uint32_t old;
    uint32_t length;
};

struct segment {
    uint8_t new[3];
    uint8_t length[3];
    uint8_t old[3];
};

struct delta {
    struct delta_header header;
    struct delta_job job;
    struct coder coder;
    struct segment *segments;
    uint8_t *order; /* numbers of the segments by their place in the old image, two bytes each */
    int error;
    enum state state;
    bool started;
    uint32_t read;    /* numbers of the table */
    uint32_t known;   /* segments that are in it */
    uint32_t gap;     /* of the segment that is being read */
    struct span span; /* the segment that is being read or copied */
    uint32_t limit;   /* where it must end in the new image */
    bool local;       /* it is not in the table */
    uint32_t digest; /* where the image holds the SHA-256 of its first `hashed` bytes; 0: nowhere */
    uint32_t hashed;
    uint32_t segment; /* of the table, the one that is being copied or comes next */
    uint32_t place;   /* in the new image */
    uint32_t source;  /* in the old image; in a gap, the end of the last segment there */
    bool trained;     /* for the gap that `place` is in */
    uint32_t misses;
    uint32_t since;
    uint32_t difference;
    uint32_t near_count;
    uint32_t near_next;
    uint32_t pool[POOL_WORDS / 32];
    uint32_t keys[DICTIONARY];
    uint32_t values[DICTIONARY];
    uint8_t trust[DICTIONARY];
    uint32_t near_old[NEIGHBOURS];
    uint32_t near_delta[NEIGHBOURS];
};

_Static_assert(sizeof(struct delta) <= FIXED_MEMORY, "the format promises this much");
_Static_assert(sizeof(struct segment) + 2 == SEGMENT_MEMORY, "and this much for a segment");

/* A unit of the old image, what is known of it and what it is predicted to become. */
struct unit {
    enum kind kind;
    uint32_t size;
    uint32_t raw;
    uint32_t mapped;
    bool has_key;
    uint32_t key;
    uint32_t whole;
    bool top;
    uint32_t entry; /* of the dictionary */
    bool has_learned;
    uint32_t learned;
};

static uint32_t get24(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
}

static uint32_t get16(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get32(const uint8_t *at) {
    return get16(at) | get16(at + 2) << 16;
}

static void put_little(uint8_t *at, uint32_t size, uint32_t value) {
    for (uint32_t i = 0; i < size; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

/* From the order of the memory to that of an instruction, or back. */
static uint32_t swapped(const struct delta *delta, uint32_t word) {
    return delta->header.isa == DELTA_THUMB ? word >> 16 | word << 16 : word;
}

/* ---- The header ---- */

int delta_parse_header(struct delta_header *header, const uint8_t *data, size_t length) {
    static const uint8_t magic[3] = {'U', 'B', 1};
    memset(header, 0, sizeof *header);
    if (length < DELTA_HEADER_SIZE) {
        return DELTA_TRUNCATED;
    }
    if (memcmp(data, magic, sizeof magic) != 0) {
        return DELTA_BAD_MAGIC;
    }
    header->isa = data[3];
    header->slots = data[4] & 15;
    header->repeats = data[4] >> 4;
    header->base_length = get24(data + 5);
    header->length = get24(data + 8);
    header->segments = (uint16_t)get16(data + 11);
    header->base_address = get32(data + 13);
    header->window = get16(data + 17) * WINDOW_UNIT;
    header->window_size = data[19] * (uint32_t)WINDOW_UNIT;
    memcpy(header->base_digest, data + 20, DELTA_BASE_DIGEST_SIZE);
    memcpy(header->digest, data + 36, DELTA_DIGEST_SIZE);
    if (header->isa > DELTA_ARM || header->slots < MIN_LOG2 || header->slots > MAX_LOG2 ||
        header->repeats < MIN_LOG2 || header->repeats > MAX_LOG2 || header->base_length == 0 ||
        header->length == 0 || (header->base_address & 3) != 0) {
        return DELTA_BAD_HEADER;
    }
    header->memory = (FIXED_MEMORY + (2u << header->slots) + (2u << header->repeats) +
                      (uint32_t)SEGMENT_MEMORY * header->segments + 7) &
                     ~7u;
    return header->memory <= DELTA_MAX_MEMORY ? DELTA_OK : DELTA_BAD_HEADER;
}

static int check_job(const struct delta_header *header, const struct delta_job *job) {
    uint8_t digest[DELTA_SHA256_SIZE];
    if (job->base_size < header->base_length) {
        return DELTA_WRONG_BASE;
    }
    job->sha256(digest, job->base, header->base_length);
    if (memcmp(digest, header->base_digest, DELTA_BASE_DIGEST_SIZE) != 0) {
        return DELTA_WRONG_BASE;
    }
    if (job->memory_size < header->memory || job->image_size < header->length ||
        ((uintptr_t)job->memory & 7) != 0) {
        return DELTA_NO_MEMORY;
    }
    return DELTA_OK;
}

struct delta *delta_begin(const struct delta_job *job, const uint8_t header[DELTA_HEADER_SIZE],
                          int *error) {
    struct delta_header parsed;
    *error = delta_parse_header(&parsed, header, DELTA_HEADER_SIZE);
    if (*error == DELTA_OK) {
        *error = check_job(&parsed, job);
    }
    if (*error != DELTA_OK) {
        return NULL;
    }
    struct delta *const delta = job->memory;
    memset(delta, 0, sizeof *delta);
    delta->header = parsed;
    delta->job = *job;
    uint16_t *const slots = (uint16_t *)(void *)((uint8_t *)job->memory + FIXED_MEMORY);
    uint16_t *const repeats = slots + (1u << parsed.slots);
    delta->segments = (struct segment *)(void *)(repeats + (1u << parsed.repeats));
    delta->order = (uint8_t *)(delta->segments + parsed.segments);
    coder_init(&delta->coder, slots, parsed.slots, repeats, parsed.repeats);
    struct coder *const coder = &delta->coder;
    coder_set_flags(coder, 0, FLAG_NEXT, 3984588, 1);                               /* 0.95 */
    coder_set_flags(coder, FLAG_NEXT, CODER_REPEAT_FLAGS - FLAG_NEXT, 1u << 21, 0); /* 0.5 */
    coder_set_flags(coder, CODER_REPEAT_FLAGS, FLAG_NUMBER - CODER_REPEAT_FLAGS, 2936012, 0);
    coder_set_flags(coder, FLAG_NUMBER, FLAG_LOCAL - FLAG_NUMBER, 1u << 21, 0);
    coder_set_flags(coder, FLAG_LOCAL, 1, 419430, 0); /* 0.1 */
    delta->limit = parsed.length;
    return delta;
}

/* ---- The table ---- */

static uint32_t number_flag(struct delta *delta, uint32_t flag) {
    const uint16_t context = (uint16_t)flag;
    return coder_flag(&delta->coder, &context, 1, MIX_NUMBER);
}

/* A number below 2^25: its length in bits, then its bits. */
static uint32_t get_number(struct delta *delta, uint32_t kind) {
    const uint32_t context = FLAG_NUMBER + kind * NUMBER_FLAGS;
    uint32_t length = 0;
    while (length < NUMBER_BITS && number_flag(delta, context + length) != 0) {
        length++;
    }
    if (length == 0) {
        return 0;
    }
    uint32_t value = 1;
    for (uint32_t bit = length - 1; bit-- > 0;) {
        uint32_t here;
        if (bit == length - 2) {
            here = number_flag(delta, context + 25 + (bit < 6 ? bit : 6));
        } else if (bit < 2) {
            here = number_flag(delta, context + 32 + bit * 4 + (value & 3));
        } else {
            here = coder_bit(&delta->coder, 1u << 15);
        }
        value = value << 1 | here;
    }
    return value;
}

/* The numbers of a segment, one a call: how far it is from the end of the last one in the new
 * image, how far in the old one, its length. */
static int read_gap(struct delta *delta) {
    delta->gap = get_number(delta, 0);
    if (delta->gap > delta->limit - delta->span.new) {
        return DELTA_MALFORMED;
    }
    delta->span.new += delta->gap;
    return DELTA_OK;
}

static int read_jump(struct delta *delta) {
    const uint32_t folded = get_number(delta, 1);
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
    delta->span.length = get_number(delta, 2);
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

static const struct segment *ordered(const struct delta *delta, uint32_t at) {
    return &delta->segments[get16(delta->order + 2 * at)];
}

/* Enters a segment that is in the table into the order. */
static void insert_ordered(struct delta *delta, uint32_t number) {
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
        const uint32_t behind = get_number(delta, 0);
        if (behind > delta->header.length) {
            error = DELTA_MALFORMED;
        } else if (behind == 0) {
            delta->read++;
        } else {
            delta->digest = delta->header.length - behind;
        }
    } else if (number == 1) {
        error = set_digest(delta, get_number(delta, 1));
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

/* Where an offset in the old image should be in the new one. */
static int64_t map_offset(const struct delta *delta, uint32_t offset) {
    if (delta->known == 0) {
        return offset;
    }
    uint32_t low = 0;
    uint32_t high = delta->known; /* the first that begins beyond `offset` is in low..high */
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (get24(ordered(delta, middle)->old) <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const uint32_t last = low > 0 ? low - 1 : 0;
    for (uint32_t back = 0; back < LOOK_BACK && back <= last; back++) {
        const struct segment *const segment = ordered(delta, last - back);
        const uint32_t old = get24(segment->old);
        if (offset >= old && offset - old < get24(segment->length)) {
            return offset - old + get24(segment->new);
        }
    }
    const struct segment *const segment = ordered(delta, last);
    return (int64_t)offset - get24(segment->old) + get24(segment->new);
}

/* ---- What is predicted ---- */

static bool in_image(const struct delta *delta, uint32_t address) {
    const struct delta_header *const header = &delta->header;
    return address >= header->base_address && address - header->base_address <= header->base_length;
}

static bool in_window(const struct delta *delta, uint32_t address) {
    const struct delta_header *const header = &delta->header;
    return address >= header->window && address - header->window < header->window_size;
}

/* As the nearest address below that was learned, or else above, has moved. */
static uint32_t near_value(const struct delta *delta, uint32_t value) {
    bool has_below = false;
    bool has_above = false;
    uint32_t below = 0;
    uint32_t above = 0;
    uint32_t low = 0;
    uint32_t high = 0;
    for (uint32_t i = 0; i < delta->near_count; i++) {
        const uint32_t old = delta->near_old[i];
        if (old <= value && (!has_below || old > below)) {
            has_below = true;
            below = old;
            low = delta->near_delta[i];
        } else if (old > value && (!has_above || old < above)) {
            has_above = true;
            above = old;
            high = delta->near_delta[i];
        }
    }
    return value + (has_below ? low : high);
}

static uint32_t map_value(const struct delta *delta, uint32_t value) {
    const uint32_t base = delta->header.base_address;
    if (in_image(delta, value)) {
        return (uint32_t)(map_offset(delta, value - base) + base);
    }
    return in_window(delta, value) ? near_value(delta, value) : value;
}

/* Code at `place` loads from `target`: constants are there, no code. */
static void mark_pool(struct delta *delta, uint32_t place, int64_t target) {
    if (target > place && target - place <= 4096) {
        const uint32_t bit = (uint32_t)target >> 2 & (POOL_WORDS - 1);
        delta->pool[bit / 32] |= 1u << (bit % 32);
    }
}

static bool take_pool(struct delta *delta, uint32_t place) {
    const uint32_t bit = place >> 2 & (POOL_WORDS - 1);
    const bool marked = (delta->pool[bit / 32] >> (bit % 32) & 1) != 0;
    delta->pool[bit / 32] &= ~(1u << (bit % 32));
    return marked;
}

/* Whether a word of data is at `place`; then its kind. */
static bool is_word(struct delta *delta, uint32_t place, uint32_t word, enum kind *kind) {
    const bool pooled = take_pool(delta, place);
    if (in_image(delta, word)) {
        *kind = pooled ? POOL_IMAGE : WORD_IMAGE;
        return true;
    }
    if (in_window(delta, word)) {
        *kind = pooled ? POOL_WINDOW : WORD_WINDOW;
        return pooled || delta->header.isa != DELTA_THUMB || (word & 0xFFFF) < 0xE800;
    }
    *kind = POOL_OTHER;
    return pooled;
}

static void set_unit(struct unit *unit, enum kind kind, uint32_t size, uint32_t raw) {
    memset(unit, 0, sizeof *unit);
    unit->kind = kind;
    unit->size = size;
    unit->raw = raw;
}

static void classify_long(struct delta *delta, struct unit *unit, uint32_t q, uint32_t word) {
    const int isa = delta->header.isa;
    int64_t target;
    uint32_t half;
    if (delta_branch(isa, word, q, &target)) {
        set_unit(unit, BRANCH, 4, word);
    } else if (delta_load(isa, word, q, &target)) {
        mark_pool(delta, q, target);
        set_unit(unit, LOAD, 4, word);
    } else {
        set_unit(unit, delta_move(isa, word, &half) ? MOVE : PLAIN_LONG, 4, word);
    }
}

/* An instruction must begin at a multiple of this, plus 1. */
static uint32_t alignment(const struct delta *delta) {
    return delta->header.isa == DELTA_THUMB ? 1 : delta->header.isa == DELTA_ARM ? 3 : 0;
}

/* The unit of the old image at `q`, to become that at `p`; `left` bytes of both are in the segment.
 */
static void classify(struct delta *delta, struct unit *unit, uint32_t q, uint32_t p,
                     uint32_t left) {
    const uint8_t *const old = delta->job.base + q;
    const uint32_t align = alignment(delta);
    if (align == 0 || ((p ^ q) & align) != 0 || (p & align) != 0 || left <= align) {
        set_unit(unit, BYTE, 1, *old);
        return;
    }
    const uint32_t first = get16(old);
    if (((p | q) & 3) == 0 && left >= 4) {
        const uint32_t word = get32(old);
        enum kind kind;
        if (is_word(delta, q, word, &kind)) {
            set_unit(unit, kind, 4, word);
            return;
        }
    }
    if (left >= 4 && (align == 3 || first >= 0xE800)) {
        classify_long(delta, unit, q, swapped(delta, get32(old)));
        return;
    }
    int64_t target;
    if (delta_short_branch(first, q, &target)) {
        set_unit(unit, SHORT_BRANCH, 2, first);
    } else if (delta_short_load(first, q, &target)) {
        mark_pool(delta, q, target);
        set_unit(unit, SHORT_LOAD, 2, first);
    } else {
        set_unit(unit, PLAIN, 2, first);
    }
}

/* The 32 bits that a MOVW or MOVT at `q` and its partner load; false without a partner. */
static bool find_moved(const struct delta *delta, struct unit *unit, uint32_t q) {
    const int isa = delta->header.isa;
    const uint32_t length = delta->header.base_length;
    const bool top = delta_is_top(isa, unit->raw);
    uint32_t mine;
    delta_move(isa, unit->raw, &mine);
    for (uint32_t distance = 4; distance < PARTNER; distance += isa == DELTA_ARM ? 4 : 2) {
        if (top ? q < distance : q + distance + 4 > length) {
            return false;
        }
        const uint32_t at = top ? q - distance : q + distance;
        const uint32_t other = swapped(delta, get32(delta->job.base + at));
        uint32_t half;
        if (delta_move(isa, other, &half) && delta_same_register(isa, other, unit->raw) &&
            delta_is_top(isa, other) != top) {
            unit->top = top;
            unit->key = top ? mine << 16 | half : half << 16 | mine;
            return true;
        }
    }
    return false;
}

static uint32_t with_half(const struct delta *delta, const struct unit *unit, uint32_t whole) {
    return delta_with_half(delta->header.isa, unit->raw, unit->top ? whole >> 16 : whole & 0xFFFF);
}

static void get_target(const struct delta *delta, const struct unit *unit, uint32_t q,
                       int64_t *target) {
    switch (unit->kind) {
    case BRANCH:
        delta_branch(delta->header.isa, unit->raw, q, target);
        break;
    case LOAD:
        delta_load(delta->header.isa, unit->raw, q, target);
        break;
    case SHORT_BRANCH:
        delta_short_branch(unit->raw, q, target);
        break;
    default:
        delta_short_load(unit->raw, q, target);
        break;
    }
}

/* The instruction made to refer to `target` from `p`; as it is when it cannot. */
static uint32_t aimed(const struct delta *delta, const struct unit *unit, uint32_t p,
                      int64_t target) {
    uint32_t made = unit->raw;
    switch (unit->kind) {
    case BRANCH:
        delta_with_branch(delta->header.isa, &made, p, target);
        break;
    case LOAD:
        delta_with_load(delta->header.isa, &made, p, target);
        break;
    case SHORT_BRANCH:
        delta_with_short_branch(&made, p, target);
        break;
    default:
        delta_with_short_load(&made, p, target);
        break;
    }
    return made;
}

/* What the address of code has in its lowest bit. */
static uint32_t code_bit(const struct delta *delta) {
    return delta->header.isa == DELTA_THUMB;
}

/* As a word would hold the address of code. */
static uint32_t code_address(const struct delta *delta, int64_t target) {
    return (uint32_t)(target + delta->header.base_address) | code_bit(delta);
}

static void predict(const struct delta *delta, struct unit *unit, uint32_t q, uint32_t p) {
    unit->mapped = unit->raw;
    unit->has_key = true;
    unit->key = unit->raw;
    int64_t target = 0;
    switch (unit->kind) {
    case BYTE:
        unit->has_key = false;
        break;
    case PLAIN:
    case PLAIN_LONG:
    case POOL_OTHER:
        break;
    case MOVE:
        unit->has_key = find_moved(delta, unit, q);
        if (unit->has_key) {
            unit->whole = map_value(delta, unit->key);
            unit->mapped = with_half(delta, unit, unit->whole);
        }
        break;
    case SHORT_BRANCH:
    case SHORT_LOAD:
    case BRANCH:
    case LOAD:
        get_target(delta, unit, q, &target);
        unit->has_key = unit->kind == BRANCH;
        unit->key = code_address(delta, target);
        if (target >= 0 && target <= delta->header.base_length) {
            target = map_offset(delta, (uint32_t)target);
        }
        unit->mapped = aimed(delta, unit, p, target);
        break;
    case POOL_IMAGE:
    case POOL_WINDOW:
    case WORD_IMAGE:
    case WORD_WINDOW:
        unit->mapped = map_value(delta, unit->raw);
        break;
    }
}

/* ---- What was replaced before ---- */

#define GROUP 0x61C88647u

static bool is_address(enum kind kind) {
    return kind == BRANCH || kind == MOVE || kind == POOL_IMAGE || kind == POOL_WINDOW ||
           kind == WORD_IMAGE || kind == WORD_WINDOW;
}

static void look_up(const struct delta *delta, struct unit *unit, uint32_t p) {
    if (!unit->has_key) {
        return;
    }
    unit->key += GROUP * (is_address(unit->kind) ? 1u : (uint32_t)unit->kind + 2u);
    unit->entry = unit->key * 0x9E3779B1u >> 25;
    if (delta->trust[unit->entry] == 0 || delta->keys[unit->entry] != unit->key) {
        return;
    }
    const uint32_t value = delta->values[unit->entry];
    unit->has_learned = true;
    if (unit->kind == BRANCH) {
        const int64_t target = (int64_t)(value & ~code_bit(delta)) - delta->header.base_address;
        unit->learned = aimed(delta, unit, p, target);
    } else if (unit->kind == MOVE) {
        unit->learned = with_half(delta, unit, value);
    } else {
        unit->learned = value;
    }
}

static void learn_near(struct delta *delta, uint32_t old, uint32_t new) {
    uint32_t at = 0;
    while (at < delta->near_count && delta->near_old[at] != old) {
        at++;
    }
    if (at == NEIGHBOURS) {
        at = delta->near_next;
        delta->near_next = (delta->near_next + 1) % NEIGHBOURS;
    } else if (at == delta->near_count) {
        delta->near_count++;
    }
    delta->near_old[at] = old;
    delta->near_delta[at] = new - old;
}

static void learn_unit(struct delta *delta, const struct unit *unit, uint32_t actual, uint32_t p) {
    if (!unit->has_key) {
        return;
    }
    if (unit->has_learned && actual == unit->learned) {
        if (delta->trust[unit->entry] < 3) {
            delta->trust[unit->entry]++;
        }
        return;
    }
    if (actual == unit->mapped) {
        if (unit->has_learned) {
            delta->trust[unit->entry]--;
        }
        return;
    }
    uint32_t value = actual;
    if (unit->kind == BRANCH) {
        int64_t target;
        if (!delta_branch(delta->header.isa, actual, p, &target)) {
            return;
        }
        value = code_address(delta, target);
    } else if (unit->kind == MOVE) {
        uint32_t half;
        if (!delta_move(delta->header.isa, actual, &half) || unit->top) {
            return;
        }
        value = (unit->whole & 0xFFFF0000u) | half;
    }
    delta->keys[unit->entry] = unit->key;
    delta->values[unit->entry] = value;
    delta->trust[unit->entry] = 1;
    if (is_address(unit->kind) && unit->kind != BRANCH) {
        learn_near(delta, unit->key - GROUP, value);
    }
}

/* ---- The digest ---- */

/* Where units from `p` on must end: units do not reach into the digest. */
static uint32_t until(const struct delta *delta, uint32_t p, uint32_t end) {
    return p < delta->digest && delta->digest < end ? delta->digest : end;
}

static bool at_digest(const struct delta *delta) {
    return delta->digest != 0 && delta->place == delta->digest;
}

static int calculate_digest(struct delta *delta, uint32_t end) {
    if (end - delta->place < DELTA_SHA256_SIZE) {
        return DELTA_MALFORMED;
    }
    delta->job.sha256(delta->job.image + delta->place, delta->job.image, delta->hashed);
    delta->place += DELTA_SHA256_SIZE;
    return DELTA_OK;
}

/* ---- Segments ---- */

/* A unit, from its highest byte down, as differences to what was predicted. */
static uint32_t get_missed(struct delta *delta, const struct unit *unit, uint32_t predicted,
                           uint32_t p) {
    const uint32_t before = p > 0 ? delta->job.image[p - 1] : 0;
    uint32_t made = 0;
    uint32_t same = 1;
    for (uint32_t j = unit->size; j-- > 0;) {
        const uint32_t guess = predicted >> (8 * j) & 255;
        const uint32_t last = delta->difference;
        const uint32_t tag = (uint32_t)unit->kind << 27 | j << 25 | same << 24;
        const struct coder_contexts contexts = {
            {tag | guess,
             0x40000000u ^ (j << 27 | unit->size << 24 | same << 23) ^ last << 8 ^ (made & 255),
             0xA0000000u ^ tag,
             0x80000000u ^ (j << 29 | unit->size << 26) ^ (made & 0xFFFF) << 8 ^ guess,
             0x60000000u ^ tag ^ guess << 8 ^ last,
             0x80000000u ^ tag ^ before << 8 ^ (made & 255) * 0x1003Fu},
            3,
            3,
            (uint8_t)(MIX_MISS + (uint32_t)unit->kind),
        };
        const uint32_t difference = coder_byte(&delta->coder, &contexts, -1);
        if (difference != 0) {
            delta->difference = difference;
            same = 0;
        }
        made = made << 8 | ((guess + difference) & 255);
    }
    return made;
}

static uint32_t bit_length(uint32_t value) {
    uint32_t bits = 0;
    while (value >> bits != 0) {
        bits++;
    }
    return bits;
}

static uint32_t add_candidate(uint32_t *candidates, uint32_t count, uint32_t value) {
    for (uint32_t i = 0; i < count; i++) {
        if (candidates[i] == value) {
            return count;
        }
    }
    candidates[count] = value;
    return count + 1;
}

static uint32_t get_unit(struct delta *delta, const struct unit *unit, uint32_t p) {
    const uint32_t kind = (uint32_t)unit->kind;
    uint32_t candidates[4];
    uint32_t count = 0;
    uint32_t trust = 0;
    if (unit->has_learned && unit->learned != unit->mapped) {
        count = add_candidate(candidates, count, unit->learned);
        trust = delta->trust[unit->entry];
    }
    count = add_candidate(candidates, count, unit->mapped);
    if ((unit->kind == POOL_IMAGE || unit->kind == WORD_IMAGE) && delta->near_count > 0) {
        count = add_candidate(candidates, count, near_value(delta, unit->raw));
    }
    count = add_candidate(candidates, count, unit->raw);

    const uint32_t recent = delta->misses & 7;
    const uint32_t variant = (kind * 2 + (trust > 0)) * 8;
    const uint32_t since = bit_length(delta->since);
    uint16_t contexts[3] = {
        (uint16_t)(variant + recent),
        (uint16_t)(208 + variant + (since < 7 ? since : 7)),
        (uint16_t)(416 + (unit->raw >> (8 * unit->size - 8))),
    };
    uint32_t number = 0;
    while (number < count && coder_flag(&delta->coder, contexts, 3, kind) == 0) {
        number++;
        contexts[0] = (uint16_t)(FLAG_NEXT + kind * 4 + number);
        contexts[1] = (uint16_t)(FLAG_NEXT + 52 + trust * 4 + number);
        contexts[2] = (uint16_t)(FLAG_NEXT + 68 + recent * 4 + number);
    }
    const uint32_t value =
        number < count ? candidates[number] : get_missed(delta, unit, candidates[0], p);
    const bool hit = value == candidates[0];
    delta->misses = (delta->misses << 1 & 6) | !hit;
    delta->since = !hit ? 0 : delta->since < 255 ? delta->since + 1 : 255;
    return value;
}

static int step_copy(struct delta *delta, uint32_t end) {
    const uint32_t p = delta->place;
    const uint32_t q = delta->source;
    if (at_digest(delta)) {
        delta->source += DELTA_SHA256_SIZE;
        return calculate_digest(delta, end);
    }
    struct unit unit;
    classify(delta, &unit, q, p, until(delta, p, end) - p);
    predict(delta, &unit, q, p);
    look_up(delta, &unit, p);
    uint32_t value = get_unit(delta, &unit, p);
    learn_unit(delta, &unit, value, p);
    if (unit.size == 4 && unit.kind < POOL_IMAGE) {
        value = swapped(delta, value);
    }
    put_little(delta->job.image + p, unit.size, value);
    delta->place += unit.size;
    delta->source += unit.size;
    return DELTA_OK;
}

/* ---- What is new ---- */

static uint32_t hashed4(uint32_t b1, uint32_t b2, uint32_t b3, uint32_t b4) {
    return (b1 << 24 | b2 << 16 | b3 << 8 | b4) * 0x2F0B4C47u;
}

/* What coder_byte wants to know: a byte that is there already, or that it must be read. */
static int32_t known_byte(const uint8_t *known, uint32_t at) {
    return known != NULL ? known[at] : -1;
}

static uint32_t new_word(struct delta *delta, const uint32_t *before, const uint8_t *known) {
    static const uint8_t mixers[4] = {MIX_LOW, MIX_LOW, MIX_HIGH, MIX_WORD};
    uint32_t made = 0;
    for (uint32_t j = 4; j-- > 0;) {
        const uint32_t tag = 0x70000000u | j << 24;
        const uint32_t above = before[3 - j];
        const struct coder_contexts contexts = {
            {tag, tag ^ 0x04000000u ^ (made & 255), tag ^ 0x08000000u ^ above,
             tag ^ 0x0C000000u ^ (made & 0xFFFF), tag ^ (made & 255) << 8 ^ above << 16,
             tag ^ 0x84000000u ^ (made << 8 | above) * 0x2F0B4C47u},
            3,
            3,
            mixers[j],
        };
        made = made << 8 | coder_byte(&delta->coder, &contexts, known_byte(known, j));
    }
    return made;
}

static uint32_t new_half(struct delta *delta, const uint32_t *b, const uint8_t *known) {
    const struct coder_contexts upper = {
        {0x50000000u, 0x51000000u | b[0], 0x52000000u | b[0] << 8 | b[1],
         0x53000000u | b[0] << 8 | b[2], 0x54000000u ^ hashed4(b[0], b[1], b[2], b[3])},
        2,
        3,
        MIX_HIGH,
    };
    const uint32_t high = coder_byte(&delta->coder, &upper, known_byte(known, 1));
    const struct coder_contexts lower = {
        {0x57000000u, 0x58000000u | high, 0x59000000u | high << 8 | b[0],
         0x5A000000u | high << 8 | b[0], 0x5B000000u | high << 16 | b[0] << 8 | b[1],
         0x5C000000u ^ hashed4(high, b[0], b[1], b[2])},
        3,
        3,
        MIX_LOW,
    };
    return high << 8 | coder_byte(&delta->coder, &lower, known_byte(known, 0));
}

static uint32_t new_byte(struct delta *delta, const uint32_t *b, const uint8_t *known) {
    const struct coder_contexts contexts = {
        {0x60000000u, 0x61000000u | b[0], 0x62000000u | b[0] << 8 | b[1],
         0x63000000u | b[0] << 16 | b[1] << 8 | b[2], 0x64000000u | b[1]},
        2,
        3,
        MIX_BYTE,
    };
    return coder_byte(&delta->coder, &contexts, known_byte(known, 0));
}

static uint32_t new_size(const struct delta *delta, uint32_t p, uint32_t end) {
    const uint32_t align = alignment(delta);
    return (p & align) != 0 || p + align >= end ? 1 : align + 1;
}

/* `size` bytes at `p` of `data`, which are read, or learned when they are there already. */
static uint32_t new_unit(struct delta *delta, const uint8_t *data, uint32_t p, uint32_t size,
                         bool known) {
    uint32_t before[4];
    for (uint32_t i = 0; i < 4; i++) {
        before[i] = p > i ? data[p - i - 1] : 0;
    }
    const uint8_t *const here = known ? data + p : NULL;
    return size == 1   ? new_byte(delta, before, here)
           : size == 2 ? new_half(delta, before, here)
                       : new_word(delta, before, here);
}

/* Learn from bytes that are known as if they were new. */
static void train(struct delta *delta, const uint8_t *data, uint32_t p, uint32_t end) {
    while (p < end) {
        const uint32_t size = new_size(delta, p, end);
        new_unit(delta, data, p, size, true);
        p += size;
    }
}

/* In a gap up to `end`; the old image has at most what is before `source_end` in its place. */
static int step_gap(struct delta *delta, uint32_t end, uint32_t source_end) {
    uint8_t *const image = delta->job.image;
    const uint32_t p = delta->place;
    if (!delta->trained) {
        const uint32_t limit = delta->source + TRAIN_OLD;
        train(delta, image, p > TRAIN_BEFORE ? p - TRAIN_BEFORE : 0, p);
        train(delta, delta->job.base, delta->source, source_end < limit ? source_end : limit);
        delta->trained = true;
    }
    if (at_digest(delta)) {
        return calculate_digest(delta, end);
    }
    const uint32_t size = new_size(delta, p, until(delta, p, end));
    put_little(image + p, size, new_unit(delta, image, p, size, false));
    delta->place += size;
    return DELTA_OK;
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
    delta->local = delta->place < next.new && number_flag(delta, FLAG_LOCAL) != 0;
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
    int error = DELTA_OK;
    if (delta->place < delta->span.new) {
        error = step_gap(delta, delta->span.new, delta->span.old);
    } else {
        if (delta->place == delta->span.new) {
            delta->source = delta->span.old;
        }
        if (delta->place < end) {
            error = step_copy(delta, end);
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

int delta_finish(struct delta *delta) {
    while (delta->error == DELTA_OK && delta->state != DONE) {
        step(delta);
    }
    if (delta->error == DELTA_OK && delta->coder.count > 0) {
        delta->error = DELTA_TRAILING;
    }
    if (delta->error == DELTA_OK) {
        uint8_t digest[DELTA_SHA256_SIZE];
        delta->job.sha256(digest, delta->job.image, delta->header.length);
        if (memcmp(digest, delta->header.digest, DELTA_DIGEST_SIZE) != 0) {
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
