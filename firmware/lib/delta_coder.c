#include "lib/delta_coder.h"

#include <string.h>

#include "lib/assert.h"

enum { STRETCH_LIMIT = 2815, WEIGHT_INITIAL = 19661, WEIGHT_LIMIT = (1 << 19) - 1, MIX_SHIFT = 14 };
enum { COUNT_LIMIT = 127, SLOT_LIMIT = 15, SLOT_INITIAL = 0x8000, REPEAT_LIMIT = 15 };

#define TOP (1u << 24)
#define GOLDEN 0x9E3779B1u

/* log2(1 + i/64) in units of 1/4096. */
static const uint16_t log_table[65] = {
    0,    92,   182,  271,  358,  445,  530,  613,  696,  778,  858,  937,  1016,
    1093, 1169, 1244, 1319, 1392, 1465, 1536, 1607, 1677, 1746, 1814, 1882, 1949,
    2015, 2080, 2145, 2208, 2272, 2334, 2396, 2457, 2518, 2578, 2637, 2696, 2754,
    2812, 2869, 2926, 2982, 3037, 3092, 3146, 3200, 3254, 3307, 3359, 3412, 3463,
    3514, 3565, 3615, 3665, 3715, 3764, 3812, 3861, 3908, 3956, 4003, 4050, 4096};

/* 65536 / (1 + exp(-i/4)). */
static const uint16_t squash_table[45] = {
    32768, 36843, 40793, 44511, 47911, 50941, 53581, 55834, 57724, 59287, 60565, 61598,
    62428, 63090, 63615, 64030, 64357, 64614, 64816, 64974, 65097, 65194, 65269, 65328,
    65374, 65410, 65438, 65459, 65476, 65489, 65500, 65508, 65514, 65519, 65523, 65526,
    65528, 65530, 65531, 65532, 65533, 65534, 65534, 65535, 65535};

/* 1 / (i + 1.5) in units of 1/65536. */
static const uint16_t rate_table[128] = {
    43690, 26214, 18724, 14563, 11915, 10082, 8738, 7710, 6898, 6241, 5698, 5242, 4854, 4519, 4228,
    3971,  3744,  3542,  3360,  3196,  3048,  2912, 2788, 2674, 2570, 2473, 2383, 2299, 2221, 2148,
    2080,  2016,  1956,  1899,  1846,  1795,  1747, 1702, 1659, 1618, 1579, 1542, 1506, 1472, 1440,
    1409,  1379,  1351,  1323,  1297,  1272,  1248, 1224, 1202, 1180, 1159, 1139, 1120, 1101, 1083,
    1065,  1048,  1032,  1016,  1000,  985,   970,  956,  942,  929,  916,  903,  891,  879,  868,
    856,   845,   834,   824,   814,   804,   794,  784,  775,  766,  757,  748,  740,  732,  724,
    716,   708,   700,   693,   686,   679,   672,  665,  658,  652,  645,  639,  633,  627,  621,
    615,   609,   604,   598,   593,   587,   582,  577,  572,  567,  562,  557,  553,  548,  543,
    539,   534,   530,   526,   522,   518,   514,  510};

/* One byte that was remembered, while the bits of the next one are read. */
struct memory {
    uint32_t place;
    uint32_t check;
    uint32_t count;
    uint32_t last;
    uint32_t flag;
};

void coder_init(struct coder *coder, const struct coder_areas *areas) {
    ASSERT(areas->flag_count <= CODER_FLAGS && areas->mixers <= CODER_MIXERS);
    memset(coder, 0, sizeof *coder);
    coder->flags = areas->flags;
    coder->flag_count = (uint16_t)areas->flag_count;
    coder->weights = areas->weights;
    coder->slots = areas->slots;
    coder->repeats = areas->repeats;
    coder->slot_shift = (uint8_t)(32 - areas->log2_slots);
    coder->repeat_shift = (uint8_t)(32 - areas->log2_repeats);
    for (uint32_t i = 0; i < 1u << areas->log2_slots; i++) {
        coder->slots[i] = SLOT_INITIAL;
    }
    memset(coder->repeats, 0, sizeof *coder->repeats << areas->log2_repeats);
    for (uint32_t i = 0; i < areas->mixers; i++) {
        for (uint32_t k = 0; k < CODER_INPUTS; k++) {
            coder->weights[i][k] = WEIGHT_INITIAL;
        }
    }
}

size_t coder_take(struct coder *coder, const uint8_t *data, size_t length) {
    ASSERT(coder->first < CODER_BUFFER && coder->count <= CODER_BUFFER);
    size_t taken = 0;
    while (taken < length && coder->count < CODER_BUFFER) {
        coder->buffer[(coder->first + coder->count) % CODER_BUFFER] = data[taken++];
        coder->count++;
    }
    return taken;
}

static void next_byte(struct coder *coder) {
    uint32_t byte = 0;
    if (coder->count > 0) {
        byte = coder->buffer[coder->first];
        coder->first = (uint16_t)((coder->first + 1) % CODER_BUFFER);
        coder->count--;
    } else if (coder->beyond == CODER_BEYOND) {
        coder->truncated = true;
    } else {
        coder->beyond++;
    }
    coder->code = coder->code << 8 | byte;
}

