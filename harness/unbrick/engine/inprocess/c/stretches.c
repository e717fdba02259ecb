/* Stretches of sessions that are known: what the board did from one moment to the next, and what
 * came of it. Where it is at such a moment again, nothing is executed as long as the host does the
 * same. docs/adr/0043-stretches-that-are-known.md says why that is right. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "grow.h"
#include "parts.h"

#define STRETCH_BLOCKS 200000u /* basic blocks after which a stretch ends with a run */
#define AGES 16u               /* in which as much is kept as may be */
#define MOMENTS 4096u          /* chains of moments, by their hashes */
#define SRAM_CHUNKS (SRAM_SIZE / CHUNK)
#define NOR_CHUNKS (NOR_MODELLED / CHUNK)

_Static_assert(CHUNK == PAGE, "pages of the NOR are kept as chunks");

struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

/* Of what a board depends on, all but the SRAM and the NOR. Padding is 0. */
struct machine {
    struct chip chips[NOR_CHIPS];
    struct timer timers[2];
    struct gic gic;
    struct uart uarts[2]; /* without what the queues hold */
    size_t waits[2];      /* bytes that wait in those of reception */
    uint64_t now;
    uint32_t pc, block_pc, dirty_low, dirty_high;
    bool waiting, hidden;
};

/* All that a board depends on, but the NOR. */
struct moment {
    struct moment *next; /* of the same hash */
    uint32_t hash;
    struct chunk *sram[SRAM_CHUNKS];
    struct bytes rest; /* struct machine, Unicorn's registers, the queues of reception */
    struct stretch *stretches;
    uint64_t age; /* in which a session was here last */
};

/* What can be seen of the chips without power being lost. */
struct seen {
    bool busy; /* one has an operation under way */
    uint32_t locked_down;
};

/* What the host did, and, when that was to let time pass, what came of it. */
struct event {
    enum { EVENT_PUSH, EVENT_RUN } kind;
    int uart;       /* to which bytes were pushed */
    uint64_t until; /* to which time was let pass */
    int reason, stuck;
    struct seen seen;
    uint64_t now, blocks;
    size_t pushed, sent, ops, op_data, changes; /* so much the stretch has, after it */
};

struct sent {
    uint64_t time;
    uint8_t uart, byte;
};

/* An operation that a chip has carried out, before what it programs. */
struct change {
    uint32_t chip, kind, word, count;
};

struct page_read {
    uint32_t page;
    struct chunk *held; /* as the stretch began */
};

struct stretch {
    struct stretch *next;
    struct moment *end; /* NULL: the power went, or the host did something else */
    struct page_read *reads;
    size_t read_count, read_capacity;
    struct event *events;
    size_t event_count, event_capacity;
    struct sent *sent;
    size_t sent_count, sent_capacity;
    struct op *ops;
    size_t op_count, op_capacity;
    struct bytes host, op_data, changes;
};

/* What was changed of the NOR since a stretch began, for going back there. */
struct undo {
    uint32_t offset, length;
    size_t data;
};

enum mode {
    MODE_APART,    /* what is done is not written down: without power, or after a fault */
    MODE_WRITING,  /* the board runs, and it is written down */
    MODE_FOLLOWING /* the board does not run: memories and devices are where `from` is */
};

enum { PAGE_NEW = 0, PAGE_READ, PAGE_GONE }; /* gone: erased before it was read */

struct stretches {
    enum mode mode;
    struct chunks chunks;
    struct moment *moments[MOMENTS];
    struct chunk *nor[NOR_CHUNKS]; /* what pages hold; NULL: it is to be looked up */
    struct moment *from;           /* where the stretch under way begins */
    struct stretch *under_way;     /* is written, or followed; NULL: none is known there */
    struct seen seen;              /* while one is followed */
    size_t at;                     /* events that were followed */
    size_t most;                   /* bytes; when more are kept, what is old is given up */
    size_t kept;                   /* those, without chunks */
    uint64_t age;
    size_t age_ends;           /* when so much is kept */
    uint64_t followed;         /* blocks that were not executed, of all sessions */
    uint64_t blocks;           /* so many were executed, as it began */
    size_t ops, op_data;       /* likewise */
    uint8_t pages[NOR_CHUNKS]; /* of the NOR, since it began */
    struct undo *undos;
    size_t undo_count, undo_capacity;
    struct bytes undone;
};

