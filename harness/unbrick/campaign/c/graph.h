/* The graph of behaviours: where power cuts lead from each, and what each needs.
 *
 * Behaviours are nodes, numbered from 0. An edge leads from a user to a node, and has the
 * operations of the user's session at which cuts lead there. What a node needs are units of the
 * flash, as a set of bits in 64-bit words. Its users need that, too, less what they have erased
 * before the first of these operations. */
#pragma once

#include "walk.h"

#pragma GCC visibility push(default)

/* The units from `first` to before `end` have been erased before operation `before` begins. */
struct graph_erase {
    uint32_t before, first, end;
};

/* Operations: bit n of word w is operation 64 * w + n, from word `first` on. */
struct graph_edge {
    uint32_t user, node;
    uint32_t first, count; /* in words */
    uint64_t *ops;         /* the first and the last word are not 0 */
};

struct graph;

/* For a flash of so many units. Who needs one of `fields` from somebody else needs all of them;
 * they are a set of units. NULL: no memory. */
struct graph *graph_new(uint32_t units, const uint64_t *fields);
void graph_free(struct graph *g);

/* A node, which needs `units`, has `entry` in the book, and erases this, in the order of `before`.
 * Cuts that lead to it are counted for node `counted`; BOOK_NONE: for itself. */
uint32_t graph_add(struct graph *g, uint32_t entry, uint32_t counted, const uint64_t *units,
                   uint32_t erase_count, const struct graph_erase *erases);

/* What a node needs, and how often that has grown. */
const uint64_t *graph_needs(const struct graph *g, uint32_t node);
uint32_t graph_version(const struct graph *g, uint32_t node);

/* Cuts at these operations lead from a user to a node. Nothing follows from it before all leads are
 * noted that are known, and `graph_settle` is called. */
void graph_note(struct graph *g, uint32_t user, uint32_t node, uint32_t words, const uint64_t *ops);
void graph_settle(struct graph *g);

/* Cuts at an operation lead from a user to a node; whether that is known. */
bool graph_leads_at(const struct graph *g, uint32_t user, uint32_t node, uint32_t op);

/* So do those of a walk's last part in the user's session. Returns how many cuts these are; with
 * `counts` they are counted where they lead. */
uint64_t graph_take(struct graph *g, uint32_t user, const struct walk *w, bool counts);

/* How many cuts were counted for a node since the last call. */
uint64_t graph_take_count(struct graph *g, uint32_t node);

/* From operation `there` on a leaner's session is as that of `whole` from operation `here` on.
 * Where cuts lead from that one by and by, those of the leaner do. */
void graph_lean(struct graph *g, uint32_t whole, uint32_t leaner, uint32_t here, uint32_t there);

/* The units that must agree before operation `start` for the same to follow its cuts and later
 * ones: what the nodes need to which they lead, less what is erased from there on. */
void graph_live(struct graph *g, uint32_t node, uint32_t start, uint64_t *units);

/* The first operation before which erases from `first` on have taken all of these units; BOOK_NONE:
 * none is. */
uint32_t graph_find_erasing(struct graph *g, uint32_t node, const uint64_t *units, uint32_t first);

/* The first operation at which cuts lead from a user to a node; BOOK_NONE: none does. */
uint32_t graph_first(const struct graph *g, uint32_t user, uint32_t node);

/* The edges to a node, and those from it, in the order in which they came. */
uint32_t graph_user_count(const struct graph *g, uint32_t node);
const struct graph_edge *graph_user(const struct graph *g, uint32_t node, uint32_t number);
uint32_t graph_led_count(const struct graph *g, uint32_t node);
const struct graph_edge *graph_led(const struct graph *g, uint32_t node, uint32_t number);

/* The nodes whose needs have grown, and the leaners from which more cuts lead somewhere, each once
 * and in order, since they were asked for. They are there until something else is called. */
uint32_t graph_list_grown(struct graph *g, const uint32_t **nodes);
uint32_t graph_list_leaners(struct graph *g, const uint32_t **nodes);

#pragma GCC visibility pop
