/* The book of partial states; see book.h.
 *
 * An *aspect* is some units of one page. It has *answers*: what these units hold in some entry. A
 * *view* is a set of units of the whole flash, so an aspect for each of its pages. An entry has a
 * view, and an answer for each of its aspects. There are many entries, but few views and aspects.
 *
 * For each aspect the book knows which answer the flash gives now, if any. For each view it knows a
 * hash of these answers, by which entries are looked up; then the answers themselves are compared.
 */
#include "book.h"

#include <assert.h>
#include <string.h>

#include "room.h"

#define PAGE 64u /* units */
#define UNIT 4u  /* bytes */
#define BLANK UINT32_MAX
#define NONE BOOK_NONE

struct page {
    uint32_t value[PAGE], weak[PAGE];
};

struct list {
    uint32_t *items;
    uint32_t count, capacity;
};

/* Numbers by hashes; of those with one hash any order. Free places hold NONE. */
struct table {
    uint64_t *hashes;
    uint32_t *numbers;
    uint32_t count, room; /* room: a power of 2, or 0 */
};

struct aspect {
    uint32_t page;
    uint64_t mask;
    uint64_t hash;    /* of what the flash holds in these units now */
    uint32_t current; /* the answer that it gives, or NONE */
    struct table answers;
    struct list views;
};

struct view {
    uint64_t hash; /* of the answers that the flash gives now */
    uint32_t none; /* aspects to which it gives none of the answers */
    uint32_t live; /* entries that were not dropped */
    struct list aspects;
    struct table entries;
};

struct entry {
    uint32_t group, view, marks;
    bool dropped;
    uint32_t *answers; /* one for each aspect of the view */
};

struct book {
    uint32_t page_count;
    struct page **pages; /* NULL: blank */
    struct list *about;  /* for each page, its aspects */
    struct aspect *aspects;
    uint32_t aspect_count, aspect_room;
    struct page **answers; /* only the units of the aspect count */
    uint32_t answer_count, answer_room;
    struct view *views;
    uint32_t view_count, view_room;
    struct entry *entries;
    uint32_t entry_count, entry_room;
};