void coder_start(struct coder *coder) {
    coder->range = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < 4; i++) {
        next_byte(coder);
    }
}

void coder_set_flags(struct coder *coder, uint32_t from, uint32_t count, uint32_t p,
                     uint32_t seen) {
    ASSERT(from < coder->flag_count && count <= coder->flag_count - from);
    for (uint32_t i = from; i < from + count; i++) {
        coder->flags[i] = p << 10 | seen;
    }
}

#ifdef DELTA_ENCODES
static uint32_t put_bit(struct coder_sink *sink, uint32_t p, uint32_t bit);
#endif

uint32_t coder_bit(struct coder *coder, uint32_t p WANT(uint32_t bit)) {
    ASSERT(p > 0 && p < 65536);
    ASSERT(coder->range >= TOP);
#ifdef DELTA_ENCODES
    if (coder->sink != NULL) {
        return put_bit(coder->sink, p, bit);
    }
#else
    uint32_t bit;
#endif
    const uint32_t bound = (coder->range >> 16) * p;
    if (coder->code < bound) {
        coder->range = bound;
        bit = 1;
    } else {
        coder->code -= bound;
        coder->low += bound;
        coder->range -= bound;
        bit = 0;
    }
    while (coder->range < TOP) {
        coder->range <<= 8;
        coder->low <<= 8;
        next_byte(coder);
    }
    return bit;
}

bool coder_ends_well(const struct coder *coder) {
    uint32_t zeros = 0; /* bytes that the encoder leaves away */
    uint64_t unit = (uint64_t)1 << 32;
    for (uint32_t least = 4; least > 0 && zeros == 0; least--, unit >>= 8) {
        const uint64_t rounded = (coder->low + unit - 1) & ~(unit - 1);
        if (rounded < (uint64_t)coder->low + coder->range) {
            zeros = least;
        }
    }
    const uint64_t first = zeros > 0 ? (unit << 8) - 1 : 0;
    const uint32_t end = (uint32_t)((coder->low + first) & ~first);
    while (zeros < 4 && (end >> (8 * zeros) & 255) == 0) {
        zeros++;
    }
    return coder->count == 0 && coder->beyond == zeros && coder->low + coder->code == end;
}

/* log2 of 1..65535 in units of 1/4096. */
static int32_t log2_of(uint32_t x) {
    uint32_t exponent = 15;
    while ((x & 0x8000u) == 0) {
        x <<= 1;
        exponent--;
    }
    const uint32_t low = x >> 9 & 63;
    const uint32_t step = (uint32_t)(log_table[low + 1] - log_table[low]);
    return (int32_t)((exponent << 12) + log_table[low] + (step * (x & 511) >> 9));
}

static int32_t limited(int64_t value, int32_t limit) {
    return (int32_t)(value > limit ? limit : value < -limit ? -limit : value);
}

/* ln(p / (1 - p)) in units of 1/256, of a probability in units of 1/65536. */
static int32_t stretch(uint32_t p) {
    if (p == 0) {
        p = 1;
    }
    return limited((log2_of(p) - log2_of(65536 - p)) * 177 >> 12, STRETCH_LIMIT);
}

/* The terminal calculates it again each time, the encoder looks it up (harness/unbrick/delta/c/).
 */
#ifdef DELTA_ENCODES
static int16_t stretched[1 << 16];
static int16_t stretched_slots[1 << 12];
#define STRETCH(p) stretched[p]
#define STRETCH_SLOT(slot) stretched_slots[(slot) >> 4]
#else
#define STRETCH(p) stretch(p)
#define STRETCH_SLOT(slot) stretch(((slot) & 0xFFF0u) | 8)
#endif

static uint32_t squash(int32_t x) {
    const uint32_t magnitude = (uint32_t)(x < 0 ? -x : x);
    const uint32_t low = magnitude >> 6;
    const uint32_t step = (uint32_t)(squash_table[low + 1] - squash_table[low]);
    const uint32_t p = squash_table[low] + (step * (magnitude & 63) >> 6);
    return x < 0 ? 65536 - p : p;
}

static uint32_t mixed(const int32_t *weights, const int32_t *inputs, uint32_t count) {
    int64_t dot = 0;
    for (uint32_t i = 0; i < count; i++) {
        dot += (int64_t)weights[i] * inputs[i];
    }
    return squash(limited(dot >> 16, STRETCH_LIMIT));
}

static void learn(int32_t *weights, const int32_t *inputs, uint32_t count, int32_t error) {
    for (uint32_t i = 0; i < count; i++) {
        weights[i] = limited(weights[i] + (inputs[i] * error >> MIX_SHIFT), WEIGHT_LIMIT);
    }
}

