/* A walk over the power cuts of one session; see walk.h. */
#include "walk.h"

#include <assert.h>
#include <string.h>

#include "room.h"

#define UNIT 4u  /* bytes */
#define WORD 64u /* operations in a word of a set */

struct shapes {
    uint32_t offset, length, count;
    bool erases;
    uint8_t *masks;
};

struct field {
    uint32_t offset, length, at; /* where what it holds begins */
};

/* What fields hold: the values of all, then their weak bits, without the zeros at the end. */
struct held {
    const struct held *counts; /* as what; NULL: it is what others count as */
    uint32_t size, hash;
    uint8_t bytes[];
};

struct held_table {
    struct held **items;
    uint32_t count, room;
};

enum found { KNOWN, UNKNOWN, UNFOLLOWED };

struct walk {
    struct book *book;
    struct shapes *shapes; /* by a hash of their place */
    uint32_t shape_count, shape_room;
    struct walk_row *rows;
    uint64_t **row_ops;
    uint32_t row_count, row_room, row_ops_room, row_words, last_row;
    uint32_t next; /* of the only cuts that are looked at */
    struct walk_cut *unknown;
    uint32_t unknown_count, unknown_room;
    uint32_t *units; /* values and weak bits: those before a tear, and those after it */
    uint32_t unit_room;
    struct field *fields;
    uint32_t field_count, field_size; /* of all fields, in bytes */
    uint8_t *asked;                   /* what fields are to hold */
    struct held_table forms, counts;  /* what fields have held, and what that counts as */
};

struct walk *walk_new(struct book *b, uint32_t count, const uint32_t *fields) {
    struct walk *w = calloc(1, sizeof *w);
    if (!w) {
        return NULL;
    }
    w->book = b;
    w->field_count = count;
    w->fields = need(calloc(count + 1, sizeof *w->fields));
    for (uint32_t i = 0; i < count; i++) {
        w->fields[i] = (struct field){fields[2 * i], fields[2 * i + 1], w->field_size};
        w->field_size += fields[2 * i + 1];
    }
    w->asked = need(calloc(1, 2 * w->field_size + 1));
    return w;
}

static void clear(struct walk *w) {
    for (uint32_t i = 0; i < w->row_count; i++) {
        free(w->row_ops[i]);
    }
    w->row_count = w->unknown_count = w->last_row = 0;
}

static void free_held(struct held_table *t) {
    for (uint32_t i = 0; i < t->room; i++) {
        free(t->items[i]);
    }
    free(t->items);
}

void walk_free(struct walk *w) {
    if (!w) {
        return;
    }
    clear(w);
    for (uint32_t i = 0; i < w->shape_room; i++) {
        free(w->shapes[i].masks);
    }
    free(w->shapes);
    free(w->fields);
    free(w->asked);
    free_held(&w->forms);
    free_held(&w->counts);
    free(w->rows);
    free(w->row_ops);
    free(w->unknown);
    free(w->units);
    free(w);
}

/* Where the shapes of a place are in the table, or would be. */
static struct shapes *find_shapes(const struct walk *w, bool erases, uint32_t offset,
                                  uint32_t length) {
    uint32_t at = (offset * 2654435761u ^ length * 40503u ^ erases) & (w->shape_room - 1);
    for (;; at = (at + 1) & (w->shape_room - 1)) {
        struct shapes *s = &w->shapes[at];
        if (!s->masks || (s->offset == offset && s->length == length && s->erases == erases)) {
            return s;
        }
    }
}

static void make_room_for_shapes(struct walk *w) {
    if (w->shape_count * 2 < w->shape_room) {
        return;
    }
    struct walk bigger = {.shape_room = w->shape_room ? w->shape_room * 2 : 64};
    bigger.shapes = need(calloc(bigger.shape_room, sizeof *bigger.shapes));
    for (uint32_t i = 0; i < w->shape_room; i++) {
        const struct shapes *s = &w->shapes[i];
        if (s->masks) {
            *find_shapes(&bigger, s->erases, s->offset, s->length) = *s;
        }
    }
    free(w->shapes);
    w->shapes = bigger.shapes;
    w->shape_room = bigger.shape_room;
}

