#include "align.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/delta_code.h"
#include "suffixes.h"

enum { ROUNDS = 1, LOOK_BACK = 8, BETTER = 8, STRING_BITS = 23 };

/* What things cost in the file, in bits, about. */
#define SEGMENT_BITS 60.0
#define RESUMED_BITS 40.0
#define WRONG_BYTE_BITS 10.0
#define WRONG_RUN_BITS 4.0
#define NEW_BYTE_BITS 5.0

enum {
    STATES = 12, /* ways that are kept at each border */
    NEAR = 3,    /* pieces before and behind, whose shifts are tried */
    SHIFTS = 2 * NEAR + 1,
};

static bool add(struct align_segments *segments, int64_t new, int64_t length, int64_t old) {
    if (segments->count == segments->room) {
        const size_t room = segments->room * 2 + 64;
        void *const grown = realloc(segments->of, room * sizeof *segments->of);
        if (grown == NULL) {
            return false;
        }
        segments->of = grown;
        segments->room = room;
    }
    segments->of[segments->count++] =
        (struct codec_segment){(uint32_t)new, (uint32_t)length, (uint32_t)old};
    return true;
}

/* ---- Matches: C. Percival, "Naive Differences of Executable Code" (bsdiff) ---- */

/* How far to go from two places, forwards or backwards, so that most bytes there agree. */
static int64_t extend(const uint8_t *a, const uint8_t *b, int64_t limit, int step) {
    int64_t agreeing = 0;
    int64_t best = 0;
    int64_t length = 0;
    for (int64_t i = 1; i <= limit; i++) {
        agreeing += *a == *b;
        a += step;
        b += step;
        if (2 * agreeing - i > best) {
            best = 2 * agreeing - i;
            length = i;
        }
    }
    return length;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Where to part `overlap` bytes, which could belong to one match or the next. */
static int64_t part(const uint8_t *new, const uint8_t *one, const uint8_t *next, int64_t overlap) {
    int64_t won = 0;
    int64_t best = 0;
    int64_t length = 0;
    for (int64_t i = 0; i < overlap; i++) {
        won += (new[i] == one[i]) - (new[i] == next[i]);
        if (won > best) {
            best = won;
            length = i + 1;
        }
    }
    return length;
}

/* Which strings of BETTER bytes the old image may have: a bit for each hash. */
struct strings {
    uint64_t bits[1 << (STRING_BITS - 6)];
};

static uint32_t hash_string(const uint8_t *data) {
    uint64_t string;
    _Static_assert(sizeof string == BETTER, "a string fills a word");
    memcpy(&string, data, sizeof string);
    return (uint32_t)(string * 0x9E3779B97F4A7C15u >> (64 - STRING_BITS));
}

static struct strings *note_strings(const struct suffixes *old) {
    struct strings *const strings = calloc(1, sizeof *strings);
    for (int32_t at = 0; strings != NULL && at + BETTER <= old->length; at++) {
        const uint32_t hash = hash_string(old->data + at);
        strings->bits[hash / 64] |= (uint64_t)1 << hash % 64;
    }
    return strings;
}

static bool may_have(const struct strings *strings, const uint8_t *data, int64_t left) {
    if (left < BETTER) {
        return true;
    }
    const uint32_t hash = hash_string(data);
    return strings->bits[hash / 64] >> hash % 64 & 1;
}

static bool agrees(const struct suffixes *old, const uint8_t *new, int64_t at, int64_t shift) {
    return at + shift < old->length && old->data[at + shift] == new[at];
}

/* The alignment as bsdiff makes it: matches that are longer by more than BETTER bytes than what
 * agrees anyway, each extended in both directions. */
static bool find_matches(const struct suffixes *old, const struct strings *strings,
                         const uint8_t *new, int64_t size, struct align_segments *segments) {
    int64_t start = 0;  /* of the match before, with what it was extended by */
    int64_t source = 0; /* of that in the old image */
    int64_t place = 0;
    int32_t match = 0;
    segments->count = 0;
    for (int64_t scan = 0; scan < size;) {
        const int64_t shift = source - start;
        int64_t agreeing = 0;
        scan += match;
        for (int64_t counted = scan; scan < size; scan++) {
            const bool same = agrees(old, new, scan, shift);
            if (!same && !may_have(strings, new + scan, size - scan)) {
                counted += counted == scan;
                continue; /* too short a match, whatever it is */
            }
            int32_t found = 0;
            match = suffixes_find(old, new + scan, (int32_t)(size - scan), &found);
            place = found;
            for (; counted < scan + match; counted++) {
                agreeing += agrees(old, new, counted, shift);
            }
            if ((match == agreeing && match != 0) || match > agreeing + BETTER) {
                break;
            }
            agreeing -= same;
        }
        if (match == agreeing && scan < size) {
            continue;
        }
        int64_t forwards =
            extend(old->data + source, new + start, least(scan - start, old->length - source), 1);
        int64_t backwards = 0;
        if (scan < size) {
            backwards =
                extend(old->data + place - 1, new + scan - 1, least(scan - start, place), -1);
        }
        const int64_t overlap = start + forwards - (scan - backwards);
        if (overlap > 0) {
            const int64_t from = scan - backwards;
            const int64_t first = part(new + from, old->data + source + (from - start),
                                       old->data + place - backwards, overlap);
            forwards += first - overlap;
            backwards -= first;
        }
        if (forwards > 0 && !add(segments, start, forwards, source)) {
            return false;
        }
        start = scan - backwards;
        source = place - backwards;
    }
    return true;
}

/* ---- What addresses become ---- */

/* The segments in the order of the old image. */
struct map {
    const struct codec_segment **of;
    size_t count;
};

static int by_old(const void *a, const void *b) {
    const struct codec_segment *const left = *(const struct codec_segment *const *)a;
    const struct codec_segment *const right = *(const struct codec_segment *const *)b;
    if (left->old != right->old) {
        return left->old < right->old ? -1 : 1;
    }
    return left->new < right->new ? -1 : left->new > right->new; /* as they stand in the table */
}

/* As the format says of segments that are in the table; here all are. */
static int64_t moved(const struct map *map, int64_t offset) {
    size_t low = 0;
    size_t high = map->count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (map->of[middle]->old <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const size_t last = low > 0 ? low - 1 : 0;
    const struct codec_segment *best = map->of[last];
    for (size_t back = 0; back < LOOK_BACK && back <= last; back++) {
        const struct codec_segment *const segment = map->of[last - back];
        if (segment->old <= offset && offset < (int64_t)segment->old + segment->length) {
            best = segment;
            break;
        }
    }
    return offset + (int64_t)best->new - best->old;
}

static uint32_t get16(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get32(const uint8_t *at) {
    return get16(at) | get16(at + 2) << 16;
}

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value);
    put16(at + 2, value >> 16);
}

/* Whatever could be a BL of Thumb. The fields are put in even when it cannot reach that far: what
 * counts is that equal calls stay equal. */
static void move_thumb_calls(const struct align_images *images, const struct map *map,
                             uint8_t *out) {
    const int64_t length = images->old_length & ~1u;
    int64_t call = -2;
    for (int64_t at = 0; at + 4 <= length; at += 2) {
        const uint32_t word = get16(images->old + at) << 16 | get16(images->old + at + 2);
        int64_t target;
        if ((word & 0xF800D000u) != 0xF000D000u || !delta_branch(DELTA_THUMB, word, at, &target) ||
            target < 0 || target > length) {
            continue;
        }
        const int64_t offset = moved(map, target) - moved(map, at) - 4;
        const uint32_t bits = (uint32_t)offset;
        const uint32_t s = bits >> 24 & 1;
        const uint32_t j1 = 1 ^ (bits >> 23 & 1) ^ s;
        const uint32_t j2 = 1 ^ (bits >> 22 & 1) ^ s;
        if (call + 2 != at) { /* else it is the second half of that */
            put16(out + at, 0xF000u | s << 10 | (bits >> 12 & 0x3FF));
        }
        put16(out + at + 2, (word & 0xD000u) | j1 << 13 | j2 << 11 | (bits >> 1 & 0x7FF));
        call = at;
    }
}

/* Whatever could be a word with an address in the image, or a branch of ARM. */
static void move_words(const struct align_images *images, const struct map *map, uint8_t *out) {
    const int64_t length = images->old_length & ~3u;
    for (int64_t at = 0; at < length; at += 4) {
        const uint32_t word = get32(images->old + at);
        if (word >= images->base && word - images->base <= images->old_length) {
            put32(out + at, (uint32_t)(moved(map, word - images->base) + images->base));
        } else if (images->isa == DELTA_ARM && (word & 0x0E000000u) == 0x0A000000u) {
            const int64_t target = at + 8 + (int64_t)((int32_t)(word << 8) >> 8) * 4;
            if (target >= 0 && target <= length) {
                const uint32_t offset = (uint32_t)(moved(map, target) - moved(map, at) - 8);
                put32(out + at, (word & 0xFF000000u) | (offset >> 2 & 0xFFFFFFu));
            }
        }
    }
}

/* The old image with the addresses that the segments imply: only real differences are left. False:
 * no memory. */
static bool translate(const struct align_images *images, const struct align_segments *segments,
                      uint8_t *out) {
    memcpy(out, images->old, images->old_length);
    if (segments->count == 0 || images->isa == DELTA_DATA) {
        return true;
    }
    struct map map = {malloc(segments->count * sizeof *map.of), segments->count};
    if (map.of == NULL) {
        return false;
    }
    for (size_t i = 0; i < map.count; i++) {
        map.of[i] = &segments->of[i];
    }
    qsort(map.of, map.count, sizeof *map.of, by_old);
    if (images->isa == DELTA_THUMB) {
        move_thumb_calls(images, &map, out);
    }
    move_words(images, &map, out);
    free(map.of);
    return true;
}

/* ---- The cheapest way through the pieces into which the segments cut the new image ---- */

#define NO_SHIFT INT64_MAX

/* A way through the pieces so far: the last one's shift (old place - new place), or that it is new
 * and the shift of the segment before. */
struct way {
    double price;
    int64_t shift;
    int64_t last;
    int32_t before; /* number of the way that it goes on from */
};

struct choice {
    const uint8_t *source;
    int64_t source_length;
    const uint8_t *new;
    const uint32_t *borders;
    const int64_t *shifts; /* of the segment that begins with each piece, or NO_SHIFT */
    size_t pieces;
    struct way *ways; /* STATES for each border */
};

static double cost_of_wrong(const struct choice *choice, size_t piece, int64_t shift) {
    const int64_t start = choice->borders[piece];
    const int64_t end = choice->borders[piece + 1];
    if (start + shift < 0 || end + shift > choice->source_length) {
        return INFINITY;
    }
    const uint8_t *const a = choice->source + start + shift;
    const uint8_t *const b = choice->new + start;
    const int64_t length = end - start;
    uint32_t count = 0;
    uint32_t runs = 0;
    bool before = true; /* what the first byte begins is counted below */
    for (int64_t i = 0; i < length; i++) {
        if (i + 8 <= length && memcmp(a + i, b + i, 8) == 0) {
            before = false;
            i += 7;
            continue;
        }
        const bool differs = a[i] != b[i];
        count += differs;
        runs += differs && !before;
        before = differs;
    }
    return count * WRONG_BYTE_BITS + (count > 0 ? runs + 1 : 0) * WRONG_RUN_BITS;
}

/* The ways that are on offer at a border: one for each state. */
struct offers {
    struct way of[STATES * (SHIFTS + 2)];
    size_t count;
};

/* Where the way to the state of `way` stands; where one is to be entered when there is none. */
static size_t find_state(const struct offers *offers, const struct way *way) {
    size_t at = 0;
    while (at < offers->count &&
           (offers->of[at].shift != way->shift || offers->of[at].last != way->last)) {
        at++;
    }
    return at;
}

/* Offers a way at the place of its state, unless one that is as cheap stands there. */
static void offer(struct offers *offers, size_t at, struct way way) {
    if (at == offers->count) {
        offers->of[offers->count++] = way;
    } else if (way.price < offers->of[at].price) {
        offers->of[at] = way;
    }
}

/* Puts the cheapest in front, the earlier first of equals, and returns how many are kept. */
static size_t keep_cheapest(struct way *ways, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const struct way way = ways[i];
        size_t at = i;
        for (; at > 0 && ways[at - 1].price > way.price; at--) {
            ways[at] = ways[at - 1];
        }
        ways[at] = way;
    }
    return count < STATES ? count : STATES;
}

