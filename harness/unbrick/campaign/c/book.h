/* A book of partial states: what some units of a flash must hold. It follows one flash, change by
 * change, and knows at any time which of its entries that flash agrees with.
 *
 * A unit is 4 bytes, counted from the beginning of the flash. It has a value, and a mask of the
 * bits that are weak. An entry belongs to a group, and says for some units which value and mask
 * they must have. Many entries say something of the same units. What a change of a unit costs
 * depends on how many such sets of units there are, and hardly on how many entries. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOK_NONE UINT32_MAX

enum {
    BOOK_WEAK = 1, /* of a behaviour: a weak cell has a say */
    BOOK_LAST = 2, /* of a behaviour: what follows it is not searched */
};

#pragma GCC visibility push(default)

struct book;

/* For a flash of so many units, which is blank: every bit is 1, none is weak. NULL: no memory. */
struct book *book_new(uint32_t units);
void book_free(struct book *b);

/* The flash now holds these values from unit `first` on. `weak` NULL: no bit there is weak. */
void book_write(struct book *b, uint32_t first, uint32_t count, const uint32_t *values,
                const uint32_t *weak);

/* What the flash holds in these units. */
void book_read(const struct book *b, uint32_t first, uint32_t count, uint32_t *values,
               uint32_t *weak);

/* Whether the flash could come to agree with other entries than now by what these bytes hold,
 * whatever that is. True may be wrong, false never is. */
bool book_has_say(const struct book *b, uint32_t offset, uint32_t length);

/* These bytes of the flash are programmed with `data`, or erased where it is NULL. */
void book_change(struct book *b, uint32_t offset, uint32_t length, const uint8_t *data);

/* An entry of `group`: the flash must hold in these units what it holds there now. `units` has a
 * bit for each unit, 64 of them in a word. Returns the entry's number; they count from 0. */
uint32_t book_add(struct book *b, uint32_t group, const uint64_t *units);

/* The number of the first entry of `group` from number `from` on that the flash agrees with;
 * BOOK_NONE: there is none. */
uint32_t book_find(const struct book *b, uint32_t group, uint32_t from);

/* An entry agrees with nothing any more. */
void book_drop(struct book *b, uint32_t entry);

/* What the caller has marked an entry with; nothing at first. */
void book_mark(struct book *b, uint32_t entry, uint32_t marks);
uint32_t book_marks(const struct book *b, uint32_t entry);

#pragma GCC visibility pop