void walk_add_shapes(struct walk *w, bool erases, uint32_t offset, uint32_t length, uint32_t count,
                     const uint8_t *masks) {
    make_room_for_shapes(w);
    struct shapes *s = find_shapes(w, erases, offset, length);
    size_t size = (size_t)count * 2 * length;
    uint8_t *kept = need(malloc(size + 1));
    memcpy(kept, masks, size);
    free(s->masks);
    w->shape_count += !s->masks;
    *s = (struct shapes){offset, length, count, erases, kept};
}

/* How many of these bytes there are without the zeros at their end: few cells are weak. */
static uint32_t cut_zeros(const uint8_t *bytes, uint32_t size) {
    while (size && !bytes[size - 1]) {
        size--;
    }
    return size;
}

static uint32_t hash_bytes(const uint8_t *bytes, uint32_t size) {
    uint64_t hash = size, word = 0;
    for (uint32_t at = 0; at < size; at += sizeof word) {
        word = 0;
        memcpy(&word, bytes + at, size - at < sizeof word ? size - at : sizeof word);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return (uint32_t)hash;
}

/* Where bytes are in a table, or would be; `size` without the zeros at their end. */
static struct held **find_held(const struct held_table *t, const uint8_t *bytes, uint32_t size,
                               uint32_t hash) {
    for (uint32_t at = hash;; at++) {
        struct held **h = &t->items[at & (t->room - 1)];
        if (!*h ||
            ((*h)->hash == hash && (*h)->size == size && memcmp((*h)->bytes, bytes, size) == 0)) {
            return h;
        }
    }
}

static void make_room_for_held(struct held_table *t) {
    if (t->count * 2 < t->room) {
        return;
    }
    struct held_table bigger = {.room = t->room ? t->room * 2 : 64};
    bigger.items = need(calloc(bigger.room, sizeof(struct held *)));
    for (uint32_t i = 0; i < t->room; i++) {
        struct held *h = t->items[i];
        if (h) {
            *find_held(&bigger, h->bytes, h->size, h->hash) = h;
        }
    }
    free(t->items);
    t->items = bigger.items;
    t->room = bigger.room;
}

/* Keep bytes once in a table. */
static struct held *keep(struct held_table *t, const uint8_t *bytes, uint32_t length) {
    uint32_t size = cut_zeros(bytes, length), hash = hash_bytes(bytes, size);
    make_room_for_held(t);
    struct held **h = find_held(t, bytes, size, hash);
    if (!*h) {
        *h = need(calloc(1, sizeof **h + size));
        (*h)->size = size;
        (*h)->hash = hash;
        memcpy((*h)->bytes, bytes, size);
        t->count++;
    }
    return *h;
}

void walk_add_form(struct walk *w, const uint8_t *held, const uint8_t *counts) {
    keep(&w->forms, held, 2 * w->field_size)->counts = keep(&w->counts, counts, 2 * w->field_size);
}

const uint8_t *walk_asked(const struct walk *w) {
    return w->asked;
}

/* Which entries the state that the book shows agrees with. */
static enum found find(const struct walk *w, const struct walk_session *s, uint32_t *entries) {
    uint32_t ways = 1;
    bool followed = true;
    entries[1] = entries[2] = BOOK_NONE;
    for (uint32_t way = 0; way < ways; way++) {
        const uint32_t *groups = &s->groups[way * (1 + s->levels)];
        entries[way] = book_find(w->book, groups[0], 0);
        if (entries[way] == BOOK_NONE) {
            return UNKNOWN;
        }
        uint32_t marks = book_marks(w->book, entries[way]);
        ways = marks & BOOK_WEAK ? WALK_WAYS : ways;
        bool here = s->levels == 0 || marks & BOOK_LAST;
        for (uint32_t level = 0; !here && level < s->levels; level++) {
            here = book_find(w->book, groups[1 + level], 0) != BOOK_NONE;
        }
        followed = followed && here;
    }
    return followed ? KNOWN : UNFOLLOWED;
}

static uint32_t find_row(struct walk *w, const uint32_t *entries) {
    size_t size = sizeof w->rows->entries;
    if (w->row_count && memcmp(w->rows[w->last_row].entries, entries, size) == 0) {
        return w->last_row;
    }
    for (uint32_t i = 0; i < w->row_count; i++) {
        if (memcmp(w->rows[i].entries, entries, size) == 0) {
            return i;
        }
    }
    w->rows = grown(w->rows, &w->row_room, w->row_count + 1, sizeof *w->rows);
    w->row_ops = grown(w->row_ops, &w->row_ops_room, w->row_count + 1, sizeof *w->row_ops);
    w->rows[w->row_count] = (struct walk_row){{entries[0], entries[1], entries[2]}, 0, 0};
    w->row_ops[w->row_count] = need(calloc(w->row_words, sizeof(uint64_t)));
    return w->row_count++;
}

static void note(struct walk *w, const uint32_t *entries, struct walk_cut cut) {
    w->last_row = find_row(w, entries);
    w->rows[w->last_row].cuts += cut.op == 0 && cut.variant == 0 ? WALK_FIRST_CUTS : 1;
    w->row_ops[w->last_row][cut.op / WORD] |= (uint64_t)1 << cut.op % WORD;
}

static void note_unknown(struct walk *w, struct walk_cut cut) {
    w->unknown = grown(w->unknown, &w->unknown_room, w->unknown_count + 1, sizeof *w->unknown);
    w->unknown[w->unknown_count++] = cut;
}

/* A byte of the flash, and which of its bits are weak. */
struct byte {
    uint8_t value, weak;
};

/* What an operation leaves of its byte number `i`; `masks` NULL: it is not torn. */
static struct byte change(const struct walk_session *s, const struct op *op, const uint8_t *masks,
                          uint32_t i, struct byte was) {
    uint8_t moved = masks ? masks[i] : 0xff;
    if (op->kind == s->erase) {
        uint8_t weak = masks ? masks[op->length + i] & (uint8_t)~was.value : 0;
        return (struct byte){was.value | moved | weak, weak};
    }
    uint8_t data = s->data[op->data + i];
    uint8_t weak = masks ? masks[op->length + i] & was.value & (uint8_t)~data : was.weak & data;
    return (struct byte){(was.value & (uint8_t)(data | ~moved)) | weak, weak};
}

static bool touches_field(const struct walk *w, const struct op *op) {
    for (uint32_t i = 0; i < w->field_count; i++) {
        const struct field *f = &w->fields[i];
        if (f->offset < op->offset + op->length && op->offset < f->offset + f->length) {
            return true;
        }
    }
    return false;
}

/* Have `asked` say what an operation leaves of the fields. */
static void change_fields(struct walk *w, const struct walk_session *s, const struct op *op,
                          const uint8_t *masks) {
    uint32_t size = w->field_size;
    memcpy(w->asked, s->held, 2 * size);
    for (uint32_t k = 0; k < w->field_count; k++) {
        const struct field *f = &w->fields[k];
        for (uint32_t i = 0; i < f->length; i++) {
            uint32_t in = f->offset + i - op->offset, at = f->at + i;
            if (f->offset + i >= op->offset && in < op->length) {
                struct byte was = {s->held[at], s->held[size + at]};
                struct byte is = change(s, op, masks, in, was);
                w->asked[at] = is.value;
                w->asked[size + at] = is.weak;
            }
        }
    }
}

/* What the fields count as that hold something; NULL: that is not known. */
static const struct held *find_counts(const struct walk *w, const uint8_t *held) {
    uint32_t size = cut_zeros(held, 2 * w->field_size);
    const struct held *form =
        w->forms.room ? *find_held(&w->forms, held, size, hash_bytes(held, size)) : NULL;
    return form ? form->counts : NULL;
}

/* A unit of what fields hold. */
static uint32_t read_unit(const struct held *h, uint32_t at) {
    uint32_t unit = 0;
    if (at < h->size) {
        memcpy(&unit, h->bytes + at, h->size - at < UNIT ? h->size - at : UNIT);
    }
    return unit;
}

/* Have the book show what the fields count as. */
static void show_fields(struct walk *w, const struct held *counts) {
    for (uint32_t k = 0; k < w->field_count; k++) {
        const struct field *f = &w->fields[k];
        for (uint32_t i = 0; i < f->length; i += UNIT) {
            uint32_t value = read_unit(counts, f->at + i);
            uint32_t weak = read_unit(counts, w->field_size + f->at + i);
            book_write(w->book, (f->offset + i) / UNIT, 1, &value, &weak);
        }
    }
}

static uint32_t count_units(const struct op *op) {
    return (op->offset + op->length - 1) / UNIT - op->offset / UNIT + 1;
}

/* Tear an operation in the book. What was in its units is kept, for `mend`. */
static void tear(struct walk *w, const struct walk_session *s, const struct op *op,
                 const uint8_t *masks) {
    uint32_t count = count_units(op);
    w->units = grown(w->units, &w->unit_room, count, 4 * sizeof *w->units);
    uint32_t *old = w->units, *old_weak = old + count, *new = old + 2 * count;
    uint32_t *new_weak = old + 3 * count, first = op->offset / UNIT;
    book_read(w->book, first, count, old, old_weak);
    memcpy(new, old, 2 * count * sizeof *old);
    for (uint32_t i = 0; i < op->length; i++) {
        uint32_t unit = (op->offset + i) / UNIT - first, shift = (op->offset + i) % UNIT * 8;
        struct byte was = {(uint8_t)(old[unit] >> shift), (uint8_t)(old_weak[unit] >> shift)};
        struct byte is = change(s, op, masks, i, was);
        new[unit] = (new[unit] & ~(0xffu << shift)) | (uint32_t)is.value << shift;
        new_weak[unit] = (new_weak[unit] & ~(0xffu << shift)) | (uint32_t)is.weak << shift;
    }
    book_write(w->book, first, count, new, new_weak);
}

static void mend(struct walk *w, const struct op *op) {
    uint32_t count = count_units(op);
    book_write(w->book, op->offset / UNIT, count, w->units, w->units + count);
}

/* What is known of the state before an operation. */
struct standing {
    bool fresh;
    enum found found;
    uint32_t entries[WALK_WAYS];
};

static void stand(const struct walk *w, const struct walk_session *s, struct standing *now) {
    if (!now->fresh) {
        now->found = find(w, s, now->entries);
        now->fresh = true;
    }
}

/* Take what was found of a cut; whether the caller is to look at it. */
static bool take(struct walk *w, const struct standing *now, struct walk_cut cut) {
    if (now->found == UNFOLLOWED) {
        return true;
    }
    if (now->found == UNKNOWN) {
        note_unknown(w, cut);
    } else {
        note(w, now->entries, cut);
    }
    return false;
}

/* Look at one torn cut; WALK_DONE: nothing more of it. */
static enum walk_end take_torn(struct walk *w, const struct walk_session *s, const struct op *op,
                               const uint8_t *masks, struct standing *now, struct walk_cut cut) {
    const struct held *counts = NULL;
    if (touches_field(w, op)) {
        change_fields(w, s, op, masks);
        counts = find_counts(w, w->asked);
        if (!counts) {
            return WALK_FORM;
        }
    } else if (!book_has_say(w->book, op->offset, op->length)) {
        stand(w, s, now);
        return take(w, now, cut) ? WALK_MEMBER : WALK_DONE;
    }
    struct standing torn = {0};
    tear(w, s, op, masks);
    if (counts) {
        show_fields(w, counts);
    }
    stand(w, s, &torn);
    mend(w, op);
    if (counts) {
        show_fields(w, find_counts(w, s->held));
    }
    return take(w, &torn, cut) ? WALK_MEMBER : WALK_DONE;
}

/* Have the book show what is after an operation; false: it is not known what fields count as. */
static bool pass(struct walk *w, const struct walk_session *s, const struct op *op,
                 struct standing *now) {
    const struct held *counts = NULL;
    if (touches_field(w, op)) {
        change_fields(w, s, op, NULL);
        counts = find_counts(w, w->asked);
        if (!counts) {
            return false;
        }
        memcpy(s->held, w->asked, 2 * w->field_size);
    }
    now->fresh = now->fresh && !counts && !book_has_say(w->book, op->offset, op->length);
    const uint8_t *data = op->kind == s->erase ? NULL : s->data + op->data;
    book_change(w->book, op->offset, op->length, data);
    if (counts) {
        show_fields(w, counts);
    }
    return true;
}

static bool is_before(struct walk_cut cut, struct walk_cut other) {
    return cut.op < other.op || (cut.op == other.op && cut.variant < other.variant);
}

/* Whether a cut is to be looked at. It is asked about one cut after the other. */
static bool is_meant(struct walk *w, const struct walk_session *s, struct walk_cut cut) {
    if (!s->only) {
        return true;
    }
    while (w->next < s->only_count && is_before(s->only[w->next], cut)) {
        w->next++;
    }
    return w->next < s->only_count && !is_before(cut, s->only[w->next]);
}

/* Whether none of the cuts in an operation is. */
static bool is_passed(const struct walk *w, const struct walk_session *s, uint32_t op) {
    return s->only && (w->next == s->only_count || s->only[w->next].op > op);
}

/* Look at the torn cuts of an operation, from `at` on. */
static enum walk_end walk_torn(struct walk *w, const struct walk_session *s, const struct op *op,
                               struct standing *now, struct walk_cut *at) {
    bool erases = op->kind == s->erase;
    const struct shapes *shapes =
        w->shape_room ? find_shapes(w, erases, op->offset, op->length) : NULL;
    if (!shapes || !shapes->masks) {
        return WALK_SHAPES;
    }
    for (; at->variant <= shapes->count; at->variant++) {
        const uint8_t *masks = shapes->masks + (size_t)(at->variant - 1) * 2 * op->length;
        enum walk_end end = is_meant(w, s, *at) ? take_torn(w, s, op, masks, now, *at) : WALK_DONE;
        if (end != WALK_DONE) {
            return end;
        }
    }
    return WALK_DONE;
}

enum walk_end walk_on(struct walk *w, const struct walk_session *s, struct walk_cut *at) {
    struct standing now = {0};
    clear(w);
    w->next = 0;
    w->row_words = s->count / WORD + 1;
    if (w->field_count && !find_counts(w, s->held)) {
        memcpy(w->asked, s->held, 2 * w->field_size);
        return WALK_FORM;
    }
    for (; at->op < s->end; at->op++, at->variant = 0) {
        if (at->variant == 0) {
            if (is_meant(w, s, *at)) {
                stand(w, s, &now);
                if (take(w, &now, *at)) {
                    return WALK_MEMBER;
                }
            }
            at->variant = 1;
        }
        if (at->op == s->count) {
            break;
        }
        const struct op *op = &s->ops[at->op];
        if (!is_passed(w, s, at->op)) {
            enum walk_end end = walk_torn(w, s, op, &now, at);
            if (end != WALK_DONE) {
                return end;
            }
        }
        if (!pass(w, s, op, &now)) {
            return WALK_FORM;
        }
    }
    return WALK_DONE;
}

uint32_t walk_row_count(const struct walk *w) {
    return w->row_count;
}

const struct walk_row *walk_rows(const struct walk *w) {
    return w->rows;
}

uint32_t walk_unknown_count(const struct walk *w) {
    return w->unknown_count;
}

const struct walk_cut *walk_unknown(const struct walk *w) {
    return w->unknown;
}

const uint64_t *walk_row_ops(const struct walk *w, uint32_t row) {
    return w->row_ops[row];
}

uint32_t walk_row_words(const struct walk *w) {
    return w->row_words;
}
