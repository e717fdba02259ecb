/* The graph of behaviours; see graph.h.
 *
 * Many nodes need the same, so each set of units is there once. It never changes: what grows gets
 * another one. */
#include "graph.h"

#include <assert.h>
#include <string.h>

#include "room.h"

#define WORD 64u /* bits */
#define NONE BOOK_NONE

/* A set of units, and whether it has all of the fields or none. */
struct set {
    struct set *next; /* with another hash, in the same place of the table */
    uint64_t hash;
    uint32_t users;
    bool whole;
    uint64_t units[];
};

struct list {
    uint32_t *items;
    uint32_t count, room;
};

/* Nodes, each once. */
struct group {
    struct list list;
    uint8_t *has; /* for each node */
};

struct lean {
    uint32_t leaner, here, there;
};

struct node {
    struct set *needs;
    uint32_t version, counted;
    uint64_t cuts;
    struct graph_erase *erases;
    uint32_t erase_count;
    struct list users, led; /* edges */
    struct lean *leans;
    uint32_t lean_count, lean_room;
};

struct graph {
    uint32_t words; /* of a set of units */
    uint64_t *fields, *more;
    struct set **sets; /* by their hash */
    uint32_t set_count, set_room;
    struct node *nodes;
    uint32_t node_count, node_room, has_room;
    struct graph_edge *edges;
    uint32_t edge_count, edge_room;
    uint32_t *places; /* of edges by user and node, or NONE */
    uint32_t place_room;
    uint32_t *entries; /* the node of each entry, or NONE */
    uint32_t entry_count, entry_room;
    struct group grown, leaners, waiting; /* waiting: to ask their users */
    struct list changed;                  /* edges with more operations */
    uint64_t *shifted;
    uint32_t shifted_room;
};

static void append(struct list *list, uint32_t item) {
    list->items = grown(list->items, &list->room, list->count + 1, sizeof *list->items);
    list->items[list->count++] = item;
}

static void join(struct group *group, uint32_t node) {
    if (!group->has[node]) {
        group->has[node] = true;
        append(&group->list, node);
    }
}

static void clear(struct group *group) {
    for (uint32_t i = 0; i < group->list.count; i++) {
        group->has[group->list.items[i]] = false;
    }
    group->list.count = 0;
}

struct graph *graph_new(uint32_t units, const uint64_t *fields) {
    struct graph *g = calloc(1, sizeof *g);
    if (!g) {
        return NULL;
    }
    g->words = units / WORD + (units % WORD != 0);
    g->fields = need(calloc(g->words + 1, sizeof *g->fields));
    memcpy(g->fields, fields, g->words * sizeof *fields);
    g->more = need(calloc(g->words + 1, sizeof *g->more));
    return g;
}

void graph_free(struct graph *g) {
    if (!g) {
        return;
    }
    for (uint32_t i = 0; i < g->set_room; i++) {
        for (struct set *set = g->sets[i], *next; set; set = next) {
            next = set->next;
            free(set);
        }
    }
    for (uint32_t i = 0; i < g->node_count; i++) {
        free(g->nodes[i].erases);
        free(g->nodes[i].users.items);
        free(g->nodes[i].led.items);
        free(g->nodes[i].leans);
    }
    for (uint32_t i = 0; i < g->edge_count; i++) {
        free(g->edges[i].ops);
    }
    struct group *groups[] = {&g->grown, &g->leaners, &g->waiting};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        free(groups[i]->list.items);
        free(groups[i]->has);
    }
    free(g->fields);
    free(g->more);
    free(g->sets);
    free(g->nodes);
    free(g->edges);
    free(g->places);
    free(g->entries);
    free(g->changed.items);
    free(g->shifted);
    free(g);
}

