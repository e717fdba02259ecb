/* What the files of the decoder share; of no interest to others. Their order is that of
 * docs/delta-format.md. */
#pragma once

#include "lib/delta.h"
#include "lib/delta_code.h"
#include "lib/delta_coder.h"

enum {
    FIXED_MEMORY = 6656, /* of format version 1 */
    FIXED_MEMORY_2 = 7360,
    SEGMENT_MEMORY = 11,
    WINDOW_UNIT = 1 << 16,
    MIN_LOG2 = 8,
    MAX_LOG2 = 12,
    STEP_INPUT = 128,  /* bytes of the file that one step reads at most */
    STEPS_BETWEEN = 8, /* a copied unit or a new byte each, between two calls of `progress` */
    POOL_WORDS = 1024,
    DICTIONARY = 128,
    NEIGHBOURS = 32,
    LOOK_BACK = 8,
    PARTNER = 28,
    TRAIN_BEFORE = 64,
    TRAIN_OLD = 128,
    COPY_STEP = 32, /* bytes of a copy among new ones that one step makes at most */
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
enum { FLAG_COPY = 941, FLAG_COPY_OLD = 943, FLAG_COPY_NUMBER = 945 };
enum { MIX_NUMBER = 13, MIX_WORD = 14, MIX_MISS = 16, MIX_HIGH = 29, MIX_LOW = 30, MIX_BYTE = 31 };
enum { MIX_COPY = 32, MIX_COPY_OLD = 33 };
enum { FLAGS_1 = 941, MIXERS_1 = 32 }; /* of format version 1 */

/* Kinds of numbers; from DISTANCE_OLD on those of copies. */
enum { GAP, JUMP, LENGTH, DISTANCE_OLD, DISTANCE_NEW, LENGTH_NEW, LENGTH_OLD, NUMBERS };

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

#ifdef DELTA_ENCODES
struct wanted; /* the new image, as an encoder has it */
#endif

struct delta {
    struct delta_header header;
    struct delta_job job;
    struct coder coder;
    struct segment *segments;
    uint8_t *order; /* numbers of the segments by their place in the old image, two bytes each */
    int error;
    enum state state;
    bool started;
    uint32_t steps;   /* so far */
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
    bool copied;      /* a copy ends at `place`, or has begun there */
    bool copy_old;    /* it is from the old image */
    uint32_t copy_from;
    uint32_t copy_left; /* bytes of it that are still to come */
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
#ifdef DELTA_ENCODES
    struct wanted *wanted; /* NULL: it decodes */
#endif
};

#define CODER_MEMORY(flags, mixers) ((flags) * 4 + (mixers) * CODER_INPUTS * 4)
#define STRUCT_MEMORY ((sizeof(struct delta) + 7) & ~(size_t)7)

_Static_assert(STRUCT_MEMORY + CODER_MEMORY(FLAGS_1, MIXERS_1) <= FIXED_MEMORY, "promised");
_Static_assert(STRUCT_MEMORY + CODER_MEMORY(CODER_FLAGS, CODER_MIXERS) <= FIXED_MEMORY_2, "too");
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

static inline uint32_t get24(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
}

static inline uint32_t get16(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8;
}

static inline uint32_t get32(const uint8_t *at) {
    return get16(at) | get16(at + 2) << 16;
}

static inline void put_little(uint8_t *at, uint32_t size, uint32_t value) {
    for (uint32_t i = 0; i < size; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

/* From the order of the memory to that of an instruction, or back. */
static inline uint32_t swapped(const struct delta *delta, uint32_t word) {
    return delta->header.isa == DELTA_THUMB ? word >> 16 | word << 16 : word;
}

static inline const struct segment *ordered(const struct delta *delta, uint32_t at) {
    return &delta->segments[get16(delta->order + 2 * at)];
}

/* An instruction must begin at a multiple of this, plus 1. */
static inline uint32_t alignment(const struct delta *delta) {
    return delta->header.isa == DELTA_THUMB ? 1 : delta->header.isa == DELTA_ARM ? 3 : 0;
}

/* Where units from `p` on must end: units do not reach into the digest. */
static inline uint32_t until(const struct delta *delta, uint32_t p, uint32_t end) {
    return p < delta->digest && delta->digest < end ? delta->digest : end;
}

static inline bool at_digest(const struct delta *delta) {
    return delta->digest != 0 && delta->place == delta->digest;
}

/* delta.c: a number below 2^25. */
uint32_t delta_number(struct delta *delta, uint32_t kind WANT(uint32_t wanted));

/* Lets the caller look after what cannot wait. */
static inline void delta_pace(struct delta *delta) {
    if (delta->job.progress != NULL && ++delta->steps % STEPS_BETWEEN == 0) {
        delta->job.progress();
    }
}

/* delta_predict.c */

uint32_t delta_near(const struct delta *delta, uint32_t value);

/* The unit of the old image at `q`, to become that at `p`; `left` bytes of both are in the segment.
 */
void delta_classify(struct delta *delta, struct unit *unit, uint32_t q, uint32_t p, uint32_t left);

/* Says what the unit becomes, by the map and by what was replaced before. */
void delta_predict(const struct delta *delta, struct unit *unit, uint32_t q, uint32_t p);

/* Takes in what the unit really became. */
void delta_learn(struct delta *delta, const struct unit *unit, uint32_t actual, uint32_t p);

/* delta_image.c: one unit of a segment, or of new bytes, up to `end`. The old image has at most
 * what is before `source_end` in their place. */

int delta_step_copy(struct delta *delta, uint32_t end);
int delta_step_gap(struct delta *delta, uint32_t end, uint32_t source_end);
