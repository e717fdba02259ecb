/* Sessions that come to where another one has been. From there on both do the same, so the second
 * one ends: the rest is known. docs/adr/0033-sessions-that-join.md says why that is right.
 *
 * A moment is the whole machine as a block of code begins: what processor, memories and devices
 * hold, and what was done and said so far. Some are kept of each session, each after an erase. The
 * flash is apart from that. Only those of its units count that the session has read since, before
 * it has erased them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "core.h"
#include "grow.h"

#define MOST_PAUSES 3u /* moments of a session: after the erases number 1, 2 and 4 */
#define LAST_PAUSE 4u
#define MOST_OPS (1u << 18) /* before a moment, for these are compared */
#define NO_SESSION UINT64_MAX

struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

struct moment {
    uint64_t session, now;
    uint32_t pc;
    size_t op_count;
    struct bytes state;    /* until it is kept; then its size alone is right */
    struct chunk **chunks; /* what is kept of it */
    uint64_t *tail;        /* what the session has read since */
    uint64_t *asked;       /* the same, with what goes with it: these units are compared */
    uint32_t *wanted;      /* what they hold, one after the other */
};

/* What was noted between two moments, and what the flash held at the second. Its memory is kept
 * from one session to the next. */
struct stretch {
    uint64_t *relevant, *erased;
    uint8_t *cells;
};

struct joins {
    uint32_t parts; /* of enum join_part, that are compared */
    uint64_t kind;  /* of the session under way */
    bool over;      /* it has lost its power: what comes now is no part of it */
    struct moment *kept;
    size_t kept_count, kept_capacity;
    struct chunks chunks; /* most of a moment is in many: RAM that nobody has written */
    /* of the session that is under way */
    struct moment pauses[MOST_PAUSES];
    struct stretch stretches[MOST_PAUSES];
    size_t pause_count;
    uint64_t joined;
    uint64_t *rest; /* what the session that was joined has read since; NULL: none was */
};

static void *copied(const void *from, size_t size) {
    void *to = malloc(size ? size : 1);
    if (!to) {
        abort();
    }
    memcpy(to, from, size);
    return to;
}

/* The same, into memory that may be there from an earlier copy of the same size. */
static void *copied_into(void *to, const void *from, size_t size) {
    if (!to) {
        return copied(from, size);
    }
    memcpy(to, from, size);
    return to;
}

static void *shrunk(void *memory, size_t size) {
    void *less = realloc(memory, size ? size : 1);
    return less ? less : memory;
}

static void put(struct bytes *b, const void *data, size_t size) {
    b->data = grown(b->data, &b->capacity, b->size + size, 1);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

#define PUT(b, what) put(b, &(what), sizeof(what))

static size_t set_words(const struct mcu *m) {
    return m->image_size / UNIT / UNITS_AT_ONCE + 1;
}

static size_t set_size(const struct mcu *m) {
    return set_words(m) * sizeof(uint64_t);
}

/* The flash image: its regions lie one after the other in memory, too. */
static const uint8_t *image(const struct mcu *m) {
    return m->regions[0].flash->cells;
}

/* The state */

static void put_core(struct mcu *m, struct bytes *b) {
    const bool flags[] = {m->thumb,       m->powered, m->waiting, m->waiting_for_event,
                          m->spinning,    m->masked,  m->look,    m->event_register,
                          m->resetting,   m->pressed, m->trapped, m->aborting,
                          m->fpu_blocked, m->broken,  m->letting};
    const uint64_t times[] = {m->now, m->until, m->end, m->event, m->exceptions, m->resets};
    const uint32_t places[] = {m->block_pc, m->block_size,      m->spin_pc,
                               m->spins,    m->broken_at,       m->let_block,
                               m->until_pc, (uint32_t)m->stuck, m->looks};
    size_t size = m->u.context_size(m->u.uc);
    m->u.context_save(m->u.uc, m->u.scratch);
    put(b, m->u.scratch, size);
    PUT(b, flags);
    PUT(b, times);
    PUT(b, places);
    PUT(b, m->polling);
    PUT(b, m->nvic);
    PUT(b, m->scs);
}

static void put_devices(const struct mcu *m, struct bytes *b) {
    for (size_t i = 0; i < m->memory_count; i++) {
        put(b, m->memories[i].at, m->memories[i].size);
    }
    PUT(b, m->semihosting);
    for (uint32_t i = 0; i < PLAIN_SLOTS; i++) {
        const struct plain *p = &m->plain[i];
        if (p->reads || p->writes) {
            PUT(b, i);
            PUT(b, *p);
        }
    }
}

static void put_rams(const struct mcu *m, struct bytes *b) {
    for (size_t i = 0; i < m->ram_count; i++) {
        put(b, m->rams[i].memory, m->rams[i].constant ? 0 : m->rams[i].size);
    }
}

/* What was done and said: what follows from it for devices and for the host is the same, then. */
static void put_past(const struct mcu *m, struct bytes *b) {
    PUT(b, m->joins->kind);
    put(b, m->sent, m->sent_count * sizeof *m->sent);
    put(b, m->recalled, m->recalled_count * sizeof *m->recalled);
    size_t faults = m->fault_count < FAULTS_KEPT ? m->fault_count : FAULTS_KEPT;
    PUT(b, m->fault_count);
    put(b, m->faults, faults * sizeof *m->faults);
    for (size_t i = 0; i < m->op_count; i++) {
        const uint32_t op[] = {m->ops[i].kind, m->ops[i].offset, m->ops[i].length};
        PUT(b, op);
    }
}

static struct moment take_moment(struct mcu *m, uint32_t pc) {
    struct moment now = {.now = m->now, .pc = pc, .op_count = m->op_count};
    uint32_t parts = m->joins->parts;
    if (parts & JOIN_RAMS) {
        put_rams(m, &now.state); /* first, so that what is the same is in the same chunks */
    }
    if (parts & JOIN_CORE) {
        put_core(m, &now.state);
    }
    if (parts & JOIN_DEVICES) {
        put_devices(m, &now.state);
    }
    if (parts & JOIN_PAST) {
        put_past(m, &now.state);
    }
    return now;
}

/* Chunks */

static size_t count_chunks(const struct moment *one) {
    return (one->state.size + CHUNK - 1) / CHUNK;
}

/* Keep the state in chunks; the last one is filled up with zeros. */
static void keep_state(struct joins *j, struct moment *one) {
    static const uint8_t zeros[CHUNK];
    size_t size = one->state.size, count = count_chunks(one);
    put(&one->state, zeros, count * CHUNK - size);
    one->state.size = size;
    one->chunks = calloc(count, sizeof *one->chunks);
    if (!one->chunks) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        one->chunks[i] = keep_chunk(&j->chunks, one->state.data + i * CHUNK);
    }
    free(one->state.data);
    one->state.data = NULL;
}