static uint64_t hash_words(const uint64_t *words, uint32_t count) {
    uint64_t hash = count;
    for (uint32_t i = 0; i < count; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return hash;
}

static void make_room_for_sets(struct graph *g) {
    if (g->set_count < g->set_room) {
        return;
    }
    uint32_t room = g->set_room ? g->set_room * 2 : 64;
    struct set **sets = need(calloc(room, sizeof(struct set *)));
    for (uint32_t i = 0; i < g->set_room; i++) {
        for (struct set *set = g->sets[i], *next; set; set = next) {
            next = set->next;
            set->next = sets[set->hash & (room - 1)];
            sets[set->hash & (room - 1)] = set;
        }
    }
    free(g->sets);
    g->sets = sets;
    g->set_room = room;
}

static bool is_whole(const struct graph *g, const uint64_t *units) {
    bool some = false, all = true;
    for (uint32_t i = 0; i < g->words; i++) {
        some = some || units[i] & g->fields[i];
        all = all && !(g->fields[i] & ~units[i]);
    }
    return all || !some;
}

/* The set with these units, for one more user. */
static struct set *hold(struct graph *g, const uint64_t *units) {
    make_room_for_sets(g);
    uint64_t hash = hash_words(units, g->words);
    struct set **place = &g->sets[hash & (g->set_room - 1)];
    for (struct set *set = *place; set; set = set->next) {
        if (set->hash == hash && memcmp(set->units, units, g->words * sizeof *units) == 0) {
            set->users++;
            return set;
        }
    }
    struct set *set = need(malloc(sizeof *set + g->words * sizeof *units));
    *set = (struct set){.next = *place, .hash = hash, .users = 1, .whole = is_whole(g, units)};
    memcpy(set->units, units, g->words * sizeof *units);
    g->set_count++;
    return *place = set;
}

static void let_go(struct graph *g, struct set *set) {
    if (--set->users) {
        return;
    }
    struct set **place = &g->sets[set->hash & (g->set_room - 1)];
    while (*place != set) {
        place = &(*place)->next;
    }
    *place = set->next;
    g->set_count--;
    free(set);
}

static void make_room_for_node(struct graph *g) {
    uint32_t room = g->has_room;
    g->nodes = grown(g->nodes, &g->node_room, g->node_count + 1, sizeof *g->nodes);
    if (g->node_room == room) {
        return;
    }
    struct group *groups[] = {&g->grown, &g->leaners, &g->waiting};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        groups[i]->has = need(realloc(groups[i]->has, g->node_room));
        memset(groups[i]->has + room, 0, g->node_room - room);
    }
    g->has_room = g->node_room;
}

uint32_t graph_add(struct graph *g, uint32_t entry, uint32_t counted, const uint64_t *units,
                   uint32_t erase_count, const struct graph_erase *erases) {
    assert(counted == NONE || counted < g->node_count);
    make_room_for_node(g);
    struct node n = {.needs = hold(g, units), .erase_count = erase_count};
    n.counted = counted == NONE ? g->node_count : counted;
    n.erases = need(malloc((erase_count + 1) * sizeof *erases));
    if (erase_count) {
        memcpy(n.erases, erases, erase_count * sizeof *erases);
    }
    g->nodes[g->node_count] = n;
    g->entries = grown(g->entries, &g->entry_room, entry + 1, sizeof *g->entries);
    while (g->entry_count <= entry) {
        g->entries[g->entry_count++] = NONE;
    }
    g->entries[entry] = g->node_count;
    return g->node_count++;
}

const uint64_t *graph_needs(const struct graph *g, uint32_t node) {
    assert(node < g->node_count);
    return g->nodes[node].needs->units;
}

uint32_t graph_version(const struct graph *g, uint32_t node) {
    assert(node < g->node_count);
    return g->nodes[node].version;
}

static uint32_t *find_place(const struct graph *g, uint32_t user, uint32_t node) {
    uint64_t hash = ((uint64_t)user << 32 | node) * 0x9e3779b97f4a7c15u;
    for (uint64_t at = hash >> 32;; at++) {
        uint32_t *place = &g->places[at & (g->place_room - 1)];
        if (*place == NONE || (g->edges[*place].user == user && g->edges[*place].node == node)) {
            return place;
        }
    }
}

static void make_room_for_edge(struct graph *g) {
    g->edges = grown(g->edges, &g->edge_room, g->edge_count + 1, sizeof *g->edges);
    if ((g->edge_count + 1) * 2 < g->place_room) {
        return;
    }
    free(g->places);
    g->place_room = g->place_room ? g->place_room * 2 : 64;
    g->places = need(malloc(g->place_room * sizeof *g->places));
    memset(g->places, 0xff, g->place_room * sizeof *g->places);
    for (uint32_t i = 0; i < g->edge_count; i++) {
        *find_place(g, g->edges[i].user, g->edges[i].node) = i;
    }
}

