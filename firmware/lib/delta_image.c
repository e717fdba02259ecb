#include "lib/assert.h"
#include "lib/delta_state.h"

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
                           uint32_t p WANT(uint32_t wanted)) {
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
        const uint32_t difference =
            coder_byte(&delta->coder, &contexts, -1 WANT(((wanted >> (8 * j)) - guess) & 255));
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
    ASSERT(count < 4);
    for (uint32_t i = 0; i < count; i++) {
        if (candidates[i] == value) {
            return count;
        }
    }
    candidates[count] = value;
    return count + 1;
}

static uint32_t get_unit(struct delta *delta, const struct unit *unit,
                         uint32_t p WANT(uint32_t wanted)) {
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
        count = add_candidate(candidates, count, delta_near(delta, unit->raw));
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
    while (number < count &&
           coder_flag(&delta->coder, contexts, 3, kind WANT(wanted == candidates[number])) == 0) {
        number++;
        contexts[0] = (uint16_t)(FLAG_NEXT + kind * 4 + number);
        contexts[1] = (uint16_t)(FLAG_NEXT + 52 + trust * 4 + number);
        contexts[2] = (uint16_t)(FLAG_NEXT + 68 + recent * 4 + number);
    }
    const uint32_t value = number < count ? candidates[number]
                                          : get_missed(delta, unit, candidates[0],
                                                       p WANT(count_missed(delta, unit, wanted)));
    const bool hit = value == candidates[0];
    delta->misses = (delta->misses << 1 & 6) | !hit;
    delta->since = !hit ? 0 : delta->since < 255 ? delta->since + 1 : 255;
    return value;
}

int delta_step_copy(struct delta *delta, uint32_t end) {
    ASSERT(delta->place < end && end <= delta->header.length);
    const uint32_t p = delta->place;
    const uint32_t q = delta->source;
    if (at_digest(delta)) {
        delta->source += DELTA_SHA256_SIZE;
        return calculate_digest(delta, end);
    }
    struct unit unit;
    delta_classify(delta, &unit, q, p, until(delta, p, end) - p);
    delta_predict(delta, &unit, q, p);
    uint32_t value = get_unit(delta, &unit, p WANT(wanted_unit(delta, &unit, p)));
    delta_learn(delta, &unit, value, p);
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

static uint32_t new_word(struct delta *delta, const uint32_t *before,
                         const uint8_t *known WANT(uint32_t wanted)) {
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
        made = made << 8 | coder_byte(&delta->coder, &contexts,
                                      known_byte(known, j) WANT(wanted >> (8 * j) & 255));
    }
    return made;
}

static uint32_t new_half(struct delta *delta, const uint32_t *b,
                         const uint8_t *known WANT(uint32_t wanted)) {
    const struct coder_contexts upper = {
        {0x50000000u, 0x51000000u | b[0], 0x52000000u | b[0] << 8 | b[1],
         0x53000000u | b[0] << 8 | b[2], 0x54000000u ^ hashed4(b[0], b[1], b[2], b[3])},
        2,
        3,
        MIX_HIGH,
    };
    const uint32_t high = coder_byte(&delta->coder, &upper, known_byte(known, 1) WANT(wanted >> 8));
    const struct coder_contexts lower = {
        {0x57000000u, 0x58000000u | high, 0x59000000u | high << 8 | b[0],
         0x5A000000u | high << 8 | b[0], 0x5B000000u | high << 16 | b[0] << 8 | b[1],
         0x5C000000u ^ hashed4(high, b[0], b[1], b[2])},
        3,
        3,
        MIX_LOW,
    };
    return high << 8 | coder_byte(&delta->coder, &lower, known_byte(known, 0) WANT(wanted & 255));
}

static uint32_t new_byte(struct delta *delta, const uint32_t *b,
                         const uint8_t *known WANT(uint32_t wanted)) {
    const struct coder_contexts contexts = {
        {0x60000000u, 0x61000000u | b[0], 0x62000000u | b[0] << 8 | b[1],
         0x63000000u | b[0] << 16 | b[1] << 8 | b[2], 0x64000000u | b[1]},
        2,
        3,
        MIX_BYTE,
    };
    return coder_byte(&delta->coder, &contexts, known_byte(known, 0) WANT(wanted));
}

static uint32_t new_size(const struct delta *delta, uint32_t p, uint32_t end) {
    const uint32_t align = alignment(delta);
    return (p & align) != 0 || p + align >= end ? 1 : align + 1;
}

