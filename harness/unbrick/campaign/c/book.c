/* The book of partial states; see book.h. */
#include "book.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 64u /* units */
#define UNIT 4u  /* bytes */
#define BLANK UINT32_MAX

struct page {
    uint32_t value[PAGE], weak[PAGE];
};

struct list {
    uint32_t *items;
    uint32_t count, capacity;
};

struct question { /* about one page; shared by the entries that ask it */
    uint64_t mask;
    struct page wanted; /* only the units of the mask count */
    uint32_t differing; /* units of the mask in which the flash differs now */
    struct list entries;
};

struct entry {
    uint32_t group, unmet; /* questions that the flash does not answer as wanted now */
    uint32_t place;        /* in the list of entries that it agrees with, or BOOK_NONE */
    bool dropped;
};

struct book {
    uint32_t page_count;
    struct page **pages; /* NULL: blank */
    struct list *about;  /* for each page, the questions about it */
    struct question **questions;
    uint32_t question_count, question_capacity;
    struct entry *entries;
    uint32_t entry_count, entry_capacity;
    struct list agreeing; /* entries without an unmet question */
};

static void *need(void *memory) {
    if (!memory) {
        abort();
    }
    return memory;
}

static void *grown(void *memory, uint32_t *capacity, uint32_t wanted, size_t size) {
    if (wanted <= *capacity) {
        return memory;
    }
    *capacity = wanted < 4 ? 4 : wanted * 2;
    return need(realloc(memory, *capacity * size));
}

static void append(struct list *list, uint32_t item) {
    list->items = grown(list->items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items[list->count++] = item;
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
    for (uint32_t i = 0; i < b->question_count; i++) {
        free(b->questions[i]->entries.items);
        free(b->questions[i]);
    }
    free(b->pages);
    free(b->about);
    free(b->questions);
    free(b->entries);
    free(b->agreeing.items);
    free(b);
}

static void note_agreement(struct book *b, uint32_t number) {
    struct entry *e = &b->entries[number];
    bool agrees = e->unmet == 0 && !e->dropped;
    if (agrees && e->place == BOOK_NONE) {
        e->place = b->agreeing.count;
        append(&b->agreeing, number);
    } else if (!agrees && e->place != BOOK_NONE) {
        uint32_t last = b->agreeing.items[--b->agreeing.count];
        b->agreeing.items[e->place] = last;
        b->entries[last].place = e->place;
        e->place = BOOK_NONE;
    }
}

static void count_difference(struct book *b, struct question *q, int change) {
    bool was_met = q->differing == 0;
    q->differing += (uint32_t)change;
    bool met = q->differing == 0;
    for (uint32_t i = 0; met != was_met && i < q->entries.count; i++) {
        uint32_t number = q->entries.items[i];
        b->entries[number].unmet += met ? UINT32_MAX : 1;
        note_agreement(b, number);
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
    for (uint32_t i = 0; i < b->about[at].count; i++) {
        struct question *q = b->questions[b->about[at].items[i]];
        if (q->mask >> in & 1) {
            bool differed = q->wanted.value[in] != old || q->wanted.weak[in] != old_weak;
            bool differs = q->wanted.value[in] != value || q->wanted.weak[in] != weak;
            if (differed != differs) {
                count_difference(b, q, differs ? 1 : -1);
            }
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

/* Whether an entry may come to agree, or to agree no more, by what `pages` pages hold, of which one
 * is what the question is about. */
static bool could_change(const struct entry *e, const struct question *q, uint32_t pages) {
    if (e->dropped || e->unmet > pages) {
        return false;
    }
    return pages > 1 || e->unmet == (q->differing != 0);
}

static bool has_say(const struct book *b, uint32_t first, uint32_t count) {
    uint32_t last = first + count - 1, pages = last / PAGE - first / PAGE + 1;
    for (uint32_t at = first / PAGE; at <= last / PAGE; at++) {
        uint64_t units = UINT64_MAX;
        units &= at == first / PAGE ? UINT64_MAX << first % PAGE : UINT64_MAX;
        units &= at == last / PAGE ? UINT64_MAX >> (PAGE - 1 - last % PAGE) : UINT64_MAX;
        for (uint32_t i = 0; i < b->about[at].count; i++) {
            const struct question *q = b->questions[b->about[at].items[i]];
            for (uint32_t k = 0; q->mask & units && k < q->entries.count; k++) {
                if (could_change(&b->entries[q->entries.items[k]], q, pages)) {
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

/* The question that asks of these units of a page what the flash holds there now. */
static uint32_t find_question(struct book *b, uint32_t at, uint64_t mask) {
    const struct page *now = b->pages[at];
    for (uint32_t i = 0; i < b->about[at].count; i++) {
        uint32_t number = b->about[at].items[i];
        if (b->questions[number]->mask == mask && b->questions[number]->differing == 0) {
            return number;
        }
    }
    struct question *q = need(calloc(1, sizeof *q));
    q->mask = mask;
    if (now) {
        q->wanted = *now;
    } else {
        memset(q->wanted.value, 0xff, sizeof q->wanted.value);
    }
    b->questions =
        grown(b->questions, &b->question_capacity, b->question_count + 1, sizeof *b->questions);
    b->questions[b->question_count] = q;
    append(&b->about[at], b->question_count);
    return b->question_count++;
}

uint32_t book_add(struct book *b, uint32_t group, const uint64_t *units) {
    b->entries = grown(b->entries, &b->entry_capacity, b->entry_count + 1, sizeof *b->entries);
    uint32_t number = b->entry_count++;
    b->entries[number] = (struct entry){group, 0, BOOK_NONE, false};
    for (uint32_t at = 0; at < b->page_count; at++) {
        if (units[at]) {
            uint32_t question = find_question(b, at, units[at]);
            append(&b->questions[question]->entries, number);
        }
    }
    note_agreement(b, number);
    return number;
}

uint32_t book_find(const struct book *b, uint32_t group, uint32_t from) {
    uint32_t found = BOOK_NONE;
    for (uint32_t i = 0; i < b->agreeing.count; i++) {
        uint32_t number = b->agreeing.items[i];
        if (number >= from && number < found && b->entries[number].group == group) {
            found = number;
        }
    }
    return found;
}

void book_drop(struct book *b, uint32_t entry) {
    assert(entry < b->entry_count);
    b->entries[entry].dropped = true;
    note_agreement(b, entry);
}