/* NONE: there is none. */
static uint32_t find_edge(const struct graph *g, uint32_t user, uint32_t node) {
    return g->place_room ? *find_place(g, user, node) : NONE;
}

static uint32_t make_edge(struct graph *g, uint32_t user, uint32_t node) {
    assert(user < g->node_count && node < g->node_count);
    make_room_for_edge(g);
    uint32_t *place = find_place(g, user, node);
    if (*place == NONE) {
        *place = g->edge_count;
        g->edges[g->edge_count] = (struct graph_edge){.user = user, .node = node};
        append(&g->nodes[node].users, g->edge_count);
        append(&g->nodes[user].led, g->edge_count);
        g->edge_count++;
    }
    return *place;
}

/* The first operation of an edge from operation `start` on; NONE: there is none. */
static uint32_t find_first_from(const struct graph_edge *e, uint32_t start) {
    for (uint32_t i = 0; i < e->count; i++) {
        uint32_t base = (e->first + i) * WORD;
        uint64_t ops = e->ops[i];
        if (base < start) {
            ops &= start - base < WORD ? UINT64_MAX << (start - base) : 0;
        }
        if (ops) {
            return base + (uint32_t)__builtin_ctzll(ops);
        }
    }
    return NONE;
}

static uint32_t find_first(const struct graph_edge *e) {
    return find_first_from(e, 0);
}

/* Have an edge keep words from `first` on. */
static void widen(struct graph_edge *e, uint32_t first, uint32_t end) {
    uint32_t old_end = e->first + e->count;
    if (e->count && first >= e->first && end <= old_end) {
        return;
    }
    uint32_t from = e->count && e->first < first ? e->first : first;
    uint32_t to = e->count && old_end > end ? old_end : end;
    uint64_t *ops = need(calloc(to - from, sizeof *ops));
    if (e->count) {
        memcpy(ops + (e->first - from), e->ops, e->count * sizeof *ops);
    }
    free(e->ops);
    e->ops = ops;
    e->first = from;
    e->count = to - from;
}

/* Note operations of an edge; whether there are new ones. */
static bool note(struct graph *g, uint32_t user, uint32_t node, const uint64_t *ops,
                 uint32_t words) {
    uint32_t first = 0;
    while (first < words && !ops[first]) {
        first++;
    }
    while (words > first && !ops[words - 1]) {
        words--;
    }
    if (first == words) {
        return false;
    }
    uint32_t edge = make_edge(g, user, node);
    struct graph_edge *e = &g->edges[edge];
    widen(e, first, words);
    uint64_t new = 0;
    for (uint32_t i = first; i < words; i++) {
        new |= ops[i] & ~e->ops[i - e->first];
        e->ops[i - e->first] |= ops[i];
    }
    if (new) {
        append(&g->changed, edge);
    }
    return new;
}

static void take_out(uint64_t *units, struct graph_erase e) {
    for (uint32_t unit = e.first; unit < e.end;) {
        uint32_t in = unit % WORD, left = e.end - unit;
        uint32_t count = left < WORD - in ? left : WORD - in;
        units[unit / WORD] &= ~(UINT64_MAX >> (WORD - count) << in);
        unit += count;
    }
}

/* Take out of `more` what a node erases, of the erases that end before operation `from` at the
 * earliest and before `op` at the latest. */
static void drop_erased(struct graph *g, const struct node *n, uint32_t from, uint32_t op) {
    for (uint32_t k = 0; k < n->erase_count && n->erases[k].before <= op; k++) {
        if (n->erases[k].before >= from) {
            take_out(g->more, n->erases[k]);
        }
    }
}

