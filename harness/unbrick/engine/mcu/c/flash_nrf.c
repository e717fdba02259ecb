/* The flash of nRF52: NVMC, with what protects pages (BPROT of nRF52832, ACL of nRF52840). Source:
 * the product specifications. A violation that is a hard fault there is told as a fault. */
#include "devices.h"

enum {
    READY = 0x400,
    READYNEXT = 0x408,
    CONFIG = 0x504,
    ERASEPAGE = 0x508,
    ERASEALL = 0x50c,
    ERASEPCR0 = 0x510, /* another name of ERASEPAGE in nRF52832 */
    ERASEUICR = 0x514,
    ERASEPAGEPARTIAL = 0x518,
    ERASEPAGEPARTIALCFG = 0x51c
};
enum { CONFIG_READ = 0, CONFIG_WRITE = 1, CONFIG_ERASE = 2 };
enum { BPROT_CONFIG0 = 0x00, BPROT_CONFIG1 = 0x04, BPROT_CONFIG2 = 0x10, BPROT_CONFIG3 = 0x14 };
enum { ACL_ADDR = 0x00, ACL_SIZE = 0x04, ACL_PERM = 0x08, ACL_REGION = 0x10 };
enum { ACL_PERM_NO_WRITE = 1u << 1 };
#define ACL_REGIONS 8u
#define PARTIAL_RESET_MS 10u
#define BLOCK 512u /* bytes, that the limit of writes to a block is about */
#define US_PER_MS 1000u

struct guard { /* the device that protects pages */
    struct device device;
    bool is_acl;
    uint32_t registers[4 * ACL_REGIONS];
};

/* How often a word or a block was written since it was erased. What was so before the power came
 * is told by the cells: a word that is not blank was written once. */
struct writes {
    uint32_t power;       /* the power-on since which this holds */
    uint32_t before, now; /* that the cells tell, and since then */
};

/* They follow from the operations since the power came, and from what is recalled. So they are no
 * memory that sessions are compared by. */
struct counts {
    uint32_t power;
    struct writes *words, *blocks;
};

struct nvmc {
    struct device device;
    struct flash main, uicr;
    struct flash_job job;
    struct guard *guard; /* NULL: nothing protects */
    uint32_t program_us, erase_us, mass_erase_us, page_size, word_writes, block_writes;
    bool partial, ready_next;
    uint32_t config, partial_ms;
    struct counts *counts;
    uint64_t part_ends; /* when a partial erase that is not the last one does */
    uint32_t *page_us;  /* of each page: how long it has been erased partially */
};

static uint32_t count_words(const uint8_t *cells, uint32_t length) {
    uint32_t written = 0;
    for (uint32_t i = 0; i < length; i += 4) {
        written += get32(cells + i) != UINT32_MAX;
    }
    return written;
}

/* How often a range has now been written, if that is more than `most`; else 0. What the cells tell
 * has a say only where they could tell so much. */
static uint32_t count_write(struct mcu *m, struct nvmc *n, struct writes *w, uint32_t offset,
                            uint32_t length, uint32_t most) {
    if (w->power != n->counts->power) {
        w->power = n->counts->power;
        w->before = count_words(n->main.cells + offset, length);
        w->now = 0;
        recall(m, w->before);
    }
    w->now++;
    if (w->now + length / 4 > most) {
        note_cells(m, &n->main, offset, length);
    }
    return w->before + w->now > most ? w->before + w->now : 0;
}

static void forget_writes(struct nvmc *n, uint32_t offset, uint32_t length) {
    struct counts *c = n->counts;
    memset(c->words + offset / 4, 0, length / 4 * sizeof *c->words);
    memset(c->blocks + offset / BLOCK, 0, length / BLOCK * sizeof *c->blocks);
    memset(n->page_us + offset / n->page_size, 0, length / n->page_size * sizeof *n->page_us);
}

static bool is_protected(const struct nvmc *n, uint32_t offset) {
    if (!n->guard) {
        return false;
    }
    const uint32_t *r = n->guard->registers;
    if (!n->guard->is_acl) {
        static const uint8_t registers[4] = {BPROT_CONFIG0, BPROT_CONFIG1, BPROT_CONFIG2,
                                             BPROT_CONFIG3};
        uint32_t page = offset / n->page_size;
        return page < 128 && r[registers[page / 32] / 4] >> page % 32 & 1;
    }
    for (uint32_t region = 0; region < ACL_REGIONS; region++, r += ACL_REGION / 4) {
        if (r[ACL_PERM / 4] & ACL_PERM_NO_WRITE && offset >= r[ACL_ADDR / 4] &&
            offset - r[ACL_ADDR / 4] < r[ACL_SIZE / 4]) {
            return true;
        }
    }
    return false;
}