static void append(struct list *list, uint32_t item) {
    list->items = grown(list->items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items[list->count++] = item;
}

/* A number that looks like no other one's (SplitMix64's last step). */
static uint64_t mix(uint64_t n) {
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return n ^ n >> 31;
}

static uint64_t hash_unit(uint32_t in, uint32_t value, uint32_t weak) {
    return mix(mix((uint64_t)value << 32 | weak) + in + 1);
}

static uint64_t hash_answer(uint32_t aspect, uint32_t answer) {
    return mix(((uint64_t)aspect << 32 | answer) + 1);
}

static void put(struct table *t, uint64_t hash, uint32_t number) {
    uint64_t at = hash & (t->room - 1);
    while (t->numbers[at] != NONE) {
        at = (at + 1) & (t->room - 1);
    }
    t->hashes[at] = hash;
    t->numbers[at] = number;
}

static void table_add(struct table *t, uint64_t hash, uint32_t number) {
    if (++t->count * 2 > t->room) {
        struct table old = *t;
        t->room = old.room ? old.room * 2 : 8;
        t->hashes = need(malloc(t->room * sizeof *t->hashes));
        t->numbers = need(malloc(t->room * sizeof *t->numbers));
        memset(t->numbers, 0xff, t->room * sizeof *t->numbers);
        for (uint32_t i = 0; i < old.room; i++) {
            if (old.numbers[i] != NONE) {
                put(t, old.hashes[i], old.numbers[i]);
            }
        }
        free(old.hashes);
        free(old.numbers);
    }
    put(t, hash, number);
}

/* The first number with a hash, from place `*at` on, which is then the one after; NONE: no more. */
static uint32_t table_next(const struct table *t, uint64_t hash, uint64_t *at) {
    for (; t->room && t->numbers[*at & (t->room - 1)] != NONE; ++*at) {
        if (t->hashes[*at & (t->room - 1)] == hash) {
            return t->numbers[(*at)++ & (t->room - 1)];
        }
    }
    return NONE;
}

static void table_free(struct table *t) {
    free(t->hashes);
    free(t->numbers);
}

struct book *book_new(uint32_t units) {
    struct book *b = calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->page_count = units / PAGE + (units % PAGE != 0);
    b->pages = need(calloc(b->page_count ? b->page_count : 1, sizeof *b->pages));
    b->about = need(calloc(b->page_count ? b->page_count : 1, sizeof *b->about));
    return b;
}

void book_free(struct book *b) {
    if (!b) {
        return;
    }
    for (uint32_t i = 0; i < b->page_count; i++) {
        free(b->pages[i]);
        free(b->about[i].items);
    }
    for (uint32_t i = 0; i < b->aspect_count; i++) {
        table_free(&b->aspects[i].answers);
        free(b->aspects[i].views.items);
    }
    for (uint32_t i = 0; i < b->answer_count; i++) {
        free(b->answers[i]);
    }
    for (uint32_t i = 0; i < b->view_count; i++) {
        free(b->views[i].aspects.items);
        table_free(&b->views[i].entries);
    }
    for (uint32_t i = 0; i < b->entry_count; i++) {
        free(b->entries[i].answers);
    }
    free(b->pages);
    free(b->about);
    free(b->aspects);
    free(b->answers);
    free(b->views);
    free(b->entries);
    free(b);
}

static struct page read_page(const struct book *b, uint32_t at) {
    struct page page = {{0}, {0}};
    if (b->pages[at]) {
        return *b->pages[at];
    }
    memset(page.value, 0xff, sizeof page.value);
    return page;
}

/* Whether two pages hold the same in some units. */
static bool agree(const struct page *one, const struct page *other, uint64_t mask) {
    for (; mask; mask &= mask - 1) {
        int in = __builtin_ctzll(mask);
        if (one->value[in] != other->value[in] || one->weak[in] != other->weak[in]) {
            return false;
        }
    }
    return true;
}

/* The answer to an aspect that the flash gives now, or NONE. */
static uint32_t find_answer(const struct book *b, const struct aspect *a) {
    struct page blank;
    const struct page *page = b->pages[a->page];
    uint64_t at = a->hash;
    for (uint32_t found; (found = table_next(&a->answers, a->hash, &at)) != NONE;) {
        if (!page) {
            blank = read_page(b, a->page);
            page = &blank;
        }
        if (agree(page, b->answers[found], a->mask)) {
            return found;
        }
    }
    return NONE;
}

/* See which answer to an aspect the flash gives now. */
static void renew(struct book *b, uint32_t number) {
    struct aspect *a = &b->aspects[number];
    uint32_t old = a->current, new = find_answer(b, a);
    if (old == new) {
        return;
    }
    a->current = new;
    uint64_t change = hash_answer(number, old) ^ hash_answer(number, new);
    for (uint32_t i = 0; i < a->views.count; i++) {
        struct view *v = &b->views[a->views.items[i]];
        v->hash ^= change;
        v->none += (uint32_t)(new == NONE) - (uint32_t)(old == NONE);
    }
}

static void set_unit(struct book *b, uint32_t unit, uint32_t value, uint32_t weak) {
    uint32_t at = unit / PAGE, in = unit % PAGE;
    struct page *page = b->pages[at];
    uint32_t old = page ? page->value[in] : BLANK, old_weak = page ? page->weak[in] : 0;
    if (value == old && weak == old_weak) {
        return;
    }
    if (!page) {
        page = b->pages[at] = need(calloc(1, sizeof *page));
        memset(page->value, 0xff, sizeof page->value);
    }
    page->value[in] = value;
    page->weak[in] = weak;
    uint64_t change = hash_unit(in, old, old_weak) ^ hash_unit(in, value, weak);
    for (uint32_t i = 0; i < b->about[at].count; i++) {
        struct aspect *a = &b->aspects[b->about[at].items[i]];
        if (a->mask >> in & 1) {
            a->hash ^= change;
            renew(b, b->about[at].items[i]);
        }
    }
}

void book_write(struct book *b, uint32_t first, uint32_t count, const uint32_t *values,
                const uint32_t *weak) {
    assert(count <= b->page_count * PAGE && first <= b->page_count * PAGE - count);
    for (uint32_t i = 0; i < count; i++) {
        set_unit(b, first + i, values[i], weak ? weak[i] : 0);
    }
}

void book_read(const struct book *b, uint32_t first, uint32_t count, uint32_t *values,
               uint32_t *weak) {
    assert(count <= b->page_count * PAGE && first <= b->page_count * PAGE - count);
    for (uint32_t i = 0; i < count; i++) {
        const struct page *page = b->pages[(first + i) / PAGE];
        values[i] = page ? page->value[(first + i) % PAGE] : BLANK;
        weak[i] = page ? page->weak[(first + i) % PAGE] : 0;
    }
}

/* Whether entries of a view may come to agree, or to agree no more, by what `pages` pages hold; one
 * of them has this aspect. */
static bool could_change(const struct view *v, const struct aspect *a, uint32_t pages) {
    if (!v->live || v->none > pages) {
        return false;
    }
    return pages > 1 || v->none == (a->current == NONE);
}

static bool has_say(const struct book *b, uint32_t first, uint32_t count) {
    uint32_t last = first + count - 1, pages = last / PAGE - first / PAGE + 1;
    for (uint32_t at = first / PAGE; at <= last / PAGE; at++) {
        uint64_t units = UINT64_MAX;
        units &= at == first / PAGE ? UINT64_MAX << first % PAGE : UINT64_MAX;
        units &= at == last / PAGE ? UINT64_MAX >> (PAGE - 1 - last % PAGE) : UINT64_MAX;
        for (uint32_t i = 0; i < b->about[at].count; i++) {
            const struct aspect *a = &b->aspects[b->about[at].items[i]];
            for (uint32_t k = 0; a->mask & units && k < a->views.count; k++) {
                if (could_change(&b->views[a->views.items[k]], a, pages)) {
                    return true;
                }
            }
        }
    }
    return false;
}

bool book_has_say(const struct book *b, uint32_t offset, uint32_t length) {
    assert(length && offset + length <= b->page_count * PAGE * UNIT);
    return has_say(b, offset / UNIT, (offset + length - 1) / UNIT - offset / UNIT + 1);
}

/* The byte of a unit that is at an offset is ANDed with data, or set where there is none. */
static void change_byte(struct book *b, uint32_t offset, const uint8_t *data) {
    const struct page *page = b->pages[offset / UNIT / PAGE];
    uint32_t in = offset / UNIT % PAGE, shift = offset % UNIT * 8;
    uint32_t value = page ? page->value[in] : BLANK, weak = page ? page->weak[in] : 0;
    uint32_t cleared = ~((uint32_t)(data ? *data : 0) << shift) & 0xffu << shift;
    value = data ? value & ~cleared : value | cleared;
    set_unit(b, offset / UNIT, value, weak & ~cleared);
}

void book_change(struct book *b, uint32_t offset, uint32_t length, const uint8_t *data) {
    for (uint32_t i = 0; i < length; i++) {
        change_byte(b, offset + i, data ? data + i : NULL);
    }
}

/* The aspect that asks of these units of a page. */
static uint32_t find_aspect(struct book *b, uint32_t at, uint64_t mask) {
    for (uint32_t i = 0; i < b->about[at].count; i++) {
        uint32_t number = b->about[at].items[i];
        if (b->aspects[number].mask == mask) {
            return number;
        }
    }
    struct aspect a = {.page = at, .mask = mask, .current = NONE};
    struct page page = read_page(b, at);
    for (uint64_t left = mask; left; left &= left - 1) {
        uint32_t in = (uint32_t)__builtin_ctzll(left);
        a.hash ^= hash_unit(in, page.value[in], page.weak[in]);
    }
    b->aspects = grown(b->aspects, &b->aspect_room, b->aspect_count + 1, sizeof *b->aspects);
    b->aspects[b->aspect_count] = a;
    append(&b->about[at], b->aspect_count);
    return b->aspect_count++;
}

/* Have what the flash holds now be an answer to an aspect. */
static void add_answer(struct book *b, uint32_t number) {
    struct aspect *a = &b->aspects[number];
    if (a->current != NONE) {
        return;
    }
    struct page *answer = need(malloc(sizeof *answer));
    *answer = read_page(b, a->page);
    b->answers = grown(b->answers, &b->answer_room, b->answer_count + 1, sizeof *b->answers);
    b->answers[b->answer_count] = answer;
    table_add(&a->answers, a->hash, b->answer_count++);
    renew(b, number);
}

static bool is_view_of(const struct book *b, const struct view *v, const uint64_t *units) {
    uint32_t next = 0;
    for (uint32_t at = 0; at < b->page_count; at++) {
        if (!units[at]) {
            continue;
        }
        if (next == v->aspects.count) {
            return false;
        }
        const struct aspect *a = &b->aspects[v->aspects.items[next++]];
        if (a->page != at || a->mask != units[at]) {
            return false;
        }
    }
    return next == v->aspects.count;
}

/* The view of these units. */
static uint32_t find_view(struct book *b, const uint64_t *units) {
    for (uint32_t i = b->view_count; i > 0; i--) {
        if (is_view_of(b, &b->views[i - 1], units)) {
            return i - 1;
        }
    }
    struct view v = {0};
    b->views = grown(b->views, &b->view_room, b->view_count + 1, sizeof *b->views);
    for (uint32_t at = 0; at < b->page_count; at++) {
        if (units[at]) {
            uint32_t number = find_aspect(b, at, units[at]);
            append(&v.aspects, number);
            append(&b->aspects[number].views, b->view_count);
            v.hash ^= hash_answer(number, b->aspects[number].current);
            v.none += b->aspects[number].current == NONE;
        }
    }
    b->views[b->view_count] = v;
    return b->view_count++;
}

static uint64_t hash_entry(const struct view *v, uint32_t group) {
    return mix(v->hash + group);
}

uint32_t book_add(struct book *b, uint32_t group, const uint64_t *units) {
    uint32_t view = find_view(b, units), number = b->entry_count;
    for (uint32_t i = 0; i < b->views[view].aspects.count; i++) {
        add_answer(b, b->views[view].aspects.items[i]);
    }
    struct view *v = &b->views[view];
    struct entry e = {.group = group, .view = view};
    e.answers = need(malloc((v->aspects.count + 1) * sizeof *e.answers));
    for (uint32_t i = 0; i < v->aspects.count; i++) {
        e.answers[i] = b->aspects[v->aspects.items[i]].current;
    }
    b->entries = grown(b->entries, &b->entry_room, b->entry_count + 1, sizeof *b->entries);
    b->entries[b->entry_count++] = e;
    table_add(&v->entries, hash_entry(v, group), number);
    v->live++;
    return number;
}

static bool agrees(const struct book *b, const struct view *v, const struct entry *e) {
    for (uint32_t i = 0; i < v->aspects.count; i++) {
        if (e->answers[i] != b->aspects[v->aspects.items[i]].current) {
            return false;
        }
    }
    return true;
}

uint32_t book_find(const struct book *b, uint32_t group, uint32_t from) {
    uint32_t found = NONE;
    for (uint32_t i = 0; i < b->view_count; i++) {
        const struct view *v = &b->views[i];
        if (v->none || !v->live) {
            continue;
        }
        uint64_t hash = hash_entry(v, group), at = hash;
        for (uint32_t n; (n = table_next(&v->entries, hash, &at)) != NONE;) {
            const struct entry *e = &b->entries[n];
            if (n >= from && n < found && e->group == group && !e->dropped && agrees(b, v, e)) {
                found = n;
            }
        }
    }
    return found;
}

void book_drop(struct book *b, uint32_t entry) {
    assert(entry < b->entry_count);
    struct entry *e = &b->entries[entry];
    b->views[e->view].live -= !e->dropped;
    e->dropped = true;
}

void book_mark(struct book *b, uint32_t entry, uint32_t marks) {
    assert(entry < b->entry_count);
    b->entries[entry].marks = marks;
}

uint32_t book_marks(const struct book *b, uint32_t entry) {
    assert(entry < b->entry_count);
    return b->entries[entry].marks;
}