/* Whether a moment that was kept has a state. */
static bool has_state(const struct moment *kept, const struct bytes *state) {
    for (size_t at = 0; at < state->size; at += CHUNK) {
        size_t left = state->size - at;
        if (memcmp(kept->chunks[at / CHUNK]->data, state->data + at, left < CHUNK ? left : CHUNK)) {
            return false;
        }
    }
    return true;
}

static void drop(struct joins *j, struct moment *one) {
    for (size_t i = 0; one->chunks && i < count_chunks(one); i++) {
        drop_chunk(&j->chunks, one->chunks[i]);
    }
    free(one->chunks);
    free(one->state.data);
    free(one->tail);
    free(one->asked);
    free(one->wanted);
    *one = (struct moment){0};
}

/* Joining */

/* Whether the flash holds what the session of a moment has read of it since. */
static bool holds(const struct mcu *m, const struct moment *one) {
    const uint8_t *cells = image(m);
    size_t at = 0;
    for (size_t word = 0; word < set_words(m); word++) {
        for (uint64_t left = one->asked[word]; left; left &= left - 1) {
            size_t unit = word * UNITS_AT_ONCE + (size_t)__builtin_ctzll(left);
            if (get32(cells + unit * UNIT) != one->wanted[at++]) {
                return false;
            }
        }
    }
    return true;
}

static bool is_same(const struct moment *kept, const struct moment *now) {
    return kept->now == now->now && kept->pc == now->pc && kept->op_count == now->op_count &&
           kept->state.size == now->state.size && has_state(kept, &now->state);
}

static const struct moment *find_moment(const struct mcu *m, const struct moment *now) {
    for (size_t i = 0; i < m->joins->kept_count; i++) {
        const struct moment *one = &m->joins->kept[i];
        if (is_same(one, now) && (holds(m, one) || !(m->joins->parts & JOIN_FLASH))) {
            return one;
        }
    }
    return NULL;
}

/* What was noted so far belongs to the stretch before this moment; noting begins anew. */
static void pause_here(struct mcu *m, struct moment now) {
    struct joins *j = m->joins;
    struct stretch *s = &j->stretches[j->pause_count];
    s->relevant = copied_into(s->relevant, m->notes.relevant, set_size(m));
    s->erased = copied_into(s->erased, m->notes.erased, set_size(m));
    s->cells = copied_into(s->cells, image(m), m->image_size);
    j->pauses[j->pause_count++] = now;
    notes_begin(&m->notes, m->image_size, m->notes.sources);
    forget_pages(m);
}

/* Here noting begins anew also in sessions that join none. What is noted too much is the same so,
 * whether a session has joined another one or not. */
bool joins_look(struct mcu *m, uint32_t pc) {
    struct joins *j = m->joins;
    m->pausing = false;
    m->erases++;
    if (m->erases & (m->erases - 1) || m->erases > LAST_PAUSE) {
        return true;
    }
    forget_loads(m);
    forget_notes_of_blocks(m);
    if (!j || j->over || m->op_count > MOST_OPS || m->debug.attached || m->stuck || m->undo_count) {
        return true;
    }
    struct moment now = take_moment(m, pc);
    const struct moment *same = find_moment(m, &now);
    if (!same) {
        pause_here(m, now);
        return true;
    }
    drop(j, &now);
    j->joined = same->session;
    j->rest = copied(same->tail, set_size(m));
    stop(m, STOP_JOINED);
    return false;
}

