/* The cheapest way through each gap, of units as the model codes them and of copies. What a unit
 * costs is measured, what a copy costs is guessed from the copies that were chosen before. Each
 * round measures and guesses better. */
#include "parse.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/delta.h"

enum {
    ROUNDS = 3,
    HASHED = 4, /* bytes that a copy has at least */
    BUCKETS = 1 << 16,
    TRIES = 48,     /* places in each image that are looked at */
    LONGEST = 1024, /* bytes that are compared; so long a copy is taken */
    SHORT = 64,     /* units up to which every length of a copy is offered */
    NUMBER_BITS = 25,
};

enum { OF_DISTANCE_OLD, OF_DISTANCE_NEW, OF_LENGTH_NEW, OF_LENGTH_OLD, KINDS };

/* How often numbers of so many bits came, and copies at all. */
struct guess {
    double of[KINDS][NUMBER_BITS + 1];
    double copies;
    double units;
};

/* Places by a hash of the bytes there. */
struct index {
    const uint8_t *data;
    uint32_t length;
    int32_t *heads;
    int32_t *nexts; /* for each unit */
};

/* The cheapest way to a place: from where, by a unit or by a copy. */
struct node {
    double price;
    uint32_t before;
    uint32_t from;
    bool copied;
    bool old;
    uint32_t source; /* the end of the last copy from the old image */
};

struct parse {
    const struct codec_plan *plan;
    uint32_t unit;
    struct index old;
    struct index new;
    uint32_t indexed; /* so far of the new image */
    float *bits;
    struct node *nodes;
    struct guess guess;  /* prices in bits */
    struct guess counts; /* of this round */
    struct codec_copy *copies;
    size_t count;
    size_t room;
};

static uint32_t hash(const uint8_t *data) {
    uint32_t word;
    memcpy(&word, data, sizeof word);
    return word * 0x9E3779B1u >> 16;
}

static bool index_open(struct index *index, const uint8_t *data, uint32_t length, uint32_t unit) {
    index->data = data;
    index->length = length;
    index->heads = malloc(BUCKETS * sizeof *index->heads);
    index->nexts = malloc(((size_t)length / unit + 1) * sizeof *index->nexts);
    if (index->heads == NULL || index->nexts == NULL) {
        return false;
    }
    memset(index->heads, 0xFF, BUCKETS * sizeof *index->heads);
    return true;
}

static void index_add(struct index *index, uint32_t from, uint32_t end, uint32_t unit) {
    for (uint32_t at = from; at < end && at + HASHED <= index->length; at += unit) {
        int32_t *const head = &index->heads[hash(index->data + at)];
        index->nexts[at / unit] = *head;
        *head = (int32_t)at;
    }
}

static uint32_t bit_length_of(uint32_t value) {
    return value == 0 ? 0 : 32 - (uint32_t)__builtin_clz(value);
}

static double number_price(const struct guess *guess, int kind, uint32_t value) {
    const uint32_t bits = bit_length_of(value);
    return guess->of[kind][bits] + (bits > 1 ? bits - 1 : 0);
}

/* From counts to prices in bits. */
static struct guess to_prices(const struct guess *counts) {
    struct guess prices;
    for (int kind = 0; kind < KINDS; kind++) {
        double sum = 0;
        for (int bits = 0; bits <= NUMBER_BITS; bits++) {
            sum += counts->of[kind][bits];
        }
        for (int bits = 0; bits <= NUMBER_BITS; bits++) {
            prices.of[kind][bits] = log2(sum / counts->of[kind][bits]);
        }
    }
    prices.copies = log2((counts->copies + counts->units) / counts->copies);
    prices.units = 0; /* is in what was measured */
    return prices;
}

static uint32_t matching(const uint8_t *a, const uint8_t *b, uint32_t limit) {
    uint32_t length = 0;
    while (length < limit && a[length] == b[length]) {
        length++;
    }
    return length;
}

/* The number that says where a copy is from (docs/delta-format.md). */
static uint32_t told(const struct parse *parse, uint32_t place, uint32_t source, bool old,
                     uint32_t from) {
    const int64_t unit = parse->unit;
    if (!old) {
        return (uint32_t)((place - from) / unit);
    }
    const int64_t distance = ((int64_t)from - source) / unit;
    return (uint32_t)(distance < 0 ? -2 * distance - 1 : 2 * distance);
}

static void relax(struct parse *parse, uint32_t base, uint32_t place, uint32_t length,
                  const struct node *way) {
    struct node *const node = &parse->nodes[place + length - base];
    if (way->price < node->price) {
        *node = *way;
        node->before = place;
    }
}

