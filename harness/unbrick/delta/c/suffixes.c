/* Sorts by induction: G. Nong, S. Zhang, W. H. Chan, "Two Efficient Algorithms for Linear Time
 * Suffix Array Construction", IEEE Transactions on Computers 60 (2011), the algorithm SA-IS.
 *
 * A suffix is small when it sorts before the one behind it, else large. The leftmost small ones of
 * each run ("marks") are sorted first: they are the letters of a shorter string. The order of the
 * large ones follows from theirs, and that of the other small ones from the large ones'. */
#include "suffixes.h"

#include <stdlib.h>
#include <string.h>

#define NONE (-1)
#define PAIRS 65536
#define HEAD 4

/* A string of bytes, or of the names of marks. `wide` is known at compile time in each call. */
struct text {
    const void *letters;
    int32_t length;
    int32_t kinds; /* letters are below this */
    const uint8_t *small;
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE int32_t letter(const struct text *text, bool wide, int32_t at) {
    return wide ? ((const int32_t *)text->letters)[at] : ((const uint8_t *)text->letters)[at];
}

ALWAYS_INLINE bool is_mark(const struct text *text, int32_t at) {
    return at > 0 && text->small[at] && !text->small[at - 1];
}

ALWAYS_INLINE void find_small(const struct text *text, bool wide, uint8_t *small) {
    small[text->length - 1] = 0;
    for (int32_t at = text->length - 2; at >= 0; at--) {
        const int32_t here = letter(text, wide, at);
        const int32_t next = letter(text, wide, at + 1);
        small[at] = here < next || (here == next && small[at + 1]);
    }
}

/* Where each letter's suffixes end in the order, or begin. */
static void set_borders(const int32_t *counts, int32_t kinds, bool ends, int32_t *borders) {
    int32_t sum = 0;
    for (int32_t kind = 0; kind < kinds; kind++) {
        borders[kind] = ends ? sum + counts[kind] : sum;
        sum += counts[kind];
    }
}

/* From the marks in their groups to all suffixes. */
ALWAYS_INLINE void induce(const struct text *text, bool wide, const int32_t *counts,
                          int32_t *borders, int32_t *order) {
    const int32_t length = text->length;
    set_borders(counts, text->kinds, false, borders);
    order[borders[letter(text, wide, length - 1)]++] = length - 1;
    for (int32_t i = 0; i < length; i++) {
        const int32_t at = order[i] - 1;
        if (at >= 0 && !text->small[at]) {
            order[borders[letter(text, wide, at)]++] = at;
        }
    }
    set_borders(counts, text->kinds, true, borders);
    for (int32_t i = length - 1; i >= 0; i--) {
        const int32_t at = order[i] - 1;
        if (at >= 0 && text->small[at]) {
            order[--borders[letter(text, wide, at)]] = at;
        }
    }
}

/* Puts marks, which come in `marks` in some order, at the ends of their groups in that order. */
ALWAYS_INLINE void place_marks(const struct text *text, bool wide, const int32_t *counts,
                               int32_t *borders, const int32_t *marks, int32_t count,
                               int32_t *order) {
    for (int32_t i = 0; i < text->length; i++) {
        order[i] = NONE;
    }
    set_borders(counts, text->kinds, true, borders);
    for (int32_t i = count - 1; i >= 0; i--) {
        order[--borders[letter(text, wide, marks[i])]] = marks[i];
    }
}

/* Whether the letters from one mark to the next are those from another to its next. */
ALWAYS_INLINE bool same_piece(const struct text *text, bool wide, int32_t a, int32_t b) {
    for (int32_t i = 0;; i++) {
        if (a + i == text->length || b + i == text->length) {
            return false;
        }
        if (letter(text, wide, a + i) != letter(text, wide, b + i) ||
            text->small[a + i] != text->small[b + i]) {
            return false;
        }
        if (i > 0 && (is_mark(text, a + i) || is_mark(text, b + i))) {
            return is_mark(text, a + i) && is_mark(text, b + i);
        }
    }
}

static bool sort_names(const int32_t *names, int32_t length, int32_t kinds, int32_t *order);

/* Names the pieces in `order`, of which marks are the beginnings, and sorts the marks by them. */
ALWAYS_INLINE bool sort_marks(const struct text *text, bool wide, int32_t *order, int32_t *marks,
                              int32_t count, int32_t *names) {
    int32_t name = NONE;
    int32_t before = NONE;
    for (int32_t i = 0; i < text->length; i++) {
        if (is_mark(text, order[i])) {
            name += before == NONE || !same_piece(text, wide, before, order[i]);
            before = order[i];
            names[before / 2] = name; /* no two marks are neighbours */
        }
    }
    int32_t *const string = malloc(2 * (size_t)count * sizeof *string);
    if (string == NULL) {
        return false;
    }
    int32_t *const sorted = string + count;
    for (int32_t i = 0; i < count; i++) {
        string[i] = names[marks[i] / 2];
    }
    bool good = true;
    if (name + 1 == count) {
        for (int32_t i = 0; i < count; i++) {
            sorted[string[i]] = i;
        }
    } else {
        good = sort_names(string, count, name + 1, sorted);
    }
    for (int32_t i = 0; good && i < count; i++) {
        sorted[i] = marks[sorted[i]];
    }
    if (good) {
        memcpy(marks, sorted, (size_t)count * sizeof *marks);
    }
    free(string);
    return good;
}

ALWAYS_INLINE bool sort_text(const void *letters, bool wide, int32_t length, int32_t kinds,
                             int32_t *order) {
    uint8_t *const small = malloc((size_t)length);
    int32_t *const counts = calloc(2 * (size_t)kinds, sizeof *counts);
    int32_t *const marks = malloc((2 * ((size_t)length / 2 + 1)) * sizeof *marks);
    const struct text text = {letters, length, kinds, small};
    bool good = small != NULL && counts != NULL && marks != NULL;
    if (good) {
        int32_t *const borders = counts + kinds;
        find_small(&text, wide, small);
        int32_t count = 0;
        for (int32_t at = 0; at < length; at++) {
            counts[letter(&text, wide, at)]++;
            if (is_mark(&text, at)) {
                marks[count++] = at;
            }
        }
        place_marks(&text, wide, counts, borders, marks, count, order);
        induce(&text, wide, counts, borders, order);
        if (count > 1) {
            good = sort_marks(&text, wide, order, marks, count, marks + length / 2 + 1);
            place_marks(&text, wide, counts, borders, marks, count, order);
            induce(&text, wide, counts, borders, order);
        }
    }
    free(small);
    free(counts);
    free(marks);
    return good;
}

static bool sort_names(const int32_t *names, int32_t length, int32_t kinds, int32_t *order) {
    return sort_text(names, true, length, kinds, order);
}

/* The first bytes, to be compared as a number. */
static uint32_t head(const uint8_t *data, int32_t length) {
    uint32_t word = 0;
    if (length >= HEAD) {
        memcpy(&word, data, HEAD);
        return __builtin_bswap32(word);
    }
    for (int32_t i = 0; i < length; i++) {
        word |= (uint32_t)data[i] << (24 - 8 * i);
    }
    return word;
}

bool suffixes_sort(struct suffixes *suffixes, const uint8_t *data, int32_t length) {
    suffixes->data = data;
    suffixes->length = length;
    suffixes->order = malloc((size_t)length * sizeof *suffixes->order);
    suffixes->groups = malloc((PAIRS + 1) * sizeof *suffixes->groups);
    suffixes->heads = malloc((size_t)length * sizeof *suffixes->heads);
    if (suffixes->order == NULL || suffixes->groups == NULL || suffixes->heads == NULL ||
        !sort_text(data, false, length, 256, suffixes->order)) {
        suffixes_free(suffixes);
        return false;
    }
    for (int32_t i = 0; i < length; i++) {
        const int32_t at = suffixes->order[i];
        suffixes->heads[i] = head(data + at, length - at);
    }
    int32_t *const groups = suffixes->groups;
    memset(groups, 0, (PAIRS + 1) * sizeof *groups);
    for (int32_t at = 0; at + 1 < length; at++) {
        groups[data[at] << 8 | data[at + 1]]++;
    }
    int32_t sum = 0;
    for (int32_t pair = 0; pair <= PAIRS; pair++) {
        const int32_t count = groups[pair];
        sum += pair == data[length - 1] << 8; /* the last byte alone sorts before its pairs */
        groups[pair] = sum;
        sum += count;
    }
    return true;
}

void suffixes_free(struct suffixes *suffixes) {
    free(suffixes->order);
    free(suffixes->groups);
    free(suffixes->heads);
    suffixes->order = NULL;
    suffixes->groups = NULL;
    suffixes->heads = NULL;
}

/* How many bytes of the suffix and of `wanted` are the same, from `from` on. */
static int32_t match(const struct suffixes *suffixes, int32_t at, const uint8_t *wanted,
                     int32_t length, int32_t from) {
    const uint8_t *const data = suffixes->data + at;
    const int32_t end = suffixes->length - at < length ? suffixes->length - at : length;
    int32_t i = from;
    for (; i + 8 <= end; i += 8) {
        uint64_t a;
        uint64_t b;
        memcpy(&a, data + i, 8);
        memcpy(&b, wanted + i, 8);
        if (a != b) {
            return i + __builtin_ctzll(a ^ b) / 8;
        }
    }
    while (i < end && data[i] == wanted[i]) {
        i++;
    }
    return i;
}

int32_t suffixes_find(const struct suffixes *suffixes, const uint8_t *wanted, int32_t length,
                      int32_t *place) {
    int32_t low = NONE; /* suffixes up to here sort before `wanted` */
    int32_t high = suffixes->length;
    if (length >= 2) {
        const int32_t pair = wanted[0] << 8 | wanted[1];
        low = suffixes->groups[pair] - 1;
        high = suffixes->groups[pair + 1];
        if (pair + 1 == (suffixes->data[suffixes->length - 1] << 8)) {
            high--;
        }
    }
    const uint32_t first = head(wanted, length);
    int32_t low_match = 0;
    int32_t high_match = 0;
    while (high - low >= 2) {
        const int32_t middle = low + (high - low) / 2;
        if (suffixes->heads[middle] < first) {
            low = middle;
            continue;
        }
        if (suffixes->heads[middle] > first) {
            high = middle;
            continue;
        }
        const int32_t at = suffixes->order[middle];
        const int32_t known = low_match < high_match ? low_match : high_match;
        const int32_t same = match(suffixes, at, wanted, length, known);
        if (same < length &&
            (at + same == suffixes->length || suffixes->data[at + same] < wanted[same])) {
            low = middle;
            low_match = same;
        } else {
            high = middle;
            high_match = same;
        }
    }
    if (low != NONE) {
        low_match = match(suffixes, suffixes->order[low], wanted, length, low_match);
    }
    if (high != suffixes->length) {
        high_match = match(suffixes, suffixes->order[high], wanted, length, high_match);
    }
    const bool lower = low_match > high_match || high == suffixes->length;
    *place = lower ? suffixes->order[low] : suffixes->order[high];
    return lower ? low_match : high_match;
}
