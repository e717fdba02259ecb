/* All suffixes of a string in order, and where in it a string of which it holds the most. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct suffixes {
    const uint8_t *data;
    int32_t length;
    int32_t *order;  /* places where suffixes begin, in order; the empty one is left out */
    int32_t *groups; /* where in `order` those begin that start with two certain bytes or more */
    uint32_t *heads; /* their first four bytes, the first one highest, zeros behind the end */
};

/* `data` is not copied. False: no memory. */
bool suffixes_sort(struct suffixes *suffixes, const uint8_t *data, int32_t length);
void suffixes_free(struct suffixes *suffixes);

/* How many of the first bytes of `wanted` are in the string, and `*place`: where. Of the two
 * suffixes between which `wanted` sorts, that which has more of it counts; of equals the later. */
int32_t suffixes_find(const struct suffixes *suffixes, const uint8_t *wanted, int32_t length,
                      int32_t *place);
