/* The cheapest way through each gap, of new units and of copies. What a unit costs is estimated
 * from how often its bytes came before, what a copy costs from what copies are like in most images.
 */
#include "parse.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/delta.h"
#include "lib/delta_code.h"

enum {
    HASHED = 4, /* bytes that a copy has at least */
    BUCKETS = 1 << 16,
    TRIES = 48,     /* places in each image that are looked at */
    LONGEST = 1024, /* bytes that are compared; so long a copy is taken */
    SHORT = 64,     /* units up to which every length of a copy is offered */
    NUMBER_BITS = 25,
    WIDEST = 4, /* bytes of a unit */
    FRESH = 2,  /* times that a new unit counts, to one of the old image */
    BASIS = 12, /* units for which it counts how often a byte comes at all, whatever is above it */
};

#define LOOSE_BITS 6.0F /* of a byte that is in no whole unit */

enum { OF_DISTANCE_OLD, OF_DISTANCE_NEW, OF_LENGTH_NEW, OF_LENGTH_OLD, KINDS };

#define COPY_BITS 3.0 /* that a copy comes, and from which image */

/* What numbers of so many bits cost, of each kind. */
struct prices {
    double of[KINDS][NUMBER_BITS + 1];
};

/* Places by a hash of the bytes there. */
struct index {
    const uint8_t *data;
    uint32_t length;
    int32_t *heads;
    int32_t *nexts; /* for each unit */
};

/* How often bytes came at each place of a unit, and how often below each byte. */
struct bytes {
    uint32_t of[WIDEST][256];
    uint32_t below[WIDEST][256][256];
    uint32_t all[WIDEST];
    uint32_t all_below[WIDEST][256];
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
    struct prices prices;
    struct codec_copy *copies;
    size_t count;
    size_t room;
};

/* What lies between two segments. */
struct gap {
    uint32_t start;
    uint32_t end;
    uint32_t source;             /* where the old image goes on there */
    struct codec_segment behind; /* the next segment, at first none */
    uint32_t table;              /* segments of the lists that came */
    uint32_t local;
};

/* The next gap that is not empty, up to the digest if that lies in it. */
static bool next_gap(const struct codec_plan *plan, uint32_t segments, struct gap *gap) {
    const struct codec_segment last = {plan->new_length, 0, plan->old_length};
    do {
        gap->start = gap->behind.new + gap->behind.length;
        gap->source = gap->behind.old + gap->behind.length;
        const struct codec_segment *next = gap->table < segments ? &plan->table[gap->table] : &last;
        const bool local = gap->local < plan->locals && plan->local[gap->local].new < next->new;
        gap->behind = local ? plan->local[gap->local] : *next;
        gap->local += local;
        gap->table += !local;
        const bool cut = gap->start < plan->digest && plan->digest < gap->behind.new;
        gap->end = cut ? plan->digest : gap->behind.new;
    } while (gap->start >= gap->end && gap->start < plan->new_length);
    return gap->start < gap->end;
}

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

static double number_price(const struct prices *prices, int kind, uint32_t value) {
    const uint32_t bits = bit_length_of(value);
    return prices->of[kind][bits] + (bits > 1 ? bits - 1 : 0);
}

/* How likely a length of so many bits is: each further bit is so many times as likely. */
static double likely_length(int bits, int least, double times) {
    return (bits < least ? 0 : (1 - times) * pow(times, bits - least)) + 0.0005;
}