static bool holds(const int64_t *shifts, size_t count, int64_t shift) {
    for (size_t i = 0; i < count; i++) {
        if (shifts[i] == shift) {
            return true;
        }
    }
    return false;
}

/* The shifts that pieces near this one begin with, each once. */
static size_t near_shifts(const struct choice *choice, size_t piece, int64_t *near) {
    size_t count = 0;
    const size_t first = piece > NEAR ? piece - NEAR : 0;
    for (size_t i = first; i <= piece + NEAR && i < choice->pieces; i++) {
        const int64_t shift = choice->shifts[i];
        if (shift != NO_SHIFT && !holds(near, count, shift)) {
            near[count++] = shift;
        }
    }
    return count;
}

/* The price of one piece at the shifts that were asked for. */
struct costs {
    int64_t shift[SHIFTS + STATES];
    double of[SHIFTS + STATES];
    size_t count;
};

static double cost_at(const struct choice *choice, size_t piece, struct costs *costs,
                      int64_t shift) {
    for (size_t i = 0; i < costs->count; i++) {
        if (costs->shift[i] == shift) {
            return costs->of[i];
        }
    }
    const double cost = cost_of_wrong(choice, piece, shift);
    costs->shift[costs->count] = shift;
    costs->of[costs->count++] = cost;
    return cost;
}