/* What a session has read, from its stretches and from the rest of the one that it joined. */
uint64_t *joins_relevant(const struct mcu *m) {
    const struct joins *j = m->joins;
    size_t words = m->notes.relevant ? set_words(m) : 0, stretches = j ? j->pause_count : 0;
    if (!words) {
        return NULL;
    }
    uint64_t *all = copied(m->notes.relevant, set_size(m));
    for (size_t i = 0; i < words; i++) {
        all[i] |= j && j->rest ? j->rest[i] & ~m->notes.erased[i] : 0;
    }
    for (size_t at = stretches; at-- > 0;) {
        for (size_t i = 0; i < words; i++) {
            all[i] = j->stretches[at].relevant[i] | (all[i] & ~j->stretches[at].erased[i]);
        }
    }
    return all;
}

static void forget_session(struct mcu *m) {
    struct joins *j = m->joins;
    for (size_t i = 0; i < j->pause_count; i++) {
        drop(j, &j->pauses[i]);
    }
    free(j->rest);
    j->rest = NULL;
    j->pause_count = 0;
    j->over = false;
    j->joined = NO_SESSION;
}

void joins_begin(struct mcu *m) {
    if (m->joins) {
        forget_session(m);
    }
}

/* What a moment asks of the flash, from what its session has read since. */
static void ask(const struct mcu *m, struct moment *one, const uint64_t *tail,
                const uint8_t *cells) {
    size_t capacity = 0, count = 0;
    one->tail = copied(tail, set_size(m));
    one->asked = copied(tail, set_size(m));
    note_checks(m, one->asked);
    for (size_t word = 0; word < set_words(m); word++) {
        for (uint64_t left = one->asked[word]; left; left &= left - 1) {
            size_t unit = word * UNITS_AT_ONCE + (size_t)__builtin_ctzll(left);
            one->wanted = grown(one->wanted, &capacity, count + 1, sizeof *one->wanted);
            one->wanted[count++] = get32(cells + unit * UNIT);
        }
    }
    one->wanted = shrunk(one->wanted, count * sizeof *one->wanted);
    keep_state(m->joins, one);
}

bool mcu_keep_session(struct mcu *m, uint64_t number) {
    struct joins *j = m->joins;
    assert(j && number != NO_SESSION);
    if (!j->pause_count || j->joined != NO_SESSION) {
        return false;
    }
    uint64_t *tail = copied(m->notes.relevant, set_size(m));
    for (size_t at = j->pause_count; at-- > 0;) {
        struct moment *one = &j->pauses[at];
        ask(m, one, tail, j->stretches[at].cells);
        one->session = number;
        for (size_t i = 0; i < set_words(m); i++) {
            tail[i] = j->stretches[at].relevant[i] | (tail[i] & ~j->stretches[at].erased[i]);
        }
        j->kept = grown(j->kept, &j->kept_capacity, j->kept_count + 1, sizeof *j->kept);
        j->kept[j->kept_count++] = *one;
        *one = (struct moment){0};
    }
    free(tail);
    return true;
}

void mcu_drop_session(struct mcu *m, uint64_t number) {
    struct joins *j = m->joins;
    size_t left = 0;
    for (size_t i = 0; i < j->kept_count; i++) {
        if (j->kept[i].session == number) {
            drop(j, &j->kept[i]);
        } else {
            j->kept[left++] = j->kept[i];
        }
    }
    j->kept_count = left;
}

void joins_end(struct mcu *m) {
    m->pausing = false;
    if (m->joins) {
        m->joins->over = true;
    }
}

void mcu_set_kind(struct mcu *m, uint64_t kind) {
    assert(m->joins && !m->powered);
    m->joins->kind = kind;
}

uint64_t mcu_joined(const struct mcu *m) {
    return m->joins ? m->joins->joined : NO_SESSION;
}

void mcu_join_sessions(struct mcu *m, uint32_t parts) {
    assert(!m->powered && m->region_count && !m->joins);
    m->joins = calloc(1, sizeof *m->joins);
    if (!m->joins) {
        abort();
    }
    m->joins->parts = parts;
    m->joins->joined = NO_SESSION;
}

void joins_free(struct mcu *m) {
    struct joins *j = m->joins;
    if (!j) {
        return;
    }
    forget_session(m);
    for (size_t i = 0; i < j->kept_count; i++) {
        drop(j, &j->kept[i]);
    }
    free(j->kept);
    for (size_t i = 0; i < MOST_PAUSES; i++) {
        free(j->stretches[i].relevant);
        free(j->stretches[i].erased);
        free(j->stretches[i].cells);
    }
    free(j);
    m->joins = NULL;
}