/* As copies are in most images, as measured: short, and from anywhere. */
static struct prices guess_prices(uint32_t unit) {
    struct prices prices;
    const int least = (int)bit_length_of(HASHED / unit);
    for (int bits = 0; bits <= NUMBER_BITS; bits++) {
        const double likely = bits > 1 && bits < 19 ? 0.056 : 0.0056;
        prices.of[OF_DISTANCE_OLD][bits] = -log2(likely);
        prices.of[OF_DISTANCE_NEW][bits] = -log2(likely);
        prices.of[OF_LENGTH_OLD][bits] = -log2(likely_length(bits, least, 0.15));
        prices.of[OF_LENGTH_NEW][bits] = -log2(likely_length(bits, least, 0.3));
    }
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
        node->price + price + number_price(&parse->prices, kind, length / parse->unit),
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
        at = index->nexts[from / parse->unit];
        __builtin_prefetch(index->data + (at < 0 ? 0 : at)); /* far away: most time is waiting */
        const uint32_t room = old ? index->length - from : end - place;
        uint32_t limit = end - place < room ? end - place : room;
        limit = limit < LONGEST ? limit : LONGEST;
        const uint32_t units = matching(index->data + from, wanted, limit) / parse->unit;
        const int kind = old ? OF_DISTANCE_OLD : OF_DISTANCE_NEW;
        const double price = COPY_BITS + number_price(&parse->prices, kind,
                                                      told(parse, place, node->source, old, from));
        if (units > longest) {
            longest = units;
            offer_copy(parse, base, place, old, from, units * parse->unit, price);
        }
        /* What is longer is shorter, too: no length is cheaper than one below it. */
        const uint32_t reached = units < SHORT ? units : SHORT;
        for (uint32_t k = reached; k > 0 && (k > most || price < cheapest[k]); k--) {
            cheapest[k] = price;
            best[k] = from;
        }
        most = reached > most ? reached : most;
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

/* Follows the cheapest way back; the copies come in order. */
static bool take_way(struct parse *parse, uint32_t base, uint32_t end) {
    const size_t first = parse->count;
    uint32_t at = end;
    while (at > base) {
        const struct node *const node = &parse->nodes[at - base];
        const struct codec_copy copy = {node->before, at - node->before, node->from, node->old};
        if (node->copied && !add_copy(parse, copy)) {
            return false;
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

/* ---- What units cost ---- */

/* Takes note of a unit, and says in bits how rare it was. */
static float count_unit(struct bytes *bytes, const uint8_t *unit, uint32_t size, uint32_t times) {
    float likely = 1;
    uint32_t above = 0;
    for (uint32_t j = size; j-- > 0;) {
        const uint32_t byte = unit[j];
        uint32_t *const here = &bytes->of[j][byte];
        uint32_t *const below = &bytes->below[j][above][byte];
        const float any = ((float)*here + 0.5F) / ((float)bytes->all[j] + 128);
        likely *= ((float)*below + BASIS * any) / ((float)bytes->all_below[j][above] + BASIS);
        *here += times;
        *below += times;
        bytes->all[j] += times;
        bytes->all_below[j][above] += times;
        above = byte;
    }
    return -log2f(likely);
}

/* The model predicts worse than this the wider units are, as measured. */
static float scale_of(uint32_t unit) {
    return unit == 4 ? 1.4F : unit == 2 ? 1.15F : 1;
}

/* Counts the units of the old image, then those of each gap, which are estimated first. */
static bool estimate(struct parse *parse, uint32_t segments) {
    const struct codec_plan *const plan = parse->plan;
    const uint32_t unit = parse->unit;
    struct bytes *const bytes = calloc(1, sizeof *bytes);
    if (bytes == NULL) {
        return false;
    }
    for (uint32_t at = 0; at + unit <= plan->old_length; at += unit) {
        count_unit(bytes, plan->old + at, unit, 1);
    }
    struct gap gap = {0};
    while (next_gap(plan, segments, &gap)) {
        for (uint32_t place = gap.start; place < gap.end;) {
            const bool whole = place % unit == 0 && place + unit <= gap.end;
            parse->bits[place] = LOOSE_BITS;
            if (whole) {
                parse->bits[place] =
                    scale_of(unit) * count_unit(bytes, plan->new + place, unit, FRESH);
            }
            place += whole ? unit : 1;
        }
    }
    free(bytes);
    return true;
}

static bool parse_image(struct parse *parse, uint32_t segments) {
    struct gap gap = {0};
    while (next_gap(parse->plan, segments, &gap)) {
        if (!parse_gap(parse, gap.start, gap.end, gap.source)) {
            return false;
        }
    }
    return true;
}

int64_t parse_copies(const struct codec_plan *plan, struct codec_copy **copies) {
    struct delta_header header;
    const int error = delta_parse_header(&header, plan->header, plan->header_length);
    if (error != DELTA_OK) {
        return error;
    }
    const uint32_t unit = header.isa == DELTA_ARM ? 4 : header.isa == DELTA_THUMB ? 2 : 1;
    struct parse parse = {
        .plan = plan,
        .unit = unit,
        .prices = guess_prices(unit),
        .bits = calloc(plan->new_length, sizeof *parse.bits),
        .nodes = malloc(((size_t)plan->new_length + 1) * sizeof *parse.nodes),
    };
    const bool opened = index_open(&parse.old, plan->old, plan->old_length, parse.unit) &&
                        index_open(&parse.new, plan->new, plan->new_length, parse.unit);
    bool good = false;
    if (opened && parse.bits != NULL && parse.nodes != NULL) {
        index_add(&parse.old, 0, plan->old_length, parse.unit);
        good = estimate(&parse, header.segments) && parse_image(&parse, header.segments);
    }
    free(parse.old.heads);
    free(parse.old.nexts);
    free(parse.new.heads);
    free(parse.new.nexts);
    free(parse.bits);
    free(parse.nodes);
    *copies = parse.copies;
    return good ? (int64_t)parse.count : DELTA_NO_MEMORY;
}

void parse_free(struct codec_copy *copies) {
    free(copies);
}