/* Have a user need what a node needs, as far as it is not erased before an operation. */
static void ask(struct graph *g, uint32_t user, uint32_t node, uint32_t op) {
    struct node *u = &g->nodes[user];
    const struct set *needs = g->nodes[node].needs;
    if (needs == u->needs && needs->whole) {
        return;
    }
    uint64_t any = 0;
    for (uint32_t i = 0; i < g->words; i++) {
        uint64_t asked = needs->units[i] | (needs->whole ? 0 : g->fields[i]);
        any |= g->more[i] = asked & ~u->needs->units[i];
    }
    if (!any) {
        return;
    }
    drop_erased(g, u, 0, op);
    any = 0;
    for (uint32_t i = 0; i < g->words; i++) {
        any |= g->more[i];
        g->more[i] |= u->needs->units[i];
    }
    if (!any) {
        return;
    }
    struct set *old = u->needs;
    u->needs = hold(g, g->more);
    let_go(g, old);
    u->version++;
    join(&g->grown, user);
    join(&g->waiting, user);
}

/* Have users need what follows from this, until nobody needs more. */
static void settle_needs(struct graph *g) {
    for (uint32_t at = 0; at < g->waiting.list.count; at++) {
        uint32_t node = g->waiting.list.items[at];
        g->waiting.has[node] = false;
        for (uint32_t i = 0; i < g->nodes[node].users.count; i++) {
            const struct graph_edge *e = &g->edges[g->nodes[node].users.items[i]];
            ask(g, e->user, node, find_first(e));
        }
    }
    g->waiting.list.count = 0;
}

/* Note for a leaner what an edge of the session has that it leans on. */
static void pass_on(struct graph *g, uint32_t edge, struct lean lean) {
    struct graph_edge e = g->edges[edge];
    uint32_t end = (e.first + e.count) * WORD, words = (end + lean.there) / WORD + 1;
    g->shifted = grown(g->shifted, &g->shifted_room, words, sizeof *g->shifted);
    memset(g->shifted, 0, words * sizeof *g->shifted);
    for (uint32_t i = 0; i < e.count; i++) {
        for (uint64_t ops = e.ops[i]; ops; ops &= ops - 1) {
            uint32_t op = (e.first + i) * WORD + (uint32_t)__builtin_ctzll(ops);
            if (op >= lean.here) {
                uint32_t there = op - lean.here + lean.there;
                g->shifted[there / WORD] |= (uint64_t)1 << there % WORD;
            }
        }
    }
    if (note(g, lean.leaner, e.node, g->shifted, words)) {
        join(&g->leaners, lean.leaner);
    }
}

void graph_settle(struct graph *g) {
    for (uint32_t at = 0; at < g->changed.count; at++) {
        uint32_t edge = g->changed.items[at];
        struct graph_edge e = g->edges[edge];
        ask(g, e.user, e.node, find_first(&e));
        settle_needs(g);
        for (uint32_t i = 0; i < g->nodes[e.user].lean_count; i++) {
            pass_on(g, edge, g->nodes[e.user].leans[i]);
        }
    }
    g->changed.count = 0;
}

void graph_note(struct graph *g, uint32_t user, uint32_t node, uint32_t words,
                const uint64_t *ops) {
    note(g, user, node, ops, words);
}

bool graph_leads_at(const struct graph *g, uint32_t user, uint32_t node, uint32_t op) {
    uint32_t edge = find_edge(g, user, node), word = op / WORD;
    if (edge == NONE) {
        return false;
    }
    const struct graph_edge *e = &g->edges[edge];
    return word >= e->first && word - e->first < e->count &&
           e->ops[word - e->first] >> op % WORD & 1;
}

/* Count cuts of a row for each session that it leads to, once: ways of reading may share one. */
static void count(struct graph *g, const uint32_t *nodes, uint64_t cuts) {
    for (uint32_t way = 0; way < WALK_WAYS && nodes[way] != NONE; way++) {
        uint32_t counted = g->nodes[nodes[way]].counted;
        bool first = true;
        for (uint32_t other = 0; other < way; other++) {
            first = first && g->nodes[nodes[other]].counted != counted;
        }
        g->nodes[counted].cuts += first ? cuts : 0;
    }
}

uint64_t graph_take(struct graph *g, uint32_t user, const struct walk *w, bool counts) {
    uint64_t cuts = 0;
    for (uint32_t i = 0; i < walk_row_count(w); i++) {
        const struct walk_row *row = &walk_rows(w)[i];
        uint32_t nodes[WALK_WAYS];
        for (uint32_t way = 0; way < WALK_WAYS; way++) {
            uint32_t entry = row->entries[way];
            assert(entry == NONE || entry < g->entry_count);
            nodes[way] = entry == NONE ? NONE : g->entries[entry];
            if (nodes[way] != NONE) {
                note(g, user, nodes[way], walk_row_ops(w, i), walk_row_words(w));
            }
        }
        cuts += row->cuts;
        if (counts) {
            count(g, nodes, row->cuts);
        }
    }
    graph_settle(g);
    return cuts;
}

