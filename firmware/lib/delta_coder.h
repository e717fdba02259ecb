/* The adaptive binary range decoder of differential files: counters, mixers, and bytes of the file
 * as they come. Bit for bit unbrick.delta.coder. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CODER_INPUTS = 6,   /* predictions that are mixed at most */
    CODER_REPEATS = 3,  /* of those: bytes that were last in some context */
    CODER_FLAGS = 1105, /* of format version 1 the first 941 */
    CODER_REPEAT_FLAGS = 772,
    CODER_MIXERS = 34, /* of format version 1 the first 32 */
    CODER_BUFFER = 256,
    CODER_BEYOND = 8, /* zero bytes that are read beyond the end of the file at most */
};

/* An encoder is compiled from the same files (harness/unbrick/delta/c/): it says with each decision
 * what must come of it. The terminal's programs have none of that. */
#ifdef DELTA_ENCODES
#define WANT(value) , value
struct coder_sink; /* where the encoder writes */
#else
#define WANT(value)
#endif

struct coder {
    uint32_t range;
    uint32_t code;
    uint16_t first; /* of the bytes in `buffer` */
    uint16_t count;
    uint8_t beyond;
    bool truncated; /* more was needed than there is */
    uint16_t flag_count;
    uint8_t slot_shift;
    uint8_t repeat_shift;
    uint16_t *slots;
    uint16_t *repeats;
#ifdef DELTA_ENCODES
    struct coder_sink *sink; /* NULL: it decodes */
#endif
    uint32_t low; /* that `code` counts from, modulo 2^32: of the bytes that were read */
    uint32_t *flags;
    int32_t (*weights)[CODER_INPUTS];
    uint8_t buffer[CODER_BUFFER];
};

/* A byte's contexts: the first `slots` choose counters, the next `repeats` remember a byte. */
struct coder_contexts {
    uint32_t of[CODER_INPUTS];
    uint8_t slots;
    uint8_t repeats;
    uint8_t mixer;
};

/* The areas that a coder works in. */
struct coder_areas {
    uint32_t *flags;
    uint32_t flag_count;
    int32_t (*weights)[CODER_INPUTS];
    uint32_t mixers;
    uint16_t *slots; /* 1 << log2_slots of them; `repeats` likewise */
    unsigned log2_slots;
    uint16_t *repeats;
    unsigned log2_repeats;
};

void coder_init(struct coder *coder, const struct coder_areas *areas);

/* Takes as much of the file's next bytes as there is room for; returns how many. */
size_t coder_take(struct coder *coder, const uint8_t *data, size_t length);

/* Reads the first bytes; then the decoder can be used. */
void coder_start(struct coder *coder);

/* Sets the flags from `from` on, `count` of them, to a probability in units of 2^-22. */
void coder_set_flags(struct coder *coder, uint32_t from, uint32_t count, uint32_t p, uint32_t seen);

/* Whether the bytes that were read are those that an encoder ends with, and none more. */
bool coder_ends_well(const struct coder *coder);

/* One bit, that is 1 with the probability p/65536. */
uint32_t coder_bit(struct coder *coder, uint32_t p WANT(uint32_t bit));

/* A single decision in one to three contexts, which are numbers of flags. */
uint32_t coder_flag(struct coder *coder, const uint16_t *contexts, uint32_t count,
                    uint32_t mixer WANT(uint32_t bit));

/* A byte. One that is `known` (0 to 255, else -1) is learned without being read. */
uint32_t coder_byte(struct coder *coder, const struct coder_contexts *contexts,
                    int32_t known WANT(uint32_t byte));