/* The way with a segment, at `shift`, through one piece more. */
static struct way goes_on(const struct way *way, int64_t last, int64_t shift, double cost,
                          int32_t before) {
    if (shift != way->shift) {
        cost += shift == last ? RESUMED_BITS : SEGMENT_BITS;
    }
    return (struct way){way->price + cost, shift, NO_SHIFT, before};
}

/* From the ways to a piece to those through it. */
static size_t step(const struct choice *choice, size_t piece, size_t count) {
    struct offers offers = {.count = 0};
    struct costs costs = {.count = 0};
    int64_t near[SHIFTS];
    size_t known[SHIFTS]; /* where the way with that shift stands */
    const size_t shifts = near_shifts(choice, piece, near);
    const uint32_t length = choice->borders[piece + 1] - choice->borders[piece];
    for (size_t i = 0; i < count; i++) {
        const struct way *const way = &choice->ways[piece * STATES + i];
        const int64_t last = way->shift == NO_SHIFT ? way->last : way->shift;
        const int32_t before = (int32_t)i;
        struct way next = {way->price + NEW_BYTE_BITS * length, NO_SHIFT, last, before};
        offer(&offers, find_state(&offers, &next), next);
        for (size_t k = 0; k < shifts; k++) {
            next = goes_on(way, last, near[k], cost_at(choice, piece, &costs, near[k]), before);
            known[k] = i == 0 ? offers.count : known[k];
            offer(&offers, known[k], next);
        }
        if (last != NO_SHIFT && !holds(near, shifts, last)) {
            next = goes_on(way, last, last, cost_at(choice, piece, &costs, last), before);
            offer(&offers, find_state(&offers, &next), next);
        }
    }
    const size_t kept = keep_cheapest(offers.of, offers.count);
    memcpy(choice->ways + (piece + 1) * STATES, offers.of, kept * sizeof *offers.of);
    return kept;
}

