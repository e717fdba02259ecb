#include <string.h>

#include "lib/delta_state.h"

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
uint32_t delta_near(const struct delta *delta, uint32_t value) {
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
    return in_window(delta, value) ? delta_near(delta, value) : value;
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

void delta_classify(struct delta *delta, struct unit *unit, uint32_t q, uint32_t p, uint32_t left) {
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

static void predict_moved(const struct delta *delta, struct unit *unit, uint32_t q, uint32_t p) {
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

void delta_predict(const struct delta *delta, struct unit *unit, uint32_t q, uint32_t p) {
    predict_moved(delta, unit, q, p);
    look_up(delta, unit, p);
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

void delta_learn(struct delta *delta, const struct unit *unit, uint32_t actual, uint32_t p) {
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