static void offer_copy(struct parse *parse, uint32_t base, uint32_t place, bool old, uint32_t from,
                       uint32_t length, double price) {
    const struct node *const node = &parse->nodes[place - base];
    const int kind = old ? OF_LENGTH_OLD : OF_LENGTH_NEW;
    const struct node way = {
        node->price + price + number_price(&parse->guess, kind, length / parse->unit),
        place,
        from,
        true,
        old,
        old ? from + length : node->source,
    };
    relax(parse, base, place, length, &way);
}

/* Offers copies from one of the images to `place`. Returns the length of the longest. */
static uint32_t offer_copies(struct parse *parse, uint32_t base, uint32_t place, uint32_t end,
                             bool old) {
    const struct index *const index = old ? &parse->old : &parse->new;
    const struct node *const node = &parse->nodes[place - base];
    const uint8_t *const wanted = parse->plan->new + place;
    double cheapest[SHORT + 1];
    uint32_t best[SHORT + 1];
    uint32_t most = 0;
    uint32_t longest = 0;
    int32_t at = index->heads[hash(wanted)];
    for (int tries = 0; at >= 0 && tries < TRIES; tries++) {
        const uint32_t from = (uint32_t)at;
        const uint32_t room = old ? index->length - from : end - place;
        uint32_t limit = end - place < room ? end - place : room;
        limit = limit < LONGEST ? limit : LONGEST;
        const uint32_t units = matching(index->data + from, wanted, limit) / parse->unit;
        const int kind = old ? OF_DISTANCE_OLD : OF_DISTANCE_NEW;
        const double price =
            parse->guess.copies + 1 +
            number_price(&parse->guess, kind, told(parse, place, node->source, old, from));
        if (units > longest) {
            longest = units;
            offer_copy(parse, base, place, old, from, units * parse->unit, price);
        }
        for (uint32_t k = units < SHORT ? units : SHORT; k > 0; k--) {
            if (k > most) {
                cheapest[k] = INFINITY;
            }
            if (price < cheapest[k]) {
                cheapest[k] = price;
                best[k] = from;
            }
        }
        const uint32_t reached = units < SHORT ? units : SHORT;
        most = reached > most ? reached : most;
        at = index->nexts[from / parse->unit];
    }
    for (uint32_t k = 1; k <= most; k++) {
        offer_copy(parse, base, place, old, best[k], k * parse->unit, cheapest[k]);
    }
    return longest * parse->unit;
}

static bool add_copy(struct parse *parse, struct codec_copy copy) {
    if (parse->count == parse->room) {
        const size_t room = parse->room * 2 + 64;
        void *const grown = realloc(parse->copies, room * sizeof *parse->copies);
        if (grown == NULL) {
            return false;
        }
        parse->copies = grown;
        parse->room = room;
    }
    parse->copies[parse->count++] = copy;
    return true;
}

static void count_copy(struct parse *parse, const struct codec_copy *copy, uint32_t source) {
    struct guess *const counts = &parse->counts;
    const bool old = copy->from_old != 0;
    const uint32_t place = told(parse, copy->new, source, old, copy->from);
    counts->of[old ? OF_DISTANCE_OLD : OF_DISTANCE_NEW][bit_length_of(place)]++;
    counts->of[old ? OF_LENGTH_OLD : OF_LENGTH_NEW][bit_length_of(copy->length / parse->unit)]++;
    counts->copies++;
}

/* Follows the cheapest way back; the copies come in order. */
static bool take_way(struct parse *parse, uint32_t base, uint32_t end) {
    const size_t first = parse->count;
    uint32_t at = end;
    while (at > base) {
        const struct node *const node = &parse->nodes[at - base];
        const struct codec_copy copy = {node->before, at - node->before, node->from, node->old};
        if (node->copied) {
            count_copy(parse, &copy, parse->nodes[node->before - base].source);
            if (!add_copy(parse, copy)) {
                return false;
            }
        } else {
            parse->counts.units++;
        }
        at = node->before;
    }
    for (size_t i = first, k = parse->count; i + 1 < k; i++) {
        const struct codec_copy copy = parse->copies[i];
        parse->copies[i] = parse->copies[--k];
        parse->copies[k] = copy;
    }
    return true;
}