static bool is_any_protected(const struct nvmc *n) {
    for (uint32_t offset = 0; offset < n->main.size; offset += n->page_size) {
        if (is_protected(n, offset)) {
            return true;
        }
    }
    return false;
}

static void settle(struct mcu *m, struct device *d) {
    job_settle(m, &((struct nvmc *)d)->job);
}

static void begin(struct mcu *m, struct nvmc *n, uint32_t kind, struct flash *flash,
                  uint32_t offset, uint32_t length, uint64_t us) {
    if (job_begin(m, &n->job, kind, flash, offset, length, us * NS_PER_US) && kind != OP_PROGRAM &&
        flash == &n->main) {
        forget_writes(n, offset, length);
    }
}

static bool is_busy(struct mcu *m, const struct nvmc *n) {
    return n->job.busy || mcu_now(m) < n->part_ends;
}

/* Until its last part is done, a page that is erased in parts reads as before. What it holds
 * between is what a torn erase leaves, and that is how a power cut there is searched. */
static void erase_page(struct mcu *m, struct nvmc *n, uint32_t address, bool partially) {
    uint32_t offset = address - n->main.base, page = offset / n->page_size;
    if (offset >= n->main.size || offset % n->page_size) {
        fault(m, FAULT_FLASH_COMMAND, NOWHERE, address);
        return;
    }
    if (is_protected(n, offset)) {
        fault(m, FAULT_FLASH_PROTECTED, offset, address);
        return;
    }
    uint32_t us = partially ? n->partial_ms * US_PER_MS : n->erase_us;
    if (partially && n->page_us[page] + us < n->erase_us) {
        n->page_us[page] += us;
        n->part_ends = mcu_now(m) + (uint64_t)us * NS_PER_US;
        if (runs_from_flash(m)) {
            mcu_elapse(m, (uint64_t)us * NS_PER_US);
        }
    } else {
        begin(m, n, OP_ERASE, &n->main, offset, n->page_size, us);
    }
}

static void erase(struct mcu *m, struct nvmc *n, uint32_t offset, uint32_t value) {
    bool all = offset == ERASEALL, uicr = offset == ERASEUICR;
    if ((all || uicr) && !(value & 1)) {
        return;
    }
    if (n->config != CONFIG_ERASE) {
        fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
    } else if (is_busy(m, n)) {
        fault(m, FAULT_FLASH_BUSY, NOWHERE, value);
    } else if (all && is_any_protected(n)) {
        fault(m, FAULT_FLASH_PROTECTED, 0, value);
    } else if (all) {
        n->job.more = &n->uicr;
        begin(m, n, OP_ERASE, &n->main, 0, n->main.size, n->mass_erase_us);
    } else if (uicr) {
        begin(m, n, OP_ERASE, &n->uicr, 0, n->uicr.size, n->erase_us);
    } else {
        erase_page(m, n, value, offset == ERASEPAGEPARTIAL);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct nvmc *n = (struct nvmc *)d;
    switch (offset) {
    case READY:
        return !is_busy(m, n);
    case READYNEXT:
        if (n->ready_next) { /* another program is taken while one is under way */
            return !is_busy(m, n) || (n->job.busy && n->job.kind == OP_PROGRAM);
        }
        break;
    case CONFIG:
        return n->config;
    case ERASEPAGEPARTIALCFG:
        if (n->partial) {
            return n->partial_ms;
        }
        break;
    default:
        break;
    }
    return plain_read(m, d->base + offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct nvmc *n = (struct nvmc *)d;
    if (offset == CONFIG) {
        if (is_busy(m, n)) {
            fault(m, FAULT_FLASH_BUSY, NOWHERE, value);
        } else if ((value & 3) == 3) {
            fault(m, FAULT_FLASH_COMMAND, NOWHERE, value);
        } else {
            n->config = value & 3;
        }
    } else if (offset == ERASEPAGE || offset == ERASEPCR0 || offset == ERASEALL ||
               offset == ERASEUICR || (n->partial && offset == ERASEPAGEPARTIAL)) {
        erase(m, n, offset, value);
    } else if (n->partial && offset == ERASEPAGEPARTIALCFG) {
        n->partial_ms = value & 0x7f;
    } else {
        plain_write(m, d->base + offset, size, value);
    }
    settle(m, d);
}

static void store(struct mcu *m, struct flash *flash, uint32_t offset, unsigned size,
                  uint64_t value) {
    struct nvmc *n = (struct nvmc *)flash->controller;
    uint32_t at = flash->first + offset;
    if (n->ready_next && n->job.busy && n->job.kind == OP_PROGRAM) {
        job_wait(m, &n->job);
        settle(m, &n->device);
    }
    if (n->config == CONFIG_READ) {
        fault(m, FAULT_FLASH_LOCKED, at, (uint32_t)value);
    } else if (n->config != CONFIG_WRITE) {
        fault(m, FAULT_FLASH_STRAY, at, (uint32_t)value);
    } else if (is_busy(m, n)) {
        fault(m, FAULT_FLASH_BUSY, at, (uint32_t)value);
    } else if (size != 4 || offset % 4) {
        fault(m, FAULT_FLASH_WIDTH, at, size);
    } else if (flash == &n->main && is_protected(n, offset)) {
        fault(m, FAULT_FLASH_PROTECTED, at, (uint32_t)value);
    } else {
        if (flash == &n->main) {
            uint32_t block = offset / BLOCK;
            struct counts *c = n->counts;
            uint32_t times = count_write(m, n, &c->words[offset / 4], offset, 4, n->word_writes);
            uint32_t of_block = count_write(m, n, &c->blocks[block], block * BLOCK, BLOCK,
                                            n->block_writes ? n->block_writes : UINT32_MAX);
            if (times || of_block) {
                fault(m, FAULT_FLASH_WORN, at, times ? times : of_block);
            }
        }
        put32(n->job.data, (uint32_t)value);
        begin(m, n, OP_PROGRAM, flash, offset, 4, n->program_us);
    }
    settle(m, &n->device);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct nvmc *n = (struct nvmc *)d;
    job_reset(m, &n->job, kind);
    if (lost_supply(kind)) { /* what was written before is told by the cells */
        n->counts->power++;
        memset(n->page_us, 0, n->main.size / n->page_size * sizeof *n->page_us);
    }
    n->part_ends = 0;
    n->config = CONFIG_READ;
    n->partial_ms = PARTIAL_RESET_MS;
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return job_next(&((struct nvmc *)d)->job);
}

static void lose_power(struct mcu *m, struct device *d) {
    job_tear(m, &((struct nvmc *)d)->job);
}

static void release(struct device *d) {
    struct nvmc *n = (struct nvmc *)d;
    free(n->counts->words);
    free(n->counts->blocks);
    free(n->counts);
    free(n->page_us);
    device_free(d);
}

static uint32_t guard_read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    (void)m;
    return part_of(((struct guard *)d)->registers[offset / 4], offset, size);
}

/* What protects can be set, and is cleared by a reset alone. */
static void guard_write(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                        uint32_t value) {
    struct guard *g = (struct guard *)d;
    uint32_t *r = &g->registers[offset / 4];
    (void)m;
    value = with_part(0, offset, size, value);
    if (!g->is_acl) {
        *r |= value;
    } else if (*r == 0) { /* each register of the ACL takes one value (Access control lists) */
        *r = value;
    }
}

static void guard_reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct guard *g = (struct guard *)d;
    (void)m;
    (void)kind;
    memset(g->registers, 0, sizeof g->registers);
}

