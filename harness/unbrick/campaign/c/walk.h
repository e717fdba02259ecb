/* A walk over the power cuts of one session: what each of them leaves is shown in a book, and the
 * entries that it agrees with are noted. What the book cannot tell is left to the caller.
 *
 * A cut comes before an operation (`variant` 0), or in it, torn in one of its shapes (from 1 on).
 * The cuts of an operation come in that order, and then those of the next one. The first cut
 * stands for two, which leave the same. */
#pragma once

#include "../../flash/c/trace.h"
#include "book.h"

#define WALK_WAYS 3u       /* in which weak cells may read */
#define WALK_FIRST_CUTS 2u /* that leave the same: before and after the peers hear of it */

enum walk_end {
    WALK_DONE,   /* there is no cut any more */
    WALK_MEMBER, /* a state is known, but nobody stands for it */
    WALK_SHAPES, /* the shapes of the operation are not known */
    WALK_FORM,   /* it is not known what fields count as that hold what `walk_asked` says */
};

#pragma GCC visibility push(default)

struct walk_cut {
    uint32_t op, variant;
};

/* Cuts whose states agree with the same entries: one for each way of reading, the others
 * BOOK_NONE. */
struct walk_row {
    uint32_t entries[WALK_WAYS];
    uint32_t unused;
    uint64_t cuts;
};

/* The session. */
struct walk_session {
    const struct op *ops; /* none of which failed */
    const uint8_t *data;
    uint32_t count, end;         /* of operations; cuts from operation `end` on are not looked at */
    uint32_t erase;              /* kind of those without data */
    uint32_t levels;             /* of members; 0: nobody must stand for a state */
    const uint32_t *groups;      /* for each way: that of its behaviours, and then of each level */
    uint8_t *held;               /* by the fields of the form, before the operation that is next */
    const struct walk_cut *only; /* the cuts to look at, in their order; NULL: all */
    uint32_t only_count;
};

struct walk;

/* A walk in a book, for as many sessions as there are. A form is about `count` fields, each with
 * its offset and length in whole units. What they hold is given as the values of all, one after the
 * other, and then their weak bits. The book shows what they count as. NULL: no memory. */
struct walk *walk_new(struct book *b, uint32_t count, const uint32_t *fields);
void walk_free(struct walk *w);

/* The shapes of each operation of a kind at a place: for each, which cells have moved, and which of
 * those on their way are weak, as masks of `length` bytes one after the other. */
void walk_add_shapes(struct walk *w, bool erases, uint32_t offset, uint32_t length, uint32_t count,
                     const uint8_t *masks);

/* What fields count as that hold something. */
void walk_add_form(struct walk *w, const uint8_t *held, const uint8_t *counts);
const uint8_t *walk_asked(const struct walk *w);

/* Look at cuts from `at` on; the book shows what is before its operation. It does so, too, when
 * this returns, and `at` is then the cut that the caller is to look at. Rows and unknown cuts are
 * those since then. */
enum walk_end walk_on(struct walk *w, const struct walk_session *s, struct walk_cut *at);

/* What the last call has found: rows, and cuts that leave states which are not known. */
uint32_t walk_row_count(const struct walk *w);
const struct walk_row *walk_rows(const struct walk *w);
uint32_t walk_unknown_count(const struct walk *w);
const struct walk_cut *walk_unknown(const struct walk *w);

/* The operations with cuts of a row, as a set of bits, in so many 64-bit words. */
const uint64_t *walk_row_ops(const struct walk *w, uint32_t row);
uint32_t walk_row_words(const struct walk *w);

#pragma GCC visibility pop