static void adapt(uint32_t *flag, uint32_t bit) {
    const uint32_t seen = *flag & 1023;
    const uint64_t rate = rate_table[seen];
    uint32_t p = *flag >> 10;
    if (bit != 0) {
        p += (uint32_t)((0x3FFFFF - p) * rate >> 16);
    } else {
        p -= (uint32_t)(p * rate >> 16);
    }
    *flag = p << 10 | (seen < COUNT_LIMIT ? seen + 1 : seen);
}

static void adapt_slot(uint16_t *slot, uint32_t bit) {
    const uint32_t seen = *slot & 15u;
    uint32_t p = *slot >> 4;
    if (bit != 0) {
        p += (4095 - p) * rate_table[seen] >> 16;
    } else {
        p -= p * rate_table[seen] >> 16;
    }
    *slot = (uint16_t)(p << 4 | (seen < SLOT_LIMIT ? seen + 1 : seen));
}

uint32_t coder_flag(struct coder *coder, const uint16_t *contexts, uint32_t count,
                    uint32_t mixer WANT(uint32_t wanted)) {
    int32_t inputs[CODER_INPUTS] = {0};
    for (uint32_t i = 0; i < count; i++) {
        inputs[i] = STRETCH(coder->flags[contexts[i]] >> 16);
    }
    const uint32_t p = mixed(coder->weights[mixer], inputs, count);
    const uint32_t bit = coder_bit(coder, p WANT(wanted));
    learn(coder->weights[mixer], inputs, count, (int32_t)(bit << 16) - (int32_t)p);
    for (uint32_t i = 0; i < count; i++) {
        adapt(&coder->flags[contexts[i]], bit);
    }
    return bit;
}

static void recall(const struct coder *coder, const struct coder_contexts *contexts,
                   struct memory *memory) {
    for (uint32_t i = 0; i < contexts->repeats; i++) {
        const uint32_t hashed = contexts->of[contexts->slots + i] * GOLDEN;
        const uint32_t place = hashed >> coder->repeat_shift;
        const uint32_t entry = coder->repeats[place];
        memory[i].place = place;
        memory[i].check = hashed >> 8 & 15;
        memory[i].count = (entry >> 4 & 15) == memory[i].check ? entry & 15 : 0;
        memory[i].last = entry >> 8;
        memory[i].flag = CODER_REPEAT_FLAGS + i * 16 + memory[i].count;
    }
}

/* One bit of a byte of which `node` is known: its highest bits after a leading 1. */
static uint32_t byte_bit(struct coder *coder, const struct coder_contexts *contexts,
                         const struct memory *memory, uint32_t node, uint32_t shift,
                         int32_t known WANT(uint32_t wanted)) {
    int32_t inputs[CODER_INPUTS] = {0};
    uint32_t places[CODER_INPUTS];
    bool trusted[CODER_REPEATS];
    int32_t *const weights = coder->weights[contexts->mixer];
    const uint32_t count = contexts->slots + (uint32_t)contexts->repeats;
    for (uint32_t i = 0; i < contexts->slots; i++) {
        places[i] = (contexts->of[i] + node * GOLDEN) * 0x85EBCA6Bu >> coder->slot_shift;
        inputs[i] = STRETCH_SLOT(coder->slots[places[i]]);
    }
    for (uint32_t i = 0; i < contexts->repeats; i++) {
        trusted[i] = memory[i].count > 0 && (256 | memory[i].last) >> (shift + 1) == node;
        int32_t input = 0;
        if (trusted[i]) {
            input = STRETCH(coder->flags[memory[i].flag] >> 16);
            if ((memory[i].last >> shift & 1) == 0) {
                input = -input;
            }
        }
        inputs[contexts->slots + i] = input;
    }
    const uint32_t p = mixed(weights, inputs, count);
    const uint32_t bit =
        known >= 0 ? (uint32_t)known >> shift & 1 : coder_bit(coder, p WANT(wanted >> shift & 1));
    learn(weights, inputs, count, (int32_t)(bit << 16) - (int32_t)p);
    for (uint32_t i = 0; i < contexts->slots; i++) {
        adapt_slot(&coder->slots[places[i]], bit);
    }
    for (uint32_t i = 0; i < contexts->repeats; i++) {
        if (trusted[i]) {
            adapt(&coder->flags[memory[i].flag], bit == (memory[i].last >> shift & 1));
        }
    }
    return bit;
}

uint32_t coder_byte(struct coder *coder, const struct coder_contexts *contexts,
                    int32_t known WANT(uint32_t wanted)) {
    struct memory memory[CODER_REPEATS];
    recall(coder, contexts, memory);
    uint32_t node = 1;
    for (uint32_t shift = 8; shift-- > 0;) {
        node = node << 1 | byte_bit(coder, contexts, memory, node, shift, known WANT(wanted));
    }
    const uint32_t value = node & 255;
    for (uint32_t i = 0; i < contexts->repeats; i++) {
        uint32_t count = 1;
        if (memory[i].count > 0 && memory[i].last == value) {
            count = memory[i].count < REPEAT_LIMIT ? memory[i].count + 1 : REPEAT_LIMIT;
        }
        coder->repeats[memory[i].place] = (uint16_t)(value << 8 | memory[i].check << 4 | count);
    }
    return value;
}