static struct counts *make_counts(uint32_t size) {
    struct counts *c = calloc(1, sizeof *c);
    if (c) {
        c->words = calloc(size / 4, sizeof *c->words);
        c->blocks = calloc(size / BLOCK + 1, sizeof *c->blocks);
    }
    if (!c || !c->words || !c->blocks) {
        abort();
    }
    return c;
}

void flash_nrf_add(struct mcu *m, const struct device_place *place) {
    assert(place->flash);
    struct nvmc *n = device_memory(m, sizeof *n);
    uint32_t bprot = place->numbers[8], acl = place->numbers[9];
    n->device = (struct device){.base = place->base,
                                .size = 0x800,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .lose_power = lose_power,
                                .free = release};
    n->program_us = place->numbers[0];
    n->erase_us = place->numbers[1];
    n->mass_erase_us = place->numbers[2];
    n->page_size = place->numbers[3];
    n->word_writes = place->numbers[4];
    n->block_writes = place->numbers[5];
    n->partial = place->numbers[6];
    n->ready_next = place->numbers[7];
    n->main.store = n->uicr.store = store;
    uint32_t size = place->flash[0].size;
    n->counts = make_counts(size);
    n->page_us = device_memory(m, (size / n->page_size + 1) * sizeof *n->page_us);
    mcu_add_device(m, &n->device);
    flash_add_region(m, &n->main, &place->flash[0], &n->device);
    flash_add_region(m, &n->uicr, &place->flash[1], &n->device);
    if (bprot || acl) {
        n->guard = device_memory(m, sizeof *n->guard);
        n->guard->is_acl = acl;
        n->guard->device = (struct device){.base = acl ? acl : bprot,
                                           .size = acl ? ACL_REGIONS * ACL_REGION : 0x20,
                                           .read = guard_read,
                                           .write = guard_write,
                                           .reset = guard_reset,
                                           .free = device_free};
        mcu_add_device(m, &n->guard->device);
    }
}