static void put(struct bytes *b, const void *data, size_t size) {
    if (size) {
        b->data = grown(b->data, &b->capacity, b->size + size, 1);
        memcpy(b->data + b->size, data, size);
        b->size += size;
    }
}

/* An array that grows no more, without the room that is left. */
static void *trimmed(void *memory, size_t *capacity, size_t count, size_t size) {
    void *smaller = count ? realloc(memory, count * size) : memory;
    *capacity = smaller && count ? count : *capacity;
    return smaller ? smaller : memory;
}

static void trim(struct bytes *b) {
    b->data = trimmed(b->data, &b->capacity, b->size, 1);
}

/* What is kept */

static size_t moment_size(const struct moment *m) {
    return sizeof *m + m->rest.capacity;
}

static size_t stretch_size(const struct stretch *s) {
    size_t arrays = s->read_capacity * sizeof *s->reads + s->event_capacity * sizeof *s->events +
                    s->sent_capacity * sizeof *s->sent + s->op_capacity * sizeof *s->ops;
    return sizeof *s + arrays + s->host.capacity + s->op_data.capacity + s->changes.capacity;
}

static size_t find_size(const struct stretches *k) {
    return k->kept + k->chunks.count * sizeof(struct chunk);
}

static void drop_stretch(struct stretches *k, struct stretch *s) {
    for (size_t i = 0; i < s->read_count; i++) {
        drop_chunk(&k->chunks, s->reads[i].held);
    }
    free(s->reads);
    free(s->events);
    free(s->sent);
    free(s->ops);
    free(s->host.data);
    free(s->op_data.data);
    free(s->changes.data);
    free(s);
}

static void drop_moment(struct stretches *k, struct moment *m) {
    while (m->stretches) {
        struct stretch *s = m->stretches;
        m->stretches = s->next;
        k->kept -= stretch_size(s);
        drop_stretch(k, s);
    }
    for (size_t i = 0; i < SRAM_CHUNKS; i++) {
        drop_chunk(&k->chunks, m->sram[i]);
    }
    free(m->rest.data);
    free(m);
}

static void forget_page(struct stretches *k, uint32_t page) {
    if (k->nor[page]) {
        drop_chunk(&k->chunks, k->nor[page]);
        k->nor[page] = NULL;
    }
}

/* Give up the moments at which no session has been since an age began. */
static void forget_moments(struct stretches *k, uint64_t age) {
    for (size_t i = 0; i < MOMENTS; i++) {
        for (struct moment *m = k->moments[i]; m; m = m->next) {
            for (struct stretch **at = &m->stretches, *s; (s = *at);) {
                if (s->end && s->end->age < age) { /* nobody could go on from there */
                    *at = s->next;
                    k->kept -= stretch_size(s);
                    drop_stretch(k, s);
                } else {
                    at = &s->next;
                }
            }
        }
    }
    if (k->from && k->from->age < age) {
        k->from = NULL;
    }
    for (size_t i = 0; i < MOMENTS; i++) {
        for (struct moment **at = &k->moments[i], *m; (m = *at);) {
            if (m->age < age) {
                *at = m->next;
                k->kept -= moment_size(m);
                drop_moment(k, m);
            } else {
                at = &m->next;
            }
        }
    }
}

/* An age ends when so much was kept in it. There is room for most of AGES; then the oldest are
 * given up: what no session has come by since. */
static void grow_old(struct stretches *k) {
    const size_t room = k->most / AGES;
    if (find_size(k) <= k->age_ends) {
        return;
    }
    k->age++;
    uint64_t age = k->age > AGES ? k->age - AGES : 0;
    while (age++ < k->age && find_size(k) > k->most - room) {
        forget_moments(k, age);
    }
    k->age_ends = find_size(k) + room;
}

static struct chunk *page_now(struct board *b, uint32_t page) {
    struct stretches *k = b->stretches;
    if (!k->nor[page]) {
        k->nor[page] = keep_chunk(&k->chunks, b->nor + (size_t)page * CHUNK);
    }
    return k->nor[page];
}

/* The machine, as it is kept */