uint64_t graph_take_count(struct graph *g, uint32_t node) {
    assert(node < g->node_count);
    uint64_t cuts = g->nodes[node].cuts;
    g->nodes[node].cuts = 0;
    return cuts;
}

void graph_lean(struct graph *g, uint32_t whole, uint32_t leaner, uint32_t here, uint32_t there) {
    assert(whole < g->node_count && leaner < g->node_count);
    struct node *n = &g->nodes[whole];
    for (uint32_t i = 0; i < n->lean_count; i++) {
        struct lean *lean = &n->leans[i];
        if (lean->leaner == leaner) {
            lean->here = here < lean->here ? here : lean->here;
            lean->there = there < lean->there ? there : lean->there;
            return;
        }
    }
    n->leans = grown(n->leans, &n->lean_room, n->lean_count + 1, sizeof *n->leans);
    n->leans[n->lean_count++] = (struct lean){leaner, here, there};
}

void graph_live(struct graph *g, uint32_t node, uint32_t start, uint64_t *units) {
    assert(node < g->node_count);
    const struct node *n = &g->nodes[node];
    memset(units, 0, g->words * sizeof *units);
    for (uint32_t i = 0; i < n->led.count; i++) {
        const struct graph_edge *e = &g->edges[n->led.items[i]];
        uint32_t op = find_first_from(e, start);
        if (op == NONE) {
            continue;
        }
        const struct set *needs = g->nodes[e->node].needs;
        for (uint32_t k = 0; k < g->words; k++) {
            g->more[k] = needs->units[k] | (needs->whole ? 0 : g->fields[k]);
        }
        drop_erased(g, n, start + 1, op);
        for (uint32_t k = 0; k < g->words; k++) {
            units[k] |= g->more[k];
        }
    }
}

static bool has_any(const struct graph *g, const uint64_t *units) {
    for (uint32_t i = 0; i < g->words; i++) {
        if (units[i]) {
            return true;
        }
    }
    return false;
}

uint32_t graph_find_erasing(struct graph *g, uint32_t node, const uint64_t *units, uint32_t first) {
    assert(node < g->node_count);
    const struct node *n = &g->nodes[node];
    memcpy(g->more, units, g->words * sizeof *units);
    for (uint32_t k = 0; k < n->erase_count; k++) {
        if (n->erases[k].before > first) {
            take_out(g->more, n->erases[k]);
            if (!has_any(g, g->more)) {
                return n->erases[k].before;
            }
        }
    }
    return NONE;
}

uint32_t graph_first(const struct graph *g, uint32_t user, uint32_t node) {
    uint32_t edge = find_edge(g, user, node);
    return edge == NONE ? NONE : find_first(&g->edges[edge]);
}

uint32_t graph_user_count(const struct graph *g, uint32_t node) {
    assert(node < g->node_count);
    return g->nodes[node].users.count;
}

const struct graph_edge *graph_user(const struct graph *g, uint32_t node, uint32_t number) {
    assert(node < g->node_count && number < g->nodes[node].users.count);
    return &g->edges[g->nodes[node].users.items[number]];
}

uint32_t graph_led_count(const struct graph *g, uint32_t node) {
    assert(node < g->node_count);
    return g->nodes[node].led.count;
}

const struct graph_edge *graph_led(const struct graph *g, uint32_t node, uint32_t number) {
    assert(node < g->node_count && number < g->nodes[node].led.count);
    return &g->edges[g->nodes[node].led.items[number]];
}

static uint32_t hand_over(struct group *group, const uint32_t **nodes) {
    uint32_t count = group->list.count;
    clear(group);
    *nodes = group->list.items;
    return count;
}

uint32_t graph_list_grown(struct graph *g, const uint32_t **nodes) {
    return hand_over(&g->grown, nodes);
}

uint32_t graph_list_leaners(struct graph *g, const uint32_t **nodes) {
    return hand_over(&g->leaners, nodes);
}