/* Follows the way back and joins pieces that go on. */
static bool join(const struct choice *choice, struct align_segments *segments) {
    int64_t *const chosen = malloc(choice->pieces * sizeof *chosen);
    if (chosen == NULL) {
        return false;
    }
    int32_t at = 0;
    for (size_t piece = choice->pieces; piece-- > 0;) {
        const struct way *const way = &choice->ways[(piece + 1) * STATES + (size_t)at];
        chosen[piece] = way->shift;
        at = way->before;
    }
    segments->count = 0;
    bool good = true;
    for (size_t piece = 0; good && piece < choice->pieces; piece++) {
        const int64_t start = choice->borders[piece];
        const int64_t length = choice->borders[piece + 1] - start;
        if (chosen[piece] == NO_SHIFT) {
            continue;
        }
        if (piece > 0 && chosen[piece - 1] == chosen[piece]) {
            segments->of[segments->count - 1].length += (uint32_t)length;
        } else {
            good = add(segments, start, length, start + chosen[piece]);
        }
    }
    free(chosen);
    return good;
}

/* Cuts the new image at the ends of the segments, which do not overlap. Returns how many pieces. */
static size_t cut(const struct align_segments *segments, uint32_t length, uint32_t *borders,
                  int64_t *shifts) {
    size_t pieces = 0;
    uint32_t at = 0;
    borders[0] = 0;
    for (size_t i = 0; i < segments->count; i++) {
        const struct codec_segment *const segment = &segments->of[i];
        if (segment->new > at) {
            shifts[pieces++] = NO_SHIFT;
            borders[pieces] = segment->new;
        }
        at = segment->new + segment->length;
        shifts[pieces++] = (int64_t)segment->old - segment->new;
        borders[pieces] = at;
    }
    if (at < length) {
        shifts[pieces++] = NO_SHIFT;
        borders[pieces] = length;
    }
    return pieces;
}