static void put_machine(struct board *b, struct bytes *out) {
    struct machine m;
    memset(&m, 0, sizeof m);
    memcpy(m.chips, b->chips, sizeof m.chips);
    memcpy(m.timers, b->timers, sizeof m.timers);
    m.gic = b->gic;
    for (int i = 0; i < 2; i++) {
        struct uart *u = &m.uarts[i];
        memcpy(u, &b->uarts[i], sizeof *u);
        m.waits[i] = u->rx.count;
        memset(&u->rx, 0, sizeof u->rx);
        memset(&u->tx, 0, sizeof u->tx);
        memset(u->fifo, 0, sizeof u->fifo);
        for (unsigned n = 0; n < u->fifo_count; n++) {
            u->fifo[n] = b->uarts[i].fifo[(b->uarts[i].fifo_head + n) % UART_FIFO];
        }
        u->fifo_head = 0;
    }
    m.now = b->now;
    m.pc = b->pc;
    m.block_pc = b->block_pc;
    m.dirty_low = b->dirty_low;
    m.dirty_high = b->dirty_high;
    m.waiting = b->waiting;
    m.hidden = b->hidden;
    put(out, &m, sizeof m);
    b->u.context_save(b->u.uc, b->u.scratch);
    put(out, b->u.scratch, b->u.context_size(b->u.uc));
    for (int i = 0; i < 2; i++) {
        const struct byte_queue *q = &b->uarts[i].rx;
        if (q->count) {
            put(out, q->data + q->head, q->count);
            put(out, q->time + q->head, q->count * sizeof *q->time);
        }
    }
}

static void get_machine(struct board *b, const struct bytes *in) {
    struct machine m;
    const uint8_t *at = in->data;
    size_t context = b->u.context_size(b->u.uc);
    memcpy(&m, at, sizeof m);
    at += sizeof m;
    memcpy(b->chips, m.chips, sizeof m.chips);
    memcpy(b->timers, m.timers, sizeof m.timers);
    b->gic = m.gic;
    b->now = m.now;
    b->pc = m.pc;
    b->block_pc = m.block_pc;
    b->dirty_low = m.dirty_low;
    b->dirty_high = m.dirty_high;
    b->waiting = m.waiting;
    memcpy(b->u.scratch, at, context);
    b->u.context_restore(b->u.uc, b->u.scratch);
    at += context;
    for (int i = 0; i < 2; i++) {
        struct uart *u = &b->uarts[i];
        struct byte_queue rx = u->rx, tx = u->tx;
        memcpy(u, &m.uarts[i], sizeof *u);
        u->rx = rx;
        u->tx = tx;
        u->rx.head = u->rx.count = 0;
        for (size_t n = 0; n < m.waits[i]; n++) {
            uint64_t time;
            memcpy(&time, at + m.waits[i] + n * sizeof time, sizeof time);
            queue_put(&u->rx, at[n], time);
        }
        at += m.waits[i] * (1 + sizeof(uint64_t));
    }
    assert(at == in->data + in->size);
    show_array(b, m.hidden);
}