/* `size` bytes at `p` of `data`, which are read, or learned when they are there already. */
static uint32_t new_unit(struct delta *delta, const uint8_t *data, uint32_t p, uint32_t size,
                         bool known WANT(uint32_t wanted)) {
    uint32_t before[4];
    for (uint32_t i = 0; i < 4; i++) {
        before[i] = p > i ? data[p - i - 1] : 0;
    }
    const uint8_t *const here = known ? data + p : NULL;
    return size == 1   ? new_byte(delta, before, here WANT(wanted))
           : size == 2 ? new_half(delta, before, here WANT(wanted))
                       : new_word(delta, before, here WANT(wanted));
}

/* Learn from bytes that are known as if they were new. */
static void train(struct delta *delta, const uint8_t *data, uint32_t p, uint32_t end) {
    while (p < end) {
        delta_pace(delta);
        const uint32_t size = new_size(delta, p, end);
        new_unit(delta, data, p, size, true WANT(0));
        p += size;
    }
}

/* Where a copy is from, out of a number that was read: in the old image from the end of the last
 * such copy on, in the new one backwards from here. */
static int64_t copied_from(const struct delta *delta, bool old, uint32_t told) {
    const int64_t unit = alignment(delta) + 1;
    if (!old) {
        return delta->place - told * unit;
    }
    return (told & 1) != 0 ? delta->source - (told + 1) / 2 * unit
                           : delta->source + told / 2 * unit;
}

/* A copy of bytes that came somewhere before: from where, and how many up to `end`. */
static int get_copy(struct delta *delta, uint32_t end) {
    const uint16_t context = (uint16_t)(FLAG_COPY_OLD + delta->copied);
    const bool old = coder_flag(&delta->coder, &context, 1,
                                MIX_COPY_OLD WANT(wanted_copy(delta)->from_old)) != 0;
    const uint32_t told =
        delta_number(delta, old ? DISTANCE_OLD : DISTANCE_NEW WANT(wanted_distance(delta)));
    const uint32_t units =
        delta_number(delta, old ? LENGTH_OLD : LENGTH_NEW WANT(wanted_units(delta)));
    const int64_t from = copied_from(delta, old, told);
    const int64_t length = units * (int64_t)(alignment(delta) + 1);
    const int64_t room = old ? delta->header.base_length : delta->place;
    if (from < 0 || from >= room || length == 0 || length > end - delta->place ||
        (old && length > room - from)) {
        return DELTA_MALFORMED;
    }
    delta->copied = true;
    delta->copy_old = old;
    delta->copy_from = (uint32_t)from;
    delta->copy_left = (uint32_t)length;
    if (old) {
        delta->source = (uint32_t)(from + length);
    }
    return DELTA_OK;
}

static void copy_some(struct delta *delta) {
    uint8_t *const image = delta->job.image;
    const uint8_t *const from = delta->copy_old ? delta->job.base : image;
    const uint32_t count = delta->copy_left < COPY_STEP ? delta->copy_left : COPY_STEP;
    for (uint32_t i = 0; i < count; i++) {
        image[delta->place + i] = from[delta->copy_from + i];
    }
    delta->place += count;
    delta->copy_from += count;
    delta->copy_left -= count;
}

/* Whether a copy comes, as it can where a whole unit would. */
static bool begins_copy(struct delta *delta, uint32_t end) {
    const uint32_t align = alignment(delta);
    const uint16_t context = (uint16_t)(FLAG_COPY + delta->copied);
    return delta->header.version > 1 && (delta->place & align) == 0 && delta->place + align < end &&
           coder_flag(&delta->coder, &context, 1, MIX_COPY WANT(wants_copy(delta))) != 0;
}

int delta_step_gap(struct delta *delta, uint32_t end, uint32_t source_end) {
    ASSERT(delta->place < end && end <= delta->header.length);
    ASSERT(source_end <= delta->header.base_length);
    uint8_t *const image = delta->job.image;
    const uint32_t p = delta->place;
    if (!delta->trained) {
        const uint32_t limit = delta->source + TRAIN_OLD;
        train(delta, image, p > TRAIN_BEFORE ? p - TRAIN_BEFORE : 0, p);
        train(delta, delta->job.base, delta->source, source_end < limit ? source_end : limit);
        delta->trained = true;
        delta->copied = false;
        delta->source &= ~alignment(delta);
    }
    if (at_digest(delta)) {
        return calculate_digest(delta, end);
    }
    if (delta->copy_left > 0) {
        copy_some(delta);
        return DELTA_OK;
    }
    const uint32_t stop = until(delta, p, end);
    if (begins_copy(delta, stop)) {
        return get_copy(delta, stop);
    }
    const uint32_t size = new_size(delta, p, stop);
    put_little(image + p, size,
               new_unit(delta, image, p, size, false WANT(wanted_new(delta, p, size))));
    delta->place += size;
    delta->copied = false;
    return DELTA_OK;
}