/* Each piece goes on with the segment before, begins with one that is near, or is new. */
static bool choose(const struct align_images *images, const uint8_t *source,
                   struct align_segments *segments) {
    const size_t room = 2 * segments->count + 2;
    uint32_t *const borders = malloc(room * sizeof *borders);
    int64_t *const shifts = malloc(room * sizeof *shifts);
    struct way *const ways = malloc(room * STATES * sizeof *ways);
    bool good = borders != NULL && shifts != NULL && ways != NULL;
    if (good) {
        const struct choice choice = {
            source,      images->old_length,
            images->new, borders,
            shifts,      cut(segments, images->new_length, borders, shifts),
            ways,
        };
        size_t count = 1;
        ways[0] = (struct way){0.0, NO_SHIFT, NO_SHIFT, 0};
        for (size_t piece = 0; piece < choice.pieces; piece++) {
            count = step(&choice, piece, count);
        }
        good = join(&choice, segments);
    }
    free(borders);
    free(shifts);
    free(ways);
    return good;
}

/* ---- All together ---- */

struct work {
    uint8_t *source; /* what `matches` were found in */
    uint8_t *fresh;
    struct align_segments matches;
    struct align_segments *segments;
};

static bool match_source(const struct align_images *images, struct work *work) {
    struct suffixes suffixes;
    if (!suffixes_sort(&suffixes, work->source, (int32_t)images->old_length)) {
        return false;
    }
    struct strings *const strings = note_strings(&suffixes);
    const bool good = strings != NULL && find_matches(&suffixes, strings, images->new,
                                                      images->new_length, &work->matches);
    free(strings);
    suffixes_free(&suffixes);
    return good;
}

static bool take_matches(struct work *work) {
    work->segments->count = 0;
    bool good = true;
    for (size_t i = 0; good && i < work->matches.count; i++) {
        const struct codec_segment *const segment = &work->matches.of[i];
        good = add(work->segments, segment->new, segment->length, segment->old);
    }
    return good;
}

static bool choose_anew(const struct align_images *images, struct work *work) {
    return translate(images, work->segments, work->fresh) &&
           choose(images, work->fresh, work->segments);
}

/* Matches are found in the old image, then again in it with the addresses that those imply. */
static bool align(const struct align_images *images, struct work *work) {
    memcpy(work->source, images->old, images->old_length);
    bool good = match_source(images, work) && take_matches(work);
    for (int round = 0; good && images->isa != DELTA_DATA && round < ROUNDS; round++) {
        good = choose_anew(images, work) && translate(images, work->segments, work->fresh);
        if (good && memcmp(work->source, work->fresh, images->old_length) != 0) {
            memcpy(work->source, work->fresh, images->old_length);
            good = match_source(images, work);
        }
        good = good && take_matches(work);
    }
    return good && choose_anew(images, work);
}

struct align_segments *align_images(const struct align_images *images) {
    struct work work = {
        .source = malloc(images->old_length),
        .fresh = malloc(images->old_length),
        .segments = calloc(1, sizeof *work.segments),
    };
    const bool room = work.source != NULL && work.fresh != NULL && work.segments != NULL;
    if (!room || !align(images, &work)) {
        align_free(work.segments);
        work.segments = NULL;
    }
    free(work.source);
    free(work.fresh);
    free(work.matches.of);
    return work.segments;
}

void align_free(struct align_segments *segments) {
    if (segments != NULL) {
        free(segments->of);
        free(segments);
    }
}