static uint32_t hash_moment(const struct moment *m) {
    uint64_t hash = 0;
    for (size_t i = 0; i < SRAM_CHUNKS; i++) {
        hash = (hash ^ m->sram[i]->hash) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    const struct machine *machine = (const void *)m->rest.data;
    return (uint32_t)((hash ^ machine->now ^ machine->pc) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* The moment at which the board is, which is kept once. */
static struct moment *keep_moment(struct board *b) {
    struct stretches *k = b->stretches;
    grow_old(k);
    struct moment *m = calloc(1, sizeof *m);
    if (!m) {
        abort();
    }
    for (size_t i = 0; i < SRAM_CHUNKS; i++) {
        const uint8_t *held = b->sram + i * CHUNK;
        struct chunk *before = k->from ? k->from->sram[i] : NULL;
        if (before && memcmp(before->data, held, CHUNK) == 0) {
            before->uses++;
            m->sram[i] = before;
        } else {
            m->sram[i] = keep_chunk(&k->chunks, held);
        }
    }
    put_machine(b, &m->rest);
    m->hash = hash_moment(m);
    struct moment **chain = &k->moments[m->hash % MOMENTS];
    for (struct moment *known = *chain; known; known = known->next) {
        if (known->hash == m->hash && !memcmp(known->sram, m->sram, sizeof m->sram) &&
            known->rest.size == m->rest.size &&
            !memcmp(known->rest.data, m->rest.data, m->rest.size)) {
            drop_moment(k, m);
            return known;
        }
    }
    trim(&m->rest);
    m->next = *chain;
    k->kept += moment_size(m);
    return *chain = m;
}

/* Writing down */

static void begin_stretch(struct board *b, struct moment *from) {
    struct stretches *k = b->stretches;
    k->from = from;
    k->at = 0;
    k->blocks = b->blocks;
    k->ops = b->op_count;
    k->op_data = b->op_data_size;
    k->undo_count = k->undone.size = 0;
}

static void write_stretch(struct board *b) {
    struct stretches *k = b->stretches;
    k->mode = MODE_WRITING;
    k->under_way = calloc(1, sizeof *k->under_way);
    if (!k->under_way) {
        abort();
    }
    memset(k->pages, PAGE_NEW, sizeof k->pages);
    forget_pages(b); /* each page that is read is asked for anew */
}

/* What was written down is kept, up to here. */
static void end_writing(struct board *b) {
    struct stretches *k = b->stretches;
    assert(k->mode == MODE_WRITING);
    struct stretch *s = k->under_way;
    if (s->event_count) {
        trim(&s->host);
        trim(&s->op_data);
        trim(&s->changes);
        s->reads = trimmed(s->reads, &s->read_capacity, s->read_count, sizeof *s->reads);
        s->events = trimmed(s->events, &s->event_capacity, s->event_count, sizeof *s->events);
        s->sent = trimmed(s->sent, &s->sent_capacity, s->sent_count, sizeof *s->sent);
        s->ops = trimmed(s->ops, &s->op_capacity, s->op_count, sizeof *s->ops);
        s->next = k->from->stretches;
        k->from->stretches = s;
        k->kept += stretch_size(s);
    } else {
        drop_stretch(k, s);
    }
    k->under_way = NULL;
    k->mode = MODE_APART;
}

static void write_event(struct stretch *s, struct event event) {
    event.pushed = s->host.size;
    event.sent = s->sent_count;
    event.ops = s->op_count;
    event.op_data = s->op_data.size;
    event.changes = s->changes.size;
    s->events = grown(s->events, &s->event_capacity, s->event_count + 1, sizeof *s->events);
    s->events[s->event_count++] = event;
}

static struct seen look(const struct board *b) {
    struct seen seen = {0};
    for (int i = 0; i < NOR_CHIPS; i++) {
        seen.busy |= b->chips[i].job.kind != BUSY_NO || b->chips[i].suspended.kind != BUSY_NO;
    }
    for (uint32_t i = 0; i < NOR_MODELLED / NOR_BLOCK; i++) {
        seen.locked_down |= (uint32_t)are_locked_down(b, i * NOR_BLOCK) << i;
    }
    return seen;
}

/* Let time pass, and write down what comes of it. */
static int run_and_write(struct board *b, uint64_t until) {
    struct stretches *k = b->stretches;
    struct stretch *s = k->under_way;
    size_t waited[2], faults = b->fault_count, ops = b->op_count, op_data = b->op_data_size;
    for (int i = 0; i < 2; i++) {
        waited[i] = b->uarts[i].tx.count;
    }
    int reason = run_board(b, until);
    settle_chips(b);                /* as the host may do it anyway */
    if (b->fault_count != faults) { /* the host looks into it */
        end_writing(b);
        return reason;
    }
    for (int i = 0; i < 2; i++) {
        const struct byte_queue *q = &b->uarts[i].tx;
        for (size_t n = waited[i]; n < q->count; n++) {
            s->sent = grown(s->sent, &s->sent_capacity, s->sent_count + 1, sizeof *s->sent);
            s->sent[s->sent_count++] = (struct sent){
                .time = q->time[q->head + n], .uart = (uint8_t)i, .byte = q->data[q->head + n]};
        }
    }
    for (; ops < b->op_count; ops++) {
        s->ops = grown(s->ops, &s->op_capacity, s->op_count + 1, sizeof *s->ops);
        s->ops[s->op_count] = b->ops[ops];
        s->ops[s->op_count++].data -= k->op_data;
    }
    put(&s->op_data, b->op_data + op_data, b->op_data_size - op_data);
    write_event(s, (struct event){.kind = EVENT_RUN,
                                  .until = until,
                                  .reason = reason,
                                  .stuck = b->stuck,
                                  .seen = look(b),
                                  .now = b->now,
                                  .blocks = b->blocks - k->blocks});
    return reason;
}

static void push_and_write(struct board *b, int uart, const uint8_t *data, size_t length) {
    struct stretch *s = b->stretches->under_way;
    uart_push(b, uart, data, length);
    put(&s->host, data, length);
    write_event(s, (struct event){.kind = EVENT_PUSH, .uart = uart});
}

/* The board looks at a page of the NOR. */
void stretch_reads(struct board *b, uint32_t address) {
    struct stretches *k = b->stretches;
    uint32_t page = address / PAGE;
    if (!k || k->mode != MODE_WRITING || k->pages[page] != PAGE_NEW) {
        return;
    }
    struct stretch *s = k->under_way;
    s->reads = grown(s->reads, &s->read_capacity, s->read_count + 1, sizeof *s->reads);
    struct chunk *held = page_now(b, page);
    held->uses++;
    s->reads[s->read_count++] = (struct page_read){page, held};
    k->pages[page] = PAGE_READ;
}

/* Whether an erase of a chip leaves nothing of what was in a block: the other one does the same, or
 * has done so. Where both have ended nobody has read what one of them had left. */
static bool is_erased_whole(const struct board *b, int chip, const struct job *j) {
    const struct job *other = &b->chips[1 - chip].job;
    bool both = other->kind == BUSY_ERASE && other->word == j->word && other->end <= b->now;
    return both || b->stretches->pages[j->word * 4 / PAGE] != PAGE_NEW;
}

/* A chip is about to change cells. What only some cells of a page are changed of has a say. */
void stretch_changes(struct board *b, int chip, const struct job *j) {
    struct stretches *k = b->stretches;
    uint32_t first = j->word * 4 / PAGE, last = ((j->word + j->count) * 4 - 1) / PAGE;
    if (!k) {
        return;
    }
    bool writing = k->mode == MODE_WRITING;
    bool whole = writing && j->kind == BUSY_ERASE && is_erased_whole(b, chip, j);
    for (uint32_t page = first; page <= last; page++) {
        if (!whole) {
            stretch_reads(b, page * PAGE);
        } else if (k->pages[page] == PAGE_NEW) {
            k->pages[page] = PAGE_GONE;
        }
        forget_page(k, page);
    }
    if (writing) {
        struct bytes *changes = &k->under_way->changes;
        const struct change change = {(uint32_t)chip, j->kind, j->word, j->count};
        put(changes, &change, sizeof change);
        if (j->kind != BUSY_ERASE) {
            put(changes, j->data, j->count * sizeof *j->data);
            put(changes, j->given, j->count);
        }
    }
}

void stretch_loads(struct board *b, uint32_t low, uint32_t high) {
    for (uint32_t page = low / PAGE; b->stretches && page <= (high - 1) / PAGE; page++) {
        forget_page(b->stretches, page);
    }
}

/* Following */

static bool holds(struct board *b, const struct stretch *s) {
    for (size_t i = s->read_count; i-- > 0;) {
        if (page_now(b, s->reads[i].page) != s->reads[i].held) {
            return false;
        }
    }
    return true;
}

/* A moment has come: from there on a stretch is known, or is to be written down. */
static void come_to(struct board *b, struct moment *m) {
    struct stretches *k = b->stretches;
    k->seen = k->mode == MODE_FOLLOWING ? k->seen : look(b);
    begin_stretch(b, m);
    m->age = k->age;
    for (k->under_way = m->stretches; k->under_way; k->under_way = k->under_way->next) {
        if (holds(b, k->under_way)) {
            k->mode = MODE_FOLLOWING;
            return;
        }
    }
    if (k->mode != MODE_FOLLOWING) {
        write_stretch(b);
    }
}

static void change_and_note(struct board *b, const struct change *c, const uint8_t *given) {
    struct stretches *k = b->stretches;
    uint32_t offset = c->word * 4, length = c->count * 4;
    k->undos = grown(k->undos, &k->undo_capacity, k->undo_count + 1, sizeof *k->undos);
    k->undos[k->undo_count++] = (struct undo){offset, length, k->undone.size};
    put(&k->undone, b->nor + offset, length);
    for (uint32_t i = 0; i < c->count; i++) {
        uint8_t *cell = b->nor + offset + (size_t)i * 4 + c->chip * 2;
        uint16_t data = 0xffff;
        if (c->kind == BUSY_ERASE) {
            put16(cell, data);
        } else if (given[c->count * sizeof data + i]) {
            put16(cell, get16(cell) & get16(given + i * sizeof data));
        }
    }
    for (uint32_t page = offset / PAGE; page <= (offset + length - 1) / PAGE; page++) {
        forget_page(k, page);
    }
    code_nor_changed(b, offset, offset + length);
}

/* What an event came to. */
static int happen(struct board *b, const struct stretch *s, size_t number) {
    static const struct event none;
    struct stretches *k = b->stretches;
    const struct event *e = &s->events[number], *before = number ? e - 1 : &none;
    for (size_t i = before->sent; i < e->sent; i++) {
        queue_put(&b->uarts[s->sent[i].uart].tx, s->sent[i].byte, s->sent[i].time);
    }
    for (size_t i = before->ops; i < e->ops; i++) {
        b->ops = grown(b->ops, &b->op_capacity, b->op_count + 1, sizeof *b->ops);
        b->ops[b->op_count] = s->ops[i];
        b->ops[b->op_count++].data += k->op_data;
    }
    size_t size = e->op_data - before->op_data;
    b->op_data = grown(b->op_data, &b->op_data_capacity, b->op_data_size + size, 1);
    if (size) {
        memcpy(b->op_data + b->op_data_size, s->op_data.data + before->op_data, size);
    }
    b->op_data_size += size;
    for (size_t at = before->changes; at < e->changes;) {
        struct change c;
        memcpy(&c, s->changes.data + at, sizeof c);
        at += sizeof c;
        change_and_note(b, &c, s->changes.data + at);
        at += c.kind == BUSY_ERASE ? 0 : c.count * (sizeof(uint16_t) + 1);
    }
    b->now = e->now;
    k->followed += k->blocks + e->blocks - b->blocks;
    b->blocks = k->blocks + e->blocks;
    b->stuck = e->stuck;
    k->seen = e->seen;
    return e->reason;
}

/* The board comes to be where it is said to be: at the moment from which on a stretch was followed,
 * and from there on by executing what was followed of it. */
static void arrive(struct board *b) {
    struct stretches *k = b->stretches;
    const struct stretch *s = k->under_way;
    struct byte_queue tx[2];
    size_t events = k->at;
    uint64_t now = b->now;
    assert(k->mode == MODE_FOLLOWING);
    k->followed -= b->blocks - k->blocks;
    for (size_t i = k->undo_count; i-- > 0;) {
        const struct undo *u = &k->undos[i];
        memcpy(b->nor + u->offset, k->undone.data + u->data, u->length);
        code_nor_changed(b, u->offset, u->offset + u->length);
        for (uint32_t page = u->offset / PAGE; page <= (u->offset + u->length - 1) / PAGE; page++) {
            forget_page(k, page);
        }
    }
    forget_sram_code(b);
    for (size_t i = 0; i < SRAM_CHUNKS; i++) {
        memcpy(b->sram + i * CHUNK, k->from->sram[i]->data, CHUNK);
    }
    get_machine(b, &k->from->rest);
    b->stuck = 0;
    b->blocks = k->blocks;
    b->op_count = k->ops;
    b->op_data_size = k->op_data;
    begin_stretch(b, k->from);
    write_stretch(b);
    for (int i = 0; i < 2; i++) { /* what was said then is known */
        tx[i] = b->uarts[i].tx;
        b->uarts[i].tx = (struct byte_queue){0};
    }
    for (size_t i = 0; i < events; i++) {
        const struct event *e = &s->events[i];
        if (e->kind == EVENT_PUSH) {
            size_t before = i ? s->events[i - 1].pushed : 0;
            push_and_write(b, e->uart, s->host.data + before, e->pushed - before);
        } else {
            run_and_write(b, e->until);
        }
    }
    for (int i = 0; i < 2; i++) {
        free(b->uarts[i].tx.data);
        free(b->uarts[i].tx.time);
        b->uarts[i].tx = tx[i];
    }
    assert(k->mode == MODE_WRITING && b->now == now);
}

/* Whether the host does what it did in the stretch that is followed. */
static bool is_next(const struct stretches *k, const struct event *wanted, const uint8_t *data,
                    size_t length) {
    const struct stretch *s = k->under_way;
    if (!s || k->at == s->event_count) {
        return false;
    }
    const struct event *e = &s->events[k->at];
    size_t before = k->at ? s->events[k->at - 1].pushed : 0;
    return e->kind == wanted->kind && e->uart == wanted->uart && e->until == wanted->until &&
           e->pushed - before == length &&
           (!length || !memcmp(s->host.data + before, data, length));
}

int stretch_run(struct board *b, uint64_t until) {
    struct stretches *k = b->stretches;
    int reason;
    assert(b->powered && !b->stuck);
    if (k->mode == MODE_FOLLOWING) {
        if (is_next(k, &(struct event){.kind = EVENT_RUN, .until = until}, NULL, 0)) {
            const struct stretch *s = k->under_way;
            reason = happen(b, s, k->at++);
            if (k->at == s->event_count && s->end) {
                come_to(b, s->end);
            }
            return reason;
        }
        arrive(b);
    }
    if (k->mode == MODE_APART) {
        return run_board(b, until);
    }
    reason = run_and_write(b, until);
    if (k->mode == MODE_WRITING && !b->stuck && b->blocks - k->blocks >= STRETCH_BLOCKS) {
        struct stretch *written = k->under_way;
        end_writing(b);
        struct moment *before = k->from, *now = keep_moment(b);
        if (k->from == before) { /* it was not forgotten */
            written->end = now;
        }
        come_to(b, now);
    }
    return reason;
}

void stretch_push(struct board *b, int uart, const uint8_t *data, size_t length) {
    struct stretches *k = b->stretches;
    if (k->mode == MODE_FOLLOWING) {
        if (is_next(k, &(struct event){.kind = EVENT_PUSH, .uart = uart}, data, length)) {
            k->at++;
            return;
        }
        arrive(b);
    }
    if (k->mode == MODE_APART) {
        uart_push(b, uart, data, length);
    } else {
        push_and_write(b, uart, data, length);
    }
}

/* Power, and the host */

void stretches_begin(struct board *b) {
    struct stretches *k = b->stretches;
    bool plain = !b->notes.sources && !b->code_sizes && !b->watch_count && !b->worn_count &&
                 b->cut_before == NEVER;
    if (k && plain) {
        assert(k->mode == MODE_APART);
        come_to(b, keep_moment(b));
    }
}

void stretches_arrive(struct board *b) {
    if (stretches_follow(b)) {
        arrive(b);
    }
}

void stretches_end(struct board *b) {
    struct stretches *k = b->stretches;
    if (!k) {
        return;
    }
    if (k->mode == MODE_FOLLOWING && k->seen.busy) { /* what is torn follows from the machine */
        arrive(b);
    } else if (k->mode == MODE_FOLLOWING) { /* what was under way at `from` has ended since */
        for (int i = 0; i < NOR_CHIPS; i++) {
            b->chips[i].job.kind = b->chips[i].suspended.kind = BUSY_NO;
        }
    }
    if (k->mode == MODE_WRITING) {
        end_writing(b);
    }
    k->mode = MODE_APART;
}

void stretches_leave(struct board *b) {
    stretches_arrive(b);
    stretches_end(b);
}

bool stretches_follow(const struct board *b) {
    return b->stretches && b->stretches->mode == MODE_FOLLOWING;
}

uint32_t stretches_locked_down(const struct board *b) {
    return b->stretches->seen.locked_down;
}

uint64_t board_followed(const struct board *b) {
    return b->stretches ? b->stretches->followed : 0;
}

void board_remember(struct board *b, size_t most) {
    assert(!b->powered && !b->stretches);
    b->stretches = calloc(1, sizeof *b->stretches);
    if (!b->stretches) {
        abort();
    }
    b->stretches->most = most;
}

void stretches_free(struct board *b) {
    struct stretches *k = b->stretches;
    if (!k) {
        return;
    }
    stretches_end(b);
    for (uint32_t page = 0; page < NOR_CHUNKS; page++) {
        forget_page(k, page);
    }
    forget_moments(k, UINT64_MAX);
    free(k->undos);
    free(k->undone.data);
    free(k);
    b->stretches = NULL;
}