/* One gap, up to the digest if that lies in it. `source`: where the old image goes on there. */
static bool parse_gap(struct parse *parse, uint32_t base, uint32_t end, uint32_t source) {
    const uint32_t align = parse->unit - 1;
    for (uint32_t i = 0; i <= end - base; i++) {
        parse->nodes[i].price = INFINITY;
    }
    parse->nodes[0] = (struct node){.source = source & ~align};
    uint32_t quiet = base; /* before this, what could be copied belongs to a long copy */
    for (uint32_t place = base; place < end; place++) {
        const struct node *const node = &parse->nodes[place - base];
        if (isinf(node->price)) {
            continue;
        }
        const bool whole = (place & align) == 0 && place + align < end;
        struct node way = *node;
        way.price += parse->bits[place];
        way.copied = false;
        relax(parse, base, place, whole ? parse->unit : 1, &way);
        if (!whole || place < quiet || end - place < HASHED) {
            continue;
        }
        const uint32_t from = (parse->indexed + align) & ~align;
        if (from < place) {
            index_add(&parse->new, from, place, parse->unit);
            parse->indexed = place;
        }
        const uint32_t old = offer_copies(parse, base, place, end, true);
        const uint32_t new = offer_copies(parse, base, place, end, false);
        const uint32_t longest = old > new ? old : new;
        if (longest + parse->unit > LONGEST) {
            quiet = place + longest;
        }
    }
    return take_way(parse, base, end);
}

static struct guess first_guess(void) {
    struct guess guess = {.copies = 1, .units = 4};
    for (int kind = 0; kind < KINDS; kind++) {
        for (int bits = 0; bits <= NUMBER_BITS; bits++) {
            guess.of[kind][bits] = 1;
        }
    }
    return guess;
}

/* All gaps: what lies between the segments of both lists. */
static bool parse_image(struct parse *parse, uint32_t segments) {
    const struct codec_plan *const plan = parse->plan;
    const struct codec_segment last = {plan->new_length, 0, plan->old_length};
    uint32_t place = 0;
    uint32_t source = 0;
    parse->count = 0;
    parse->counts = first_guess();
    parse->indexed = 0;
    memset(parse->new.heads, 0xFF, BUCKETS * sizeof *parse->new.heads);
    for (uint32_t table = 0, local = 0; place < plan->new_length;) {
        const struct codec_segment *next = table < segments ? &plan->table[table] : &last;
        if (local < plan->locals && plan->local[local].new < next->new) {
            next = &plan->local[local++];
        } else {
            table++;
        }
        const bool cut = place < plan->digest && plan->digest < next->new;
        if (place < next->new && !parse_gap(parse, place, cut ? plan->digest : next->new, source)) {
            return false;
        }
        place = next->new + next->length;
        source = next->old + next->length;
    }
    return true;
}

/* Rounds of parsing and measuring, as long as it gets better. The best is in `best`. */
static int parse_rounds(struct parse *parse, codec_sha256 *sha256, uint32_t segments,
                        struct parse *best) {
    struct codec_plan plan = *parse->plan;
    plan.copy_count = 0;
    double least = codec_price(&plan, sha256, parse->bits);
    if (least < 0) {
        return (int)least;
    }
    parse->counts = first_guess();
    for (int round = 0; round < ROUNDS; round++) {
        parse->guess = to_prices(&parse->counts);
        if (!parse_image(parse, segments)) {
            return DELTA_NO_MEMORY;
        }
        plan.copies = parse->copies;
        plan.copy_count = (uint32_t)parse->count;
        const double price = codec_price(&plan, sha256, parse->bits);
        if (price < 0) {
            return (int)price;
        }
        if (price >= least) {
            break;
        }
        least = price;
        const struct parse other = *best;
        best->copies = parse->copies;
        best->count = parse->count;
        best->room = parse->room;
        parse->copies = other.copies;
        parse->room = other.room;
    }
    return DELTA_OK;
}

int64_t parse_copies(const struct codec_plan *plan, codec_sha256 *sha256,
                     struct codec_copy **copies) {
    struct delta_header header;
    int error = delta_parse_header(&header, plan->header, plan->header_length);
    if (error != DELTA_OK) {
        return error;
    }
    struct parse best = {0};
    struct parse parse = {
        .plan = plan,
        .unit = header.isa == 0   ? 1
                : header.isa == 1 ? 2
                                  : 4,
        .bits = calloc(plan->new_length, sizeof *parse.bits),
        .nodes = malloc(((size_t)plan->new_length + 1) * sizeof *parse.nodes),
    };
    const bool opened = index_open(&parse.old, plan->old, plan->old_length, parse.unit) &&
                        index_open(&parse.new, plan->new, plan->new_length, parse.unit);
    error = DELTA_NO_MEMORY;
    if (opened && parse.bits != NULL && parse.nodes != NULL) {
        index_add(&parse.old, 0, plan->old_length, parse.unit);
        error = parse_rounds(&parse, sha256, header.segments, &best);
    }
    free(parse.old.heads);
    free(parse.old.nexts);
    free(parse.new.heads);
    free(parse.new.nexts);
    free(parse.bits);
    free(parse.nodes);
    free(parse.copies);
    *copies = best.copies;
    return error == DELTA_OK ? (int64_t)best.count : error;
}

void parse_free(struct codec_copy *copies) {
    free(copies);
}
